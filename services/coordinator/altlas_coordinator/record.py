"""What an update leaves behind: a line in the log, figures in metrics.jsonl, attempts worth keeping, gauges, events."""

from __future__ import annotations

import logging

import numpy as np

from altlas.config.sections import Config
from altlas.core.score_batch import STATUSES
from altlas.obs.run_files import Attempt, RunFiles
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas_coordinator import metrics
from altlas_coordinator.loop import UpdateReport

LOGGER = logging.getLogger(__name__)


def progress_message(report: UpdateReport, *, budget: int) -> coordinator_pb2.Progress:
    """Return where the run stands after an update."""
    totals, rewards = report.totals, report.scores.rewards
    counts = np.bincount(report.scores.statuses, minlength=len(STATUSES)).tolist()
    return coordinator_pb2.Progress(
        update=totals.updates,
        programs=totals.programs,
        budget=budget,
        unique_programs=totals.unique_programs,
        evaluated_programs=totals.evaluated_programs,
        best_reward=totals.best_reward,
        best_program=totals.best_program,
        solved=totals.solved,
        verified=totals.verified,
        mean_reward=float(rewards.mean()),
        max_reward=float(rewards.max()),
        seconds=totals.seconds,
        stage_s=report.stage_s,
        metrics=report.metrics,
        statuses={status.value: count for status, count in zip(STATUSES, counts, strict=True) if count},
    )


def record_update(report: UpdateReport, files: RunFiles, *, config: Config) -> coordinator_pb2.Progress:
    """Write an update down everywhere it belongs, and return where the run stands."""
    progress = progress_message(report, budget=config.run.budget)
    LOGGER.info(
        "update %d: %d programs, reward mean %.3f max %.3f best %.3f, entropy %.2f, %d of %d run, %.2f s",
        progress.update,
        progress.programs,
        progress.mean_reward,
        progress.max_reward,
        progress.best_reward,
        report.metrics.get("entropy", 0.0),
        report.batch.evaluated,
        len(report.scores),
        sum(report.stage_s.values()),
    )
    files.record_update(
        {
            "update": progress.update,
            "programs": progress.programs,
            "unique_programs": progress.unique_programs,
            "evaluated_programs": progress.evaluated_programs,
            "mean_reward": progress.mean_reward,
            "max_reward": progress.max_reward,
            "best_reward": progress.best_reward,
            "solved": progress.solved,
            "verified": progress.verified,
            "seconds": progress.seconds,
            "stage_s": report.stage_s,
            "statuses": dict(progress.statuses),
            "learning": report.metrics,
        }
    )
    files.keep_attempts(_worth_keeping(report, sample_every=config.logging.attempts_sample))
    if report.bests:
        files.write_best(report.totals.best_program)
        if report.totals.verified:
            LOGGER.info("solved and verified:\n%s", report.totals.best_program)
    metrics.observe(report, progress)
    return progress


def _worth_keeping(report: UpdateReport, *, sample_every: int) -> list[Attempt]:
    first = report.totals.programs - len(report.scores)
    bests = set(report.bests)
    is_new_solution = report.scores.solved & report.batch.is_new
    is_kept = is_new_solution.copy()
    is_kept[report.bests] = True
    if sample_every:
        is_kept[-first % sample_every :: sample_every] = True
    return [
        Attempt(
            program=first + position,
            update=report.totals.updates - 1,
            kept_for="best" if position in bests else "solved" if is_new_solution[position] else "sampled",
            score=report.scores.score(position),
            source=report.sources[position].decode(),
        )
        for position in np.flatnonzero(is_kept).tolist()
    ]
