"""Logging, metrics and what a run leaves behind."""
