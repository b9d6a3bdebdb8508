"""The trainer's metrics; those of its devices are `altlas.obs.devices`. They tell of the run that learned last.

The figures of the last update are shown as they were reported: what an algorithm does not report has no series.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from altlas.checkpoint.store import LoadedCheckpoint
from altlas.obs.metrics import counter, gauge, gauge_family, histogram
from altlas.rpc.trainer.v1 import trainer_pb2

_PHASES = ("wait", "read", "remember", "backpropagate", "step", "publish")
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

LEARN_SECONDS = histogram(
    "altlas_trainer_learn_seconds",
    "Seconds per update, waiting for the learner included.",
    'The trainer\'s side of altlas_coordinator_stage_seconds{stage="learn"}.',
    buckets=_BUCKETS,
)
PHASE_SECONDS = histogram(
    "altlas_trainer_phase_seconds",
    "Seconds of an update by phase, none of which holds another: wait (for the thread that learns), read (the batch), "
    "remember (queue and archive), backpropagate (loss and gradient), step (all else of learning), publish (in async "
    "mode, the policy for the generators).",
    "backpropagate should be the largest. Much wait: another run, checkpoints or fetches keep the thread busy.",
    labels=["phase"],
    buckets=_BUCKETS,
)
POLICY_VERSION = gauge(
    "altlas_trainer_policy_version",
    "Updates done by the run that learned last.",
    "Falls when a run goes back to a checkpoint, or another run learns.",
)
NONFINITE = counter(
    "altlas_trainer_nonfinite_total",
    "Updates refused because loss or gradient was NaN or infinite; the weights did not move.",
    "Any stops its run. The batch lies in the run's directory as not_finite_update_N.safetensors; lower "
    "optimizer.learning_rate or resume from an earlier checkpoint.",
)
CHECKPOINT_SECONDS = histogram(
    "altlas_trainer_checkpoint_seconds",
    "Seconds to write a checkpoint, waiting for the learner included.",
    "The run stands still meanwhile; divided by run.checkpoint_every it is what an update pays. Large: a slow disk.",
    buckets=_BUCKETS,
)
CHECKPOINT_BYTES = gauge(
    "altlas_trainer_checkpoint_bytes",
    "Size of the newest checkpoint.",
    "Grows with the programs seen: 8 bytes each. A run keeps run.keep_last of them, and more.",
)
CHECKPOINT_TIMESTAMP = gauge(
    "altlas_trainer_checkpoint_timestamp_seconds",
    "Unix time of the newest checkpoint, a loaded one included; 0 before the first.",
    "`time() - x` is what a crash now would lose.",
)
LEARNING = gauge_family(
    "altlas_trainer_learning",
    "What the last update reported, by name.",
    "The same figures as `learning` in metrics.jsonl.",
    labels=["name"],
)
ENTROPY = gauge_family(
    "altlas_trainer_entropy",
    "Mean entropy per token of the last update's programs, nats; 0 where none was sampled from the policy.",
    "How much the policy still explores: 0.5 to 1.2 in healthy runs. Near 0 it has collapsed to one program; raise "
    "objective.entropy_weight, or set objective.entropy_target.",
)
ENTROPY_FLOOR = gauge_family(
    "altlas_trainer_entropy_floor",
    "objective.entropy_target of the run opened last; left out where that is 0, which holds the entropy nowhere.",
    "The entropy should stay at it or above; well below for long, entropy_weight_max is too small.",
)
GRADIENT_NORM = gauge_family(
    "altlas_trainer_gradient_norm",
    "Norm of the last update's gradient, before it is clipped.",
    "Above optimizer.gradient_clip on and on: most of each step is cut off; lower the learning rate. Near 0: nothing "
    "is learned.",
)
LOSS = gauge_family(
    "altlas_trainer_loss",
    "Loss of the last update.",
    "A policy gradient's loss need not fall: judge by the reward. A jump says that something changed.",
)
_NAMED = {"entropy": ENTROPY, "gradient_norm": GRADIENT_NORM, "loss": LOSS}

for _phase in _PHASES:
    PHASE_SECONDS.labels(_phase)


class LastUpdate(Collector):
    """What the last update reported."""

    def __init__(self) -> None:
        self._figures: Mapping[str, float] = {}
        self.entropy_floor = 0.0

    def show(self, figures: Mapping[str, float]) -> None:
        """Take the place of the update before."""
        self._figures = figures

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is comes with the first update."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return what prometheus_client asks for at each scrape."""
        figures = self._figures
        if figures:
            yield LEARNING.by({(name,): value for name, value in figures.items()})
        yield from (family.of(figures[name]) for name, family in _NAMED.items() if name in figures)
        if self.entropy_floor:
            yield ENTROPY_FLOOR.of(self.entropy_floor)


LAST_UPDATE = LastUpdate()
REGISTRY.register(LAST_UPDATE)


def observe(response: trainer_pb2.LearnResponse) -> None:
    """Publish an update's figures."""
    POLICY_VERSION.set(response.policy_version)
    LAST_UPDATE.show(dict(response.metrics))


def observe_opened(policy_version: int, *, entropy_floor: float, loaded: LoadedCheckpoint | None) -> None:
    """Show where a run stands that was opened, and the checkpoint that it was loaded from."""
    POLICY_VERSION.set(policy_version)
    LAST_UPDATE.entropy_floor = entropy_floor
    if loaded is not None:
        CHECKPOINT_TIMESTAMP.set(loaded.path.stat().st_mtime)
        CHECKPOINT_BYTES.set(sum(len(content) for content in loaded.files.values()))


def observe_checkpoint(size_bytes: int) -> None:
    """Tell of a checkpoint that has just been written."""
    CHECKPOINT_TIMESTAMP.set_to_current_time()
    CHECKPOINT_BYTES.set(size_bytes)


class _Within(threading.local):
    """For each phase that a thread is in, from the outermost, the seconds of those within it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []


_WITHIN = _Within()


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Time a phase of an update, without the phases within it. Decorates a function, too."""
    started, within = time.perf_counter(), _WITHIN.seconds
    within.append(0.0)
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        PHASE_SECONDS.labels(name).observe(seconds - within.pop())
        if within:
            within[-1] += seconds
