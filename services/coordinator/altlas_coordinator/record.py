"""What an update leaves behind: a line in the log, figures in metrics.jsonl, attempts worth keeping, gauges, events."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from altlas.config.sections import Config
from altlas.core.score_batch import STATUSES
from altlas.obs.run_files import Attempt, RunFiles
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas_coordinator import metrics
from altlas_coordinator.loop import UpdateReport
from altlas_coordinator.totals import RunTotals, Totals

LOGGER = logging.getLogger(__name__)


def standing_message(
    totals: RunTotals, *, task: int, budget: int, task_names: Sequence[str]
) -> coordinator_pb2.Progress:
    """Return where a run stands, and of its tasks one in particular."""
    own = totals.tasks[task]
    return coordinator_pb2.Progress(
        update=totals.updates,
        programs=totals.programs,
        budget=budget,
        unique_programs=totals.unique_programs,
        evaluated_programs=totals.evaluated_programs,
        best_reward=own.best_reward if own.updates else 0.0,
        best_program=own.best_program,
        solved=totals.solved,
        verified=totals.verified,
        seconds=totals.seconds,
        task=task,
        tasks=[task_message(name, each) for name, each in zip(task_names, totals.tasks, strict=True)],
    )


def progress_message(report: UpdateReport, *, budget: int, task_names: Sequence[str]) -> coordinator_pb2.Progress:
    """Return where the run stands after an update."""
    rewards = report.scores.rewards
    counts = np.bincount(report.scores.statuses, minlength=len(STATUSES)).tolist()
    progress = standing_message(report.totals, task=report.task, budget=budget, task_names=task_names)
    progress.mean_reward, progress.max_reward = float(rewards.mean()), float(rewards.max())
    progress.lag = report.lag
    progress.stage_s.update(report.stage_s)
    progress.metrics.update(report.metrics)
    progress.statuses.update({status.value: count for status, count in zip(STATUSES, counts, strict=True) if count})
    return progress


def task_message(name: str, totals: Totals) -> coordinator_pb2.TaskProgress:
    """Return where a task stands."""
    return coordinator_pb2.TaskProgress(
        name=name,
        updates=totals.updates,
        programs=totals.programs,
        solved=totals.solved,
        verified=totals.verified,
        best_reward=totals.best_reward if totals.updates else None,
        best_program=totals.best_program,
        programs_to_solve=totals.programs_to_solve,
        programs_to_verify=totals.programs_to_verify,
        restarts=totals.restarts,
    )


def record_update(
    report: UpdateReport, files: RunFiles, *, config: Config, task_names: Sequence[str]
) -> coordinator_pb2.Progress:
    """Write an update down everywhere it belongs, and return where the run stands."""
    progress = progress_message(report, budget=config.run.budget, task_names=task_names)
    task_name = task_names[report.task]
    LOGGER.info(
        "update %d%s: %d programs, reward mean %.3f max %.3f best %.3f, entropy %.2f, %d of %d run, %.2f s",
        progress.update,
        f", {task_name}" if len(task_names) > 1 else "",
        progress.programs,
        progress.mean_reward,
        progress.max_reward,
        progress.best_reward,
        report.metrics.get("entropy", 0.0),
        report.batch.evaluated,
        len(report.scores),
        sum(report.stage_s.values()),
    )
    files.record_update(_figures(report, progress, task_name))
    files.keep_attempts(_worth_keeping(report, task_name, sample_every=config.logging.attempts_sample))
    if report.bests:
        totals = report.task_totals
        files.write_best(totals.best_program, task=task_name)
        if totals.verified:
            LOGGER.info("%s solved and verified:\n%s", task_name, totals.best_program)
    metrics.observe(report, progress, task=task_name)
    return progress


def _figures(report: UpdateReport, progress: coordinator_pb2.Progress, task_name: str) -> dict[str, Any]:
    """Return an update's line in metrics.jsonl: programs and seconds of the run, solved and verified of its task."""
    return {
        "task": task_name,
        "update": progress.update,
        "programs": progress.programs,
        "task_programs": report.task_totals.programs,
        "unique_programs": progress.unique_programs,
        "evaluated_programs": progress.evaluated_programs,
        "mean_reward": progress.mean_reward,
        "max_reward": progress.max_reward,
        "best_reward": progress.best_reward,
        "solved": report.task_totals.solved,
        "verified": report.task_totals.verified,
        "seconds": progress.seconds,
        "lag": report.lag,
        "stage_s": report.stage_s,
        "statuses": dict(progress.statuses),
        "learning": report.metrics,
    }


def _worth_keeping(report: UpdateReport, task_name: str, *, sample_every: int) -> list[Attempt]:
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
            task=task_name,
            update=report.totals.updates - 1,
            kept_for="best" if position in bests else "solved" if is_new_solution[position] else "sampled",
            score=report.scores.score(position),
            source=report.sources[position].decode(),
        )
        for position in np.flatnonzero(is_kept).tolist()
    ]
