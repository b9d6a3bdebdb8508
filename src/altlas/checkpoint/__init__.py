"""Checkpoints that are whole or not there, and the run directory they live in. Contents are bytes: no tensors here."""
