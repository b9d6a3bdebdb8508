"""The training loop: sample, evaluate, learn, record, checkpoint, until a stopping condition holds.

Lockstep: an update starts when the one before has ended, so the programs of update u come from policy version u, and
the run is a function of its spec alone, whatever the number of evaluators.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from altlas.config.sections import Config
from altlas.core.score_batch import ScoreBatch
from altlas.obs.logs import UPDATE
from altlas_coordinator.evaluation import EvaluatedBatch, Evaluation
from altlas_coordinator.roles import Learner, ProgramSource
from altlas_coordinator.stopping import StopReason, is_stuck, stop_reason
from altlas_coordinator.totals import Totals, pack_state

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """One update, for whoever watches. `bests`: positions in the batch that were the best so far when they came."""

    totals: Totals
    sources: list[bytes]
    batch: EvaluatedBatch
    bests: list[int]
    metrics: dict[str, float]
    stage_s: dict[str, float]

    @property
    def scores(self) -> ScoreBatch:
        """The batch's scores, in order."""
        return self.batch.scores


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
    """One run, from the update at which `totals` stands to its end."""

    config: Config
    source: ProgramSource
    evaluation: Evaluation
    learner: Learner
    on_update: Callable[[UpdateReport], None]
    totals: Totals = field(default_factory=Totals)
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
        count = min(self.config.sampling.batch_size, self.config.run.budget - self.totals.programs)
        programs = await self.source.sample(update=update, policy_version=update, count=count)
        watch.lap("sample")
        batch = await self.evaluation.evaluate(update, programs.sources)
        watch.lap("evaluate")
        reinitialise = is_stuck(self.config.run, self.totals) and self.config.run.on_stuck == "reinitialise"
        learned = await self.learner.learn(
            update, programs, batch.scores, behaviour_version=update, reinitialise=reinitialise
        )
        watch.lap("learn")
        bests = self.totals.add(
            programs.sources, batch.scores, unique=int(batch.is_new.sum()), evaluated=batch.evaluated
        )
        if reinitialise:
            LOGGER.warning("stuck for %d programs: a new start", self.config.run.stuck_after)
            self.totals.restart()
        await self.evaluation.forget(update)
        self.totals.seconds += time.monotonic() - watch.started
        self.on_update(
            UpdateReport(
                totals=self.totals,
                sources=programs.sources,
                batch=batch,
                bests=bests,
                metrics=dict(learned.metrics),
                stage_s=watch.stages,
            )
        )

    async def _checkpoint(self) -> tuple[str, str]:
        state = pack_state(self.totals, self.evaluation.seen)
        response = await self.learner.save_checkpoint(self.totals.updates, state)
        return response.path, response.policy_sha256
