"""The coordinator's metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from altlas.rpc.coordinator.v1 import coordinator_pb2

if TYPE_CHECKING:
    from altlas_coordinator.loop import UpdateReport

PROGRAMS = Counter("altlas_coordinator_programs_total", "Programs scored, duplicates included, by status.", ["status"])
EVALUATED = Counter("altlas_coordinator_evaluated_programs_total", "Programs that were run, duplicates not included.")
STAGE_SECONDS = Histogram("altlas_coordinator_stage_seconds", "Seconds of an update by stage.", ["stage"])
UPDATES = Counter("altlas_coordinator_updates_total", "Updates done.")
REWARD_MEAN = Gauge("altlas_coordinator_reward_mean", "Mean reward of the last batch.")
REWARD_BEST = Gauge("altlas_coordinator_reward_best", "Best reward of the run so far.")
LAG = Histogram(
    "altlas_coordinator_lag_updates",
    "Updates between the policy that drew a batch and the one that learned from it.",
    buckets=(0, 1, 2, 3, 4, 8, 16, 32, 64),
)
IN_FLIGHT = Gauge("altlas_coordinator_in_flight_updates", "Updates on their way in async mode.")
REFUSED_RESULTS = Counter("altlas_coordinator_refused_results_total", "Results of evaluators that broke the contract.")
ROLLBACKS = Counter("altlas_coordinator_rollbacks_total", "Returns to the newest checkpoint, by cause.", ["cause"])
STALLED_SECONDS = Gauge("altlas_coordinator_stalled_seconds", "Seconds without progress, once the watchdog reports.")
FENCE = Gauge("altlas_coordinator_fence", "Fencing number of the lease on the run led last.")
WAITING_SECONDS = Gauge(
    "altlas_coordinator_waiting_seconds", "Seconds that a peer has been away; 0: it is there.", ["peer"]
)
LAST_PROGRESS = Gauge("altlas_coordinator_last_progress_timestamp_seconds", "Unix time of the last update's end.")


def observe(report: UpdateReport, progress: coordinator_pb2.Progress) -> None:
    """Publish an update's figures."""
    for status, count in progress.statuses.items():
        PROGRAMS.labels(status).inc(count)
    EVALUATED.inc(report.batch.evaluated)
    LAG.observe(report.lag)
    for stage, seconds in report.stage_s.items():
        STAGE_SECONDS.labels(stage).observe(seconds)
    UPDATES.inc()
    REWARD_MEAN.set(progress.mean_reward)
    REWARD_BEST.set(progress.best_reward)
    LAST_PROGRESS.set_to_current_time()
