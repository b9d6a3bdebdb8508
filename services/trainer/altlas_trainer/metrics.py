"""The trainer's metrics."""

from __future__ import annotations

from prometheus_client import Gauge, Histogram

from altlas.rpc.trainer.v1 import trainer_pb2

LEARN_SECONDS = Histogram("altlas_trainer_learn_seconds", "Seconds per update, waiting for the learner included.")
CHECKPOINT_SECONDS = Histogram("altlas_trainer_checkpoint_seconds", "Seconds to write a checkpoint.")
CHECKPOINT_BYTES = Gauge("altlas_trainer_checkpoint_bytes", "Size of the newest checkpoint.")
POLICY_VERSION = Gauge("altlas_trainer_policy_version", "Updates done by the run that learned last.")
LEARNING = Gauge("altlas_trainer_learning", "What the last update reported, by name.", ["name"])


def observe(response: trainer_pb2.LearnResponse) -> None:
    """Publish an update's figures."""
    POLICY_VERSION.set(response.policy_version)
    for name, value in response.metrics.items():
        LEARNING.labels(name).set(value)
