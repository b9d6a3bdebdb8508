"""The training loop: choose a task, sample, evaluate, learn, record, checkpoint, until a stopping condition holds.

Lockstep: an update starts when the one before has ended, so the programs of update u come from policy version u, and
the run is a function of its spec alone, whatever the number of evaluators.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from altlas.config.sections import Config
from altlas.core.curriculum import Standing, batch_limit, choose_task
from altlas.core.score_batch import ScoreBatch
from altlas.obs.logs import UPDATE
from altlas_coordinator.evaluation import EvaluatedBatch, Evaluation
from altlas_coordinator.roles import Learner, ProgramSource
from altlas_coordinator.stopping import StopReason, is_closed, is_stuck, stop_reason
from altlas_coordinator.totals import RunTotals, Totals, pack_state

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """One update, for whoever watches.

    `task`: its position among the run's. `bests`: positions in the batch that were the task's best so far when they
    came.
    """

    totals: RunTotals
    task: int
    sources: list[bytes]
    batch: EvaluatedBatch
    bests: list[int]
    metrics: dict[str, float]
    stage_s: dict[str, float]

    @property
    def scores(self) -> ScoreBatch:
        """The batch's scores, in order."""
        return self.batch.scores

    @property
    def task_totals(self) -> Totals:
        """Where the update's task stands."""
        return self.totals.tasks[self.task]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: why, and the checkpoint that it left."""

    reason: StopReason
    checkpoint: str
    policy_sha256: str


class Stopwatch:
    """Seconds per stage of one update."""

    def __init__(self) -> None:
        self._last = self.started = time.monotonic()
        self.stages: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Book the time since the last lap to a stage."""
        now = time.monotonic()
        self.stages[stage] = now - self._last
        self._last = now


@dataclass
class TrainingLoop:
    """One run, from the update at which `totals` stands to its end.

    evaluations, budgets: of each task, by position; a budget is what in_order gives the task at a time.
    """

    config: Config
    source: ProgramSource
    evaluations: Sequence[Evaluation]
    learner: Learner
    on_update: Callable[[UpdateReport], None]
    totals: RunTotals
    budgets: Sequence[int]
    is_stop_requested: bool = False
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> Ending:
        """Run updates until a stopping condition holds, then leave a checkpoint.

        Raises:
            AltlasError: something failed for good; the newest checkpoint is the last one written.
        """
        section = self.config.run
        while (reason := stop_reason(section, self.totals, is_requested=self.is_stop_requested)) is None:
            await self.may_go_on.wait()
            await self._update()
            if self.totals.updates % section.checkpoint_every == 0:
                await self._checkpoint()
        path, policy_sha256 = await self._checkpoint()
        LOGGER.info("run ends: %s after %d programs", reason, self.totals.programs)
        return Ending(reason, path, policy_sha256)

    async def _update(self) -> None:
        update = self.totals.updates
        UPDATE.set(update)
        watch = Stopwatch()
        task, count = self._next_batch()
        totals, evaluation = self.totals.tasks[task], self.evaluations[task]
        # Tasks that share nothing draw what each would have drawn in a run of its own.
        is_apart = self.config.curriculum.carry == "nothing"
        programs = await self.source.sample(
            update=totals.updates if is_apart else update, policy_version=update, count=count, task=task
        )
        watch.lap("sample")
        batch = await evaluation.evaluate(update, programs.sources)
        watch.lap("evaluate")
        reinitialise = is_stuck(self.config.run, totals) and self.config.run.on_stuck == "reinitialise"
        learned = await self.learner.learn(
            update, programs, batch.scores, behaviour_version=update, task=task, reinitialise=reinitialise
        )
        watch.lap("learn")
        bests = totals.add(programs.sources, batch.scores, unique=int(batch.is_new.sum()), evaluated=batch.evaluated)
        self.totals.windows[task].add(
            count, float(batch.scores.rewards.mean()), totals.best_reward, length=self.config.curriculum.window
        )
        if reinitialise:
            LOGGER.warning("stuck for %d programs: a new start", self.config.run.stuck_after)
            totals.restart()
        await evaluation.forget(update)
        totals.seconds += time.monotonic() - watch.started
        self.on_update(
            UpdateReport(
                totals=self.totals,
                task=task,
                sources=programs.sources,
                batch=batch,
                bests=bests,
                metrics=dict(learned.metrics),
                stage_s=watch.stages,
            )
        )

    def _next_batch(self) -> tuple[int, int]:
        """Return the task of the next update and how many programs it has."""
        section, run = self.config.curriculum, self.config.run
        standings = [
            Standing(
                updates=totals.updates,
                programs=totals.programs,
                budget=budget,
                is_closed=is_closed(run, totals),
                progress=window.progress,
            )
            for totals, budget, window in zip(self.totals.tasks, self.budgets, self.totals.windows, strict=True)
        ]
        task = choose_task(section, standings, seed=run.seed, update=self.totals.updates)
        count = min(self.config.sampling.batch_size, run.budget - self.totals.programs)
        limit = batch_limit(section, standings[task])
        return task, count if limit is None else min(count, limit)

    async def _checkpoint(self) -> tuple[str, str]:
        state = pack_state(self.totals, [evaluation.seen for evaluation in self.evaluations])
        response = await self.learner.save_checkpoint(self.totals.updates, state)
        return response.path, response.policy_sha256
