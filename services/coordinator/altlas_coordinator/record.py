"""What an update leaves behind: a line in the log, figures in metrics.jsonl, attempts worth keeping, gauges, events."""

from __future__ import annotations

import logging
from collections import Counter

from altlas.config.sections import Config
from altlas.obs.run_files import Attempt, RunFiles
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas_coordinator import metrics
from altlas_coordinator.loop import UpdateReport

LOGGER = logging.getLogger(__name__)


def progress_message(report: UpdateReport, *, budget: int) -> coordinator_pb2.Progress:
    """Return where the run stands after an update."""
    totals, rewards = report.totals, [score.reward for score in report.scores]
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
        mean_reward=sum(rewards) / len(rewards),
        max_reward=max(rewards),
        seconds=totals.seconds,
        stage_s=report.stage_s,
        metrics=report.metrics,
        statuses=Counter(score.status.value for score in report.scores),
    )


def record_update(report: UpdateReport, files: RunFiles, *, config: Config) -> None:
    """Write an update down everywhere it belongs."""
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


def _worth_keeping(report: UpdateReport, *, sample_every: int) -> list[Attempt]:
    first = report.totals.programs - len(report.scores)
    bests = set(report.bests)
    kept = []
    for position, score in enumerate(report.scores):
        is_sampled = bool(sample_every) and (first + position) % sample_every == 0
        if position in bests or score.solved or is_sampled:
            kept.append(
                Attempt(
                    program=first + position,
                    update=report.totals.updates - 1,
                    kept_for="best" if position in bests else "solved" if score.solved else "sampled",
                    score=score,
                    source=report.trajectories[position].source,
                )
            )
    return kept
