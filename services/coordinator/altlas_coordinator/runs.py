"""The coordinator's runs: each a training loop as a task, its events, its files and how it ended.

Invariants: a request_id makes one run; an event's sequence number grows by one; a run that failed says why and never
reads as finished.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from altlas.config.loader import config_from_json
from altlas.config.sections import Config
from altlas.core.curriculum import check_alike, task_budgets
from altlas.core.grading import Grading, make_grading
from altlas.errors import AltlasError, ProtocolError
from altlas.obs.logs import RUN_ID
from altlas.obs.run_files import RunFiles
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas.rpc.tasks import task_specs
from altlas.transport.ports import JobQueue
from altlas_coordinator.evaluation import Evaluation
from altlas_coordinator.loop import Ending, TrainingLoop, UpdateReport
from altlas_coordinator.record import record_update, standing_message
from altlas_coordinator.roles import GeneratorClient, TrainerClient
from altlas_coordinator.stopping import StopReason
from altlas_coordinator.totals import NO_KEYS, RunTotals, unpack_state

LOGGER = logging.getLogger(__name__)
_EVENTS_KEPT = 10_000
_STOP_REASONS = {
    StopReason.SOLVED: coordinator_pb2.STOP_REASON_SOLVED,
    StopReason.BUDGET: coordinator_pb2.STOP_REASON_BUDGET,
    StopReason.WALL_CLOCK: coordinator_pb2.STOP_REASON_WALL_CLOCK,
    StopReason.STUCK: coordinator_pb2.STOP_REASON_STUCK,
    StopReason.REQUESTED: coordinator_pb2.STOP_REASON_REQUESTED,
}


@dataclass
class ActiveRun:
    """One run and everything a watcher may ask about it."""

    spec: common_pb2.RunSpec
    config: Config
    gradings: Sequence[Grading]
    queue: JobQueue
    loop: TrainingLoop | None = None
    state: coordinator_pb2.RunState = coordinator_pb2.RUN_STATE_RUNNING
    ending: Ending | None = None
    error: str = ""
    progress: coordinator_pb2.Progress = field(default_factory=coordinator_pb2.Progress)
    events: deque[coordinator_pb2.RunEvent] = field(default_factory=lambda: deque(maxlen=_EVENTS_KEPT))
    sequence: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None
    is_stop_requested: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether the run is over, well or badly."""
        return self.state in (coordinator_pb2.RUN_STATE_FINISHED, coordinator_pb2.RUN_STATE_FAILED)

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks, by position."""
        return [task.name for task in task_specs(self.spec)]

    def message(self) -> coordinator_pb2.Run:
        """Return the run as a message."""
        run = coordinator_pb2.Run(spec=self.spec, state=self.state, error=self.error, progress=self.progress)
        if self.ending is not None:
            run.stop_reason = _STOP_REASONS[self.ending.reason]
            run.policy_sha256 = self.ending.policy_sha256
            run.checkpoint = self.ending.checkpoint
        return run

    async def execute(self, generator: grpc.aio.Channel, trainer: grpc.aio.Channel, *, resume: bool) -> None:
        """Run to the end. Ends in FINISHED or FAILED; a failure that is not an AltlasError is raised on."""
        RUN_ID.set(self.spec.run_id)
        files = RunFiles(
            Path(self.spec.run_dir),
            tasks=self.task_names,
            language=self.gradings[0].task.language,
            log_format=self.config.logging.format,
        )
        try:
            self.loop = await self._prepare(generator, trainer, files, resume=resume)
            self.ending = await self.loop.run()
            await self.queue.close()
            files.flush()
            await self._emit(coordinator_pb2.RUN_STATE_FINISHED, f"ended: {self.ending.reason}")
        except AltlasError as error:
            LOGGER.error("run failed: %s: %s", type(error).__name__, error)
            self.error = str(error)
            await self._emit(coordinator_pb2.RUN_STATE_FAILED, self.error)
        except BaseException as error:
            self.error = f"{type(error).__name__}: {error}"
            await self._emit(coordinator_pb2.RUN_STATE_FAILED, self.error)
            raise
        finally:
            files.close()

    async def _prepare(
        self, generator: grpc.aio.Channel, trainer: grpc.aio.Channel, files: RunFiles, *, resume: bool
    ) -> TrainingLoop:
        timeout_s = self.config.transport.rpc_timeout_s
        run_id = self.spec.run_id
        learner = TrainerClient(trainer, run_id=run_id, timeout_s=timeout_s)
        opened = await learner.open(self.spec, resume=resume)
        totals, seen = RunTotals.start(len(self.gradings)), [NO_KEYS for _ in self.gradings]
        if opened.coordinator_state:
            totals, seen = unpack_state(opened.coordinator_state)
            # What a watcher is told when nothing is left to be done.
            self.progress = standing_message(totals, task=0, budget=self.config.run.budget, task_names=self.task_names)
        if opened.warning:
            LOGGER.warning("%s", opened.warning)
        LOGGER.info("configuration: %s", self.spec.config_json)
        LOGGER.info(
            "run %s: task %s, %d parameters on %s, %s",
            run_id,
            ", ".join(self.task_names),
            opened.parameters,
            opened.device,
            f"resumed from {opened.checkpoint} at update {totals.updates}" if resume else "new weights",
        )
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
        await evaluations[0].open()

        def on_update(report: UpdateReport) -> None:
            self.progress = record_update(report, files, config=self.config, task_names=self.task_names)
            self._append("")

        loop = TrainingLoop(
            config=self.config,
            source=GeneratorClient(generator, run_id=run_id, timeout_s=timeout_s),
            evaluations=evaluations,
            learner=learner,
            on_update=on_update,
            totals=totals,
            budgets=task_budgets(self.config, [grading.task for grading in self.gradings]),
            is_stop_requested=self.is_stop_requested,
        )
        if self.state != coordinator_pb2.RUN_STATE_PAUSED:
            loop.may_go_on.set()
        return loop

    async def pause(self) -> None:
        """Hold the run before its next update."""
        self._require_running()
        if self.loop is not None:
            self.loop.may_go_on.clear()
        await self._emit(coordinator_pb2.RUN_STATE_PAUSED, "paused")

    async def go_on(self) -> None:
        """Let a paused run go on."""
        self._require_running()
        if self.loop is not None:
            self.loop.may_go_on.set()
        await self._emit(coordinator_pb2.RUN_STATE_RUNNING, "resumed")

    async def stop(self) -> None:
        """Ask for the end after the update in progress; a run that has ended stays as it is."""
        self.is_stop_requested = True
        if self.loop is not None:
            self.loop.is_stop_requested = True
            self.loop.may_go_on.set()

    async def watch(self, after_sequence: int) -> AsyncIterator[coordinator_pb2.RunEvent]:
        """Yield events after a sequence number until the run has ended."""
        while True:
            async with self.changed:
                while self.sequence <= after_sequence and not self.has_ended:
                    await self.changed.wait()
                pending = [event for event in self.events if event.sequence > after_sequence]
                is_over = self.has_ended
            for event in pending:
                after_sequence = event.sequence
                yield event
            if is_over and after_sequence >= self.sequence:
                return

    def _require_running(self) -> None:
        if self.has_ended:
            raise ProtocolError(f"run {self.spec.run_id} has ended")

    def _append(self, message: str) -> None:
        self.sequence += 1
        self.events.append(
            coordinator_pb2.RunEvent(sequence=self.sequence, state=self.state, progress=self.progress, message=message)
        )
        self._notifier = asyncio.get_running_loop().create_task(self._notify())

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _emit(self, state: coordinator_pb2.RunState, message: str) -> None:
        self.state = state
        self._append(message)
        await self._notify()


def make_run(spec: common_pb2.RunSpec, queue: JobQueue) -> ActiveRun:
    """Check a spec and make its run, not yet started.

    Raises:
        ConfigError: the configuration in it is wrong.
        TaskError: a task in it is wrong, or its tasks do not fit together.
        ProtocolError: a digest is not that of its task and reward settings.
    """
    config = config_from_json(spec.config_json)
    gradings = []
    for task in task_specs(spec):
        grading = make_grading(task.toml, config.reward, where=task.name)
        if task.digest != grading.digest:
            raise ProtocolError(
                f"run {spec.run_id}, task {task.name}: its digest is {task.digest}, its text has {grading.digest}"
            )
        gradings.append(grading)
    names = [task.name for task in task_specs(spec)]
    check_alike(names, [grading.task for grading in gradings])
    return ActiveRun(spec=spec, config=config, gradings=gradings, queue=queue)
