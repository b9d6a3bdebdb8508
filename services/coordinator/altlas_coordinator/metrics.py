"""The coordinator's metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas_coordinator.loop import UpdateReport

PROGRAMS = Counter("altlas_coordinator_programs_total", "Programs scored, duplicates included, by status.", ["status"])
EVALUATED = Counter("altlas_coordinator_evaluated_programs_total", "Programs that were run, duplicates not included.")
STAGE_SECONDS = Histogram("altlas_coordinator_stage_seconds", "Seconds of an update by stage.", ["stage"])
UPDATES = Counter("altlas_coordinator_updates_total", "Updates done.")
REWARD_MEAN = Gauge("altlas_coordinator_reward_mean", "Mean reward of the last batch.")
REWARD_BEST = Gauge("altlas_coordinator_reward_best", "Best reward of the run so far.")
LAST_PROGRESS = Gauge("altlas_coordinator_last_progress_timestamp_seconds", "Unix time of the last update's end.")


def observe(report: UpdateReport, progress: coordinator_pb2.Progress) -> None:
    """Publish an update's figures."""
    for status, count in progress.statuses.items():
        PROGRAMS.labels(status).inc(count)
    EVALUATED.inc(report.batch.evaluated)
    for stage, seconds in report.stage_s.items():
        STAGE_SECONDS.labels(stage).observe(seconds)
    UPDATES.inc()
    REWARD_MEAN.set(progress.mean_reward)
    REWARD_BEST.set(progress.best_reward)
    LAST_PROGRESS.set_to_current_time()
