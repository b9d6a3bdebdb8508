"""The coordinator's metrics: what an update adds to them. What is read when somebody asks, `scrape` reads.

Counts are of work done by this process: what is done again after a return to a checkpoint counts again. Where a gauge
can tell of one run only, it tells of the one that has learned last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from altlas.core.score_batch import STATUSES
from altlas.obs.metrics import counter, gauge, gauge_family, histogram
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas_coordinator.totals import RunTotals, Totals

if TYPE_CHECKING:
    from altlas_coordinator.loop import UpdateReport

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

PROGRAMS = counter(
    "altlas_coordinator_programs_total",
    "Programs scored, duplicates included, by status.",
    "Its rate is the run's speed. Many syntax_error: sampling.grammar is none, or the run is young; many timeout: each "
    "costs its whole limit; sandbox_error is never among them.",
    labels=["status"],
)
EVALUATED = counter(
    "altlas_coordinator_evaluated_programs_total",
    "Programs that were run; those whose score was known are not.",
    "Divided by the programs scored it is the part that costs evaluators anything.",
)
UNIQUE = counter(
    "altlas_coordinator_unique_programs_total",
    "Programs that their run had not seen before.",
    "Divided by the programs scored it says how much is new. Falling towards 0: the policy repeats itself; see the "
    "entropy.",
)
STAGE_SECONDS = histogram(
    "altlas_coordinator_stage_seconds",
    "Seconds of an update by stage: sample, evaluate, learn.",
    "The stage whose sum grows fastest is the bottleneck: generators, evaluators or the trainer. In async mode stages "
    "overlap, and their sums are more than the time that passes.",
    labels=["stage"],
    buckets=_SECONDS,
)
UPDATE_SECONDS = histogram(
    "altlas_coordinator_update_seconds",
    "Seconds from the end of an update to the end of the next, checkpoints included, pauses not.",
    "What is left of it beside the stages is checkpoints and the coordinator's own work.",
    buckets=_SECONDS,
)
UPDATE_SECONDS_MEDIAN = gauge_family(
    "altlas_coordinator_update_seconds_median",
    "Median seconds of the last 50 updates, of the slowest run under way; left out before a run's first has ended.",
    "The measure of a stall: no progress for ten of these is too long.",
)
UPDATES = counter(
    "altlas_coordinator_updates_total",
    "Updates done.",
    "Stands still while altlas_coordinator_runs_active is above 0: see altlas_coordinator_stalled_seconds and /readyz.",
)
REWARD_MEAN = gauge(
    "altlas_coordinator_reward_mean",
    "Mean reward of the last batch.",
    "Rising: learning. Flat from the start: nothing is learned; flat near its height: it has converged, or is stuck.",
)
REWARD_MAX = gauge(
    "altlas_coordinator_reward_max",
    "Largest reward in the last batch.",
    "Far above the mean: the policy explores. Equal to it: it has collapsed to one program.",
)
REWARD_BEST = gauge(
    "altlas_coordinator_reward_best",
    "Best reward of the run so far.",
    "1: every case passes.",
)
TASK_REWARD_MEAN = gauge(
    "altlas_coordinator_task_reward_mean",
    "Mean reward of the task's last batch.",
    "As altlas_coordinator_reward_mean, where a run has several tasks.",
    labels=["task"],
)
TASK_REWARD_BEST = gauge(
    "altlas_coordinator_task_reward_best",
    "Best reward on the task so far.",
    "1: every case passes.",
    labels=["task"],
)
TASK_SOLVED = gauge(
    "altlas_coordinator_task_solved",
    "1 once a program has passed every case of the task, 0 before.",
    "With altlas_coordinator_verified_total at 0 it solves the cases and not the held-out ones: too few cases.",
    labels=["task"],
)
SOLVES = counter(
    "altlas_coordinator_solves_total",
    "New programs that passed every case of the task.",
    "The first is the event; many more say that the policy has learned the solution rather than met it.",
    labels=["task"],
)
VERIFIED = counter(
    "altlas_coordinator_verified_total",
    "New programs that passed the held-out cases too.",
    "Above 0 the task is done.",
    labels=["task"],
)
LAG = histogram(
    "altlas_coordinator_lag_updates",
    "Updates between the policy that drew a batch and the one that learned from it.",
    "0 in lockstep. In async mode run.max_lag is the most; always at that, the trainer is the bottleneck.",
    buckets=(0, 1, 2, 3, 4, 8, 16, 32, 64),
)
IN_FLIGHT = gauge(
    "altlas_coordinator_in_flight_updates",
    "Updates on their way in async mode.",
    "run.max_lag + 1 is the most.",
)
REFUSED_RESULTS = counter(
    "altlas_coordinator_refused_results_total",
    "Results of evaluators that broke the contract, and were put up again.",
    "Any at all: an evaluator of another version, or one that is not ours. See the log for which.",
)
ROLLBACKS = counter(
    "altlas_coordinator_rollbacks_total",
    "Returns to the newest checkpoint, by cause.",
    "One for each restart of the trainer. More: the trainer dies of something; see its log.",
    labels=["cause"],
)
STALLED_SECONDS = gauge_family(
    "altlas_coordinator_stalled_seconds",
    "Seconds for which a run under way has made no progress, once they are beyond watchdog.report_after; 0 else.",
    "Above 0: /readyz and the log name the stage, and for whom it waits.",
)
FENCE = gauge(
    "altlas_coordinator_fence",
    "Fencing number of the lease on the run led last.",
    "Changes when another coordinator has taken over, or this one after a rollback.",
)
WAITING_SECONDS = gauge(
    "altlas_coordinator_waiting_seconds",
    "Seconds that a peer has been away; 0: it is there, or nobody waits for it.",
    "Names the role that is missing.",
    labels=["peer"],
)
LAST_PROGRESS = gauge_family(
    "altlas_coordinator_last_progress_timestamp_seconds",
    "Unix time of the last update's end, pauses taken off; of several runs under way, of the one that waits longest.",
    "`time() - x` against altlas_coordinator_update_seconds_median, while altlas_coordinator_runs_active is above 0.",
)
RUNS_ACTIVE = gauge_family(
    "altlas_coordinator_runs_active",
    "Runs under way; those that are paused are not counted.",
    "What must make progress.",
)
RUNS = counter(
    "altlas_coordinator_runs_total",
    "Runs that have ended, by how: finished by themselves, failed, or stopped on request.",
    "altlas runs list names those that failed, and why.",
    labels=["state"],
)

# What may come has a series from the start, so that its first event is a rise and not a beginning.
for _status in STATUSES:
    PROGRAMS.labels(_status.value)
for _state in ("finished", "failed", "stopped"):
    RUNS.labels(_state)
for _stage in ("sample", "evaluate", "learn"):
    STAGE_SECONDS.labels(_stage)
ROLLBACKS.labels("stale")
for _peer in ("Redis", "lease", "trainer", "generator", "evaluators"):
    WAITING_SECONDS.labels(_peer)


def begin(totals: RunTotals, task_names: Sequence[str]) -> None:
    """Show where the tasks of a run stand that begins or goes on."""
    for task, own in zip(task_names, totals.tasks, strict=True):
        SOLVES.labels(task)
        VERIFIED.labels(task)
        _show_task(task, own)


def observe(report: UpdateReport, progress: coordinator_pb2.Progress, *, task: str) -> None:
    """Publish an update's figures."""
    for status, count in progress.statuses.items():
        PROGRAMS.labels(status).inc(count)
    EVALUATED.inc(report.batch.evaluated)
    is_new, scores = report.batch.is_new, report.scores
    UNIQUE.inc(int(is_new.sum()))
    SOLVES.labels(task).inc(int((scores.solved & is_new).sum()))
    VERIFIED.labels(task).inc(int((scores.verified & is_new).sum()))
    LAG.observe(report.lag)
    for stage, seconds in report.stage_s.items():
        STAGE_SECONDS.labels(stage).observe(seconds)
    UPDATE_SECONDS.observe(report.seconds)
    UPDATES.inc()
    REWARD_MEAN.set(progress.mean_reward)
    REWARD_MAX.set(progress.max_reward)
    REWARD_BEST.set(progress.best_reward)
    TASK_REWARD_MEAN.labels(task).set(progress.mean_reward)
    _show_task(task, report.task_totals)


def _show_task(task: str, totals: Totals) -> None:
    TASK_SOLVED.labels(task).set(totals.solved)
    if totals.updates:
        TASK_REWARD_BEST.labels(task).set(totals.best_reward)
