"""One stretch of a run under one fence, from a checkpoint to the run's end or to the next return to a checkpoint.

Invariants: nothing of the run is touched before its lease is held, and everything that touches it carries the lease's
fence; a coordinator that has lost the lease stops before its next step; a session always begins at a checkpoint, whose
update the trainer and the coordinator agree on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import grpc.aio

from altlas.config.sections import Config
from altlas.core.curriculum import task_budgets
from altlas.core.grading import Grading
from altlas.errors import AltlasError, StaleRunError, TransientError
from altlas.obs.run_files import RunFiles
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.tasks import task_specs
from altlas.rpc.trainer.v1 import trainer_pb2
from altlas.transport.ports import JobQueue
from altlas_coordinator import metrics
from altlas_coordinator.evaluation import Evaluation
from altlas_coordinator.loop import Ending, TrainingLoop, UpdateReport
from altlas_coordinator.patience import until_back
from altlas_coordinator.roles import GeneratorClient, TrainerClient
from altlas_coordinator.totals import NO_KEYS, RunTotals, unpack_state
from altlas_coordinator.watchdog import Stall, Watchdog

LOGGER = logging.getLogger(__name__)
_CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class Peers:
    """Channels to the roles that a coordinator calls."""

    generators: Sequence[grpc.aio.Channel]
    trainer: grpc.aio.Channel


class StalledError(AltlasError):
    """A run that has made no progress for too long."""


async def end_tasks(tasks: Sequence[asyncio.Future[Any]], *, again_s: float = 5.0) -> None:
    """Cancel tasks until each has ended.

    Once is not enough: in Python 3.11 a cancellation is lost that reaches asyncio.wait_for, with which the Redis client
    sends, as what it waits for completes.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=again_s)
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(kw_only=True)
class Session:
    """What it takes to run a stretch of a run. `owner` names this coordinator, as long as only one has the name."""

    spec: common_pb2.RunSpec
    config: Config
    gradings: Sequence[Grading]
    queue: JobQueue
    files: RunFiles
    owner: str
    on_update: Callable[[UpdateReport], None]
    on_stall: Callable[[str], None]

    async def prepare(self, peers: Peers, *, resume: bool) -> TrainingLoop:
        """Take the lease, open the run at the trainer, go back with the files, announce the run to the evaluators.

        Raises:
            AltlasError: any of it failed for good; StaleRunError: the trainer was restarted meanwhile.
        """
        timeout_s = self.config.transport.rpc_timeout_s
        run_id = self.spec.run_id
        fence, learner, opened = await self._open(peers, above=0, resume=resume)
        if opened.checkpoint_fence >= fence:
            # Redis has lost the fence that wrote the checkpoint, and its clock was set back since.
            fence, learner, opened = await self._open(peers, above=opened.checkpoint_fence, resume=resume)
        totals, seen = RunTotals.start(len(self.gradings)), [NO_KEYS for _ in self.gradings]
        if opened.coordinator_state:
            totals, seen = unpack_state(opened.coordinator_state)
        if totals.updates != opened.policy_version:
            raise StaleRunError(f"the trainer is at update {opened.policy_version}, its checkpoint at {totals.updates}")
        self.files.rewind(totals.updates, totals.programs)
        self._tell(opened, totals)
        evaluations = [
            Evaluation(
                self.queue,
                run_id=run_id,
                grading=grading,
                section=self.config.transport,
                seen=keys,
                announced=self.gradings,
            )
            for grading, keys in zip(self.gradings, seen, strict=True)
        ]
        await until_back(evaluations[0].open, peer="Redis", limit_s=timeout_s)
        return TrainingLoop(
            config=self.config,
            source=GeneratorClient(
                peers.generators, run_id=run_id, fence=fence, timeout_s=timeout_s, deal=self.config.sampling.deal
            ),
            evaluations=evaluations,
            learner=learner,
            on_update=self.on_update,
            totals=totals,
            budgets=task_budgets(self.config, [grading.task for grading in self.gradings]),
            watchdog=Watchdog(self.config.watchdog, time.monotonic),
            is_new=not opened.checkpoint,
        )

    async def _open(
        self, peers: Peers, *, above: int, resume: bool
    ) -> tuple[int, TrainerClient, trainer_pb2.OpenRunResponse]:
        """Take the lease and open the run at the trainer."""
        timeout_s = self.config.transport.rpc_timeout_s
        fence = await until_back(
            lambda: self.queue.lead(owner=self.owner, above=above), peer="lease", limit_s=timeout_s
        )
        metrics.FENCE.set(fence)
        learner = TrainerClient(peers.trainer, run_id=self.spec.run_id, fence=fence, timeout_s=timeout_s)
        return fence, learner, await learner.open(self.spec, resume=resume)

    def _tell(self, opened: trainer_pb2.OpenRunResponse, totals: RunTotals) -> None:
        if opened.warning:
            LOGGER.warning("%s", opened.warning)
        LOGGER.info(
            "run %s: task %s, %d parameters on %s, %s",
            self.spec.run_id,
            ", ".join(task.name for task in task_specs(self.spec)),
            opened.parameters,
            opened.device,
            f"resumed from {opened.checkpoint} at update {totals.updates}" if opened.checkpoint else "new weights",
        )

    async def run(self, loop: TrainingLoop) -> Ending:
        """Run the loop to its end while the lease is kept and the watchdog is asked.

        Raises:
            FencedError: another coordinator has taken the run over.
            StalledError: the watchdog has given it up.
            StaleRunError: the run has to go back to its newest checkpoint.
            AltlasError: the loop failed.
        """
        working = asyncio.ensure_future(loop.run())
        guards = [asyncio.ensure_future(guard) for guard in self._guards(loop)]
        try:
            await asyncio.wait([working, *guards], return_when=asyncio.FIRST_COMPLETED)
            for guard in guards:
                if guard.done():
                    guard.result()
            return await working
        finally:
            await end_tasks([working, *guards])

    def _guards(self, loop: TrainingLoop) -> list[Coroutine[Any, Any, None]]:
        return [self._keep_lease(), self._watch(loop.watchdog)]

    async def _keep_lease(self) -> None:
        pause_s = self.config.transport.lease_s / 3
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self.queue.keep_lead()
            except TransientError as error:
                # What needs Redis waits for it and says so; whoever took the lease meanwhile has a later fence.
                LOGGER.info("the lease is not renewed: %s", error)

    async def _watch(self, watchdog: Watchdog) -> None:
        while True:
            await asyncio.sleep(_CHECK_S)
            stall = watchdog.check()
            if stall is None:
                continue
            text = stall.text(await self._describe(stall))
            if stall.kind == "fail":
                raise StalledError(
                    f"{text}. Given up after watchdog.fail_after medians; see to that and resume the run."
                )
            LOGGER.warning("%s", text)
            self.on_stall(text)

    async def _describe(self, stall: Stall) -> str:
        """Return which jobs wait and who holds which, where evaluators are waited for."""
        if stall.waiting_for != "evaluators":
            return ""
        try:
            async with asyncio.timeout(_CHECK_S):
                stats, workers = await self.queue.stats(), await self.queue.workers()
        except (TimeoutError, TransientError):
            return "Redis does not answer"
        held = [
            f"{worker.name} holds {worker.jobs_pending}, last heard of {worker.idle_s:.0f} s ago"
            for worker in workers
            if worker.jobs_pending
        ]
        counts = f"{stats.waiting} jobs waiting, {stats.in_hand} in hand, {stats.reclaimed} reclaimed so far"
        return "; ".join([counts, f"{len(workers)} evaluators known", *held])
