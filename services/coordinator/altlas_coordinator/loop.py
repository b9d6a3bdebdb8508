"""The training loop: choose a task, sample, evaluate, learn, record, checkpoint, until a stopping condition holds.

Lockstep: an update starts when the one before has ended, so the programs of update u come from policy version u, and
the run is a function of its spec alone, whatever the number of evaluators and generators. Async, in `overlap`, takes
the same steps out of their turn.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from altlas.config.sections import Config
from altlas.core.curriculum import Standing, batch_limit, choose_task
from altlas.core.score_batch import ScoreBatch
from altlas.obs.logs import UPDATE
from altlas_coordinator.evaluation import EvaluatedBatch, Evaluation
from altlas_coordinator.roles import Learner, ProgramSource, SampledPrograms
from altlas_coordinator.stopping import StopReason, is_closed, is_stuck, stop_reason
from altlas_coordinator.totals import RunTotals, Totals, pack_state
from altlas_coordinator.watchdog import Watchdog

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """One update, for whoever watches.

    `task`: its position among the run's. `bests`: positions in the batch that were the task's best so far when they
    came. `lag`: updates between the policy that drew the batch and the one that learned from it. `seconds`: since the
    update before it ended, or the run went on.
    """

    totals: RunTotals
    task: int
    sources: list[bytes]
    batch: EvaluatedBatch
    bests: list[int]
    metrics: dict[str, float]
    stage_s: dict[str, float]
    lag: int = 0
    seconds: float = 0.0

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


@dataclass(slots=True, kw_only=True)
class Batch:
    """The programs of one update on their way: what is wanted, then what there is of it.

    `version`: of the policy that draws them. `stage_s`: seconds that each stage took.
    """

    update: int
    task: int
    count: int
    version: int
    programs: SampledPrograms
    evaluated: EvaluatedBatch | None = None
    stage_s: dict[str, float] = field(default_factory=dict)


@dataclass
class TrainingLoop:
    """One run, from the update at which `totals` stands to its end.

    evaluations, budgets: of each task, by position; a budget is what in_order gives the task at a time. is_new: there
    is no checkpoint yet.
    """

    config: Config
    source: ProgramSource
    evaluations: Sequence[Evaluation]
    learner: Learner
    on_update: Callable[[UpdateReport], None]
    totals: RunTotals
    budgets: Sequence[int]
    watchdog: Watchdog
    is_new: bool = False
    is_stop_requested: bool = False
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)
    _restarted_at: int = -1
    _counted_at: float = field(default_factory=time.monotonic)
    _mean_reward: float = 0.0

    def __post_init__(self) -> None:
        # How many programs of each task had been seen when its last learned batch had come.
        self._seen = [len(evaluation.seen) for evaluation in self.evaluations]

    async def run(self) -> Ending:
        """Run updates until a stopping condition holds, then leave a checkpoint.

        Raises:
            AltlasError: something failed for good; the newest checkpoint is the last one written.
        """
        if self.is_new:
            # From here on the run can be taken up by whoever finds it.
            await self.checkpoint()
        self._counted_at = time.monotonic()
        if self.config.run.mode == "async":
            from altlas_coordinator.overlap import overlap_updates

            reason = await overlap_updates(self)
        else:
            reason = await self._take_turns()
        path, policy_sha256 = await self.checkpoint(is_last=True)
        LOGGER.info("run ends: %s after %d programs", reason, self.totals.programs)
        return Ending(reason, path, policy_sha256)

    async def _take_turns(self) -> StopReason:
        while (reason := self.stop_reason()) is None:
            await self.wait_while_paused()
            batch = self.next_batch()
            assert batch is not None, "the budget is spent, yet no stopping condition holds"
            await self.sample(batch)
            await self.evaluate(batch)
            await self.learn(batch)
        return reason

    def stop_reason(self) -> StopReason | None:
        """Return why the run ends at this update boundary, or None."""
        return stop_reason(self.config.run, self.totals, is_requested=self.is_stop_requested)

    async def wait_while_paused(self) -> None:
        """Return at once, or when a paused run may go on; pauses are not counted as time."""
        if not self.may_go_on.is_set():
            self.watchdog.paused(True)
            await self.may_go_on.wait()
            self.watchdog.paused(False)
            self._counted_at = time.monotonic()

    def request_stop(self) -> None:
        """End at the next update boundary."""
        self.is_stop_requested = True
        self.may_go_on.set()

    def next_batch(self, in_flight: Sequence[Batch] = ()) -> Batch | None:
        """Return what comes after the batches in flight, or None when they spend the budget."""
        section, run = self.config.curriculum, self.config.run
        coming = Counter({batch.task: 0 for batch in in_flight})
        for batch in in_flight:
            coming[batch.task] += batch.count
        update = self.totals.updates + len(in_flight)
        count = min(self.config.sampling.batch_size, run.budget - self.totals.programs - coming.total())
        if count <= 0:
            return None
        standings = [
            Standing(
                updates=totals.updates + sum(batch.task == position for batch in in_flight),
                programs=totals.programs + coming[position],
                budget=budget,
                is_closed=is_closed(run, totals),
                progress=window.progress,
            )
            for position, (totals, budget, window) in enumerate(
                zip(self.totals.tasks, self.budgets, self.totals.windows, strict=True)
            )
        ]
        task = choose_task(section, standings, seed=run.seed, update=update)
        limit = batch_limit(section, standings[task])
        return Batch(
            update=update,
            task=task,
            count=count if limit is None else min(count, limit),
            version=self.totals.updates,
            programs=SampledPrograms([], []),
        )

    async def sample(self, batch: Batch) -> None:
        """Have the batch drawn, from the newest policy."""
        batch.version = self.totals.updates
        # Tasks that share nothing draw what each would have drawn in a run of its own.
        is_apart = self.config.curriculum.carry == "nothing"
        UPDATE.set(batch.update)
        with self._stage(batch, "sample", waiting_for="generator"):
            batch.programs = await self.source.sample(
                update=self.totals.tasks[batch.task].updates if is_apart else batch.update,
                policy_version=batch.version,
                count=batch.count,
                task=batch.task,
            )

    async def evaluate(self, batch: Batch) -> None:
        """Have the batch scored."""
        with self._stage(batch, "evaluate", waiting_for="evaluators"):
            batch.evaluated = await self.evaluations[batch.task].evaluate(batch.update, batch.programs.sources)

    async def learn(self, batch: Batch) -> None:
        """Learn from a scored batch, which is the next one, tell of it, and leave a checkpoint where one is due."""
        evaluated = batch.evaluated
        assert evaluated is not None
        UPDATE.set(batch.update)
        totals = self.totals.tasks[batch.task]
        is_new_start = is_stuck(self.config.run, totals) and self.config.run.on_stuck == "reinitialise"
        # What the weights before a new start drew is no batch of those after it.
        reinitialise = is_new_start or batch.version <= self._restarted_at
        with self._stage(batch, "learn", waiting_for="trainer"):
            learned = await self.learner.learn(
                batch.update,
                batch.programs,
                evaluated.scores,
                behaviour_version=batch.version,
                task=batch.task,
                reinitialise=reinitialise,
            )
        bests = totals.add(
            batch.programs.sources,
            evaluated.scores,
            unique=int(evaluated.is_new.sum()),
            evaluated=evaluated.evaluated,
        )
        self._seen[batch.task] = evaluated.seen
        self._mean_reward = float(evaluated.scores.rewards.mean())
        self.totals.windows[batch.task].add(
            batch.count, self._mean_reward, totals.best_reward, length=self.config.curriculum.window
        )
        if is_new_start:
            LOGGER.warning("stuck for %d programs: a new start", self.config.run.stuck_after)
            totals.restart()
            self._restarted_at = batch.update
        await self.evaluations[batch.task].forget(batch.update)
        now = time.monotonic()
        seconds, self._counted_at = now - self._counted_at, now
        totals.seconds += seconds
        self.on_update(
            UpdateReport(
                totals=self.totals,
                task=batch.task,
                sources=batch.programs.sources,
                batch=evaluated,
                bests=bests,
                metrics=dict(learned.metrics),
                stage_s=batch.stage_s,
                lag=batch.update - batch.version,
                seconds=seconds,
            )
        )
        self.watchdog.progress()
        if self.totals.updates % self.config.run.checkpoint_every == 0:
            await self.checkpoint()

    async def checkpoint(self, *, is_last: bool = False) -> tuple[str, str]:
        """Write a checkpoint of this update boundary; return its directory and the hash of the policy."""
        seen = [evaluation.seen[:count] for evaluation, count in zip(self.evaluations, self._seen, strict=True)]
        self.watchdog.begin("checkpoint", "trainer")
        response = await self.learner.save_checkpoint(
            self.totals.updates, pack_state(self.totals, seen), mean_reward=self._mean_reward, is_last=is_last
        )
        return response.path, response.policy_sha256

    @contextmanager
    def _stage(self, batch: Batch, name: str, *, waiting_for: str) -> Iterator[None]:
        """Time a stage, and tell the watchdog that it is what is waited for."""
        self.watchdog.begin(f"{name}, update {batch.update}", waiting_for)
        started = time.monotonic()
        yield
        batch.stage_s[name] = time.monotonic() - started
