"""The coordinator's runs: each a training loop as a task, its events, its files and how it ended.

Invariants: a request_id makes one run; an event's sequence number grows by one; a run that failed says why and never
reads as finished.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from altlas.config.loader import config_from_json
from altlas.config.sections import Config
from altlas.core.curriculum import check_alike
from altlas.core.grading import Grading, make_grading
from altlas.errors import AltlasError, ProtocolError, StaleRunError
from altlas.obs.logs import RUN_ID
from altlas.obs.run_files import RunFiles
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas.rpc.tasks import task_specs
from altlas.transport.ports import JobQueue
from altlas_coordinator import metrics
from altlas_coordinator.loop import Ending, TrainingLoop, UpdateReport
from altlas_coordinator.patience import until_back
from altlas_coordinator.record import record_update, standing_message
from altlas_coordinator.session import Peers, Session
from altlas_coordinator.stopping import StopReason

LOGGER = logging.getLogger(__name__)
_EVENTS_KEPT = 10_000
_ROLLBACK_PAUSE_S = 0.1
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
    # Begins at the time, so that it also grows from one coordinator to the next.
    sequence: int = field(default_factory=lambda: time.time_ns() // 1000)
    progress_at: float = field(default_factory=time.time)  # Unix time: of its beginning, of an update, of its end
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None
    is_stop_requested: bool = False
    is_suspended: bool = False
    request_id: str = ""
    ended_before: coordinator_pb2.Run | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the run is over, well or badly."""
        return self.state in (coordinator_pb2.RUN_STATE_FINISHED, coordinator_pb2.RUN_STATE_FAILED)

    @property
    def is_under_way(self) -> bool:
        """Whether it has to get on: it is neither over nor paused."""
        return self.state == coordinator_pb2.RUN_STATE_RUNNING

    def idle_s(self) -> float:
        """Return the seconds since the last progress, pauses not counted. From any thread."""
        return time.time() - self.progress_at if self.loop is None else self.loop.watchdog.idle_s()

    def late(self) -> str:
        """Return what a run under way stands still in; empty where it gets on. From any thread."""
        if self.loop is None:
            seconds, limit_s = self.idle_s(), self.config.watchdog.least_report_s
            return "" if seconds < limit_s else f"not begun for {seconds:.0f} s; waiting for Redis or the trainer"
        stall = self.loop.watchdog.late()
        return "" if stall is None else stall.text()

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks, by position."""
        return [task.name for task in task_specs(self.spec)]

    def recall(self, run: coordinator_pb2.Run) -> None:
        """Take over how the run ended under an earlier coordinator."""
        self.ended_before = run
        self.state, self.error, self.progress = run.state, run.error, run.progress
        self._append("ended under an earlier coordinator")

    def message(self) -> coordinator_pb2.Run:
        """Return the run as a message."""
        if self.ended_before is not None:
            return self.ended_before
        run = coordinator_pb2.Run(spec=self.spec, state=self.state, error=self.error, progress=self.progress)
        if self.ending is not None:
            run.stop_reason = _STOP_REASONS[self.ending.reason]
            run.policy_sha256 = self.ending.policy_sha256
            run.checkpoint = self.ending.checkpoint
        return run

    async def execute(self, peers: Peers, *, owner: str, resume: bool) -> None:
        """Run to the end. Ends in FINISHED or FAILED; a failure that is not an AltlasError is raised on.

        A run that was suspended stays as it was, for the next coordinator.
        """
        RUN_ID.set(self.spec.run_id)
        files = RunFiles(
            Path(self.spec.run_dir),
            tasks=self.task_names,
            language=self.gradings[0].task.language,
            log_format=self.config.logging.format,
        )
        try:
            LOGGER.info("configuration: %s", self.spec.config_json)
            ending = await self._to_the_end(peers, files, owner=owner, resume=resume)
            files.flush()
            if self.is_suspended and ending.reason is StopReason.REQUESTED:
                await self.queue.yield_lead()
                return
            self.ending = ending
            await until_back(self.queue.close, peer="Redis", limit_s=self.config.transport.rpc_timeout_s)
            await self._emit(coordinator_pb2.RUN_STATE_FINISHED, f"ended: {ending.reason}")
        except AltlasError as error:
            LOGGER.error("run failed: %s: %s", type(error).__name__, error)
            self.error = str(error)
            await self._emit(coordinator_pb2.RUN_STATE_FAILED, self.error)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.error = f"{type(error).__name__}: {error}"
            await self._emit(coordinator_pb2.RUN_STATE_FAILED, self.error)
            raise
        finally:
            files.close()

    async def _to_the_end(self, peers: Peers, files: RunFiles, *, owner: str, resume: bool) -> Ending:
        """Run session after session: each return to the newest checkpoint ends one."""
        session = Session(
            spec=self.spec,
            config=self.config,
            gradings=self.gradings,
            queue=self.queue,
            files=files,
            owner=owner,
            on_update=lambda report: self._record(report, files),
            on_stall=self._append,
        )
        while True:
            try:
                self.loop = await session.prepare(peers, resume=resume)
                # What a watcher is told when nothing is left to be done.
                self.progress = standing_message(
                    self.loop.totals, task=0, budget=self.config.run.budget, task_names=self.task_names
                )
                self.loop.is_stop_requested = self.is_stop_requested
                if self.state != coordinator_pb2.RUN_STATE_PAUSED:
                    self.loop.may_go_on.set()
                metrics.begin(self.loop.totals, self.task_names)
                return await session.run(self.loop)
            except StaleRunError as error:
                metrics.ROLLBACKS.labels("stale").inc()
                LOGGER.warning("back to the newest checkpoint: %s", error)
                self._append(f"back to the newest checkpoint: {error}")
                await asyncio.sleep(_ROLLBACK_PAUSE_S)

    def _record(self, report: UpdateReport, files: RunFiles) -> None:
        self.progress = record_update(report, files, config=self.config, task_names=self.task_names)
        self.progress_at = time.time()
        self._append("")

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
            self.loop.request_stop()

    async def suspend(self) -> None:
        """Ask for a checkpoint after the update in progress and leave the run to the next coordinator."""
        self.is_suspended = not self.is_stop_requested
        await self.stop()

    async def watch(self, after_sequence: int) -> AsyncIterator[coordinator_pb2.RunEvent]:
        """Yield events after a sequence number until the run has ended."""
        while True:
            async with self.changed:
                while after_sequence >= self._last_event() and not self.has_ended:
                    await self.changed.wait()
                pending = [event for event in self.events if event.sequence > after_sequence]
                is_over = self.has_ended
            for event in pending:
                after_sequence = event.sequence
                yield event
            if is_over and after_sequence >= self._last_event():
                return

    def _last_event(self) -> int:
        return self.events[-1].sequence if self.events else 0

    def _require_running(self) -> None:
        if self.has_ended:
            raise ProtocolError(f"run {self.spec.run_id} has ended")

    def _append(self, message: str) -> None:
        self.sequence += 1
        self.events.append(
            coordinator_pb2.RunEvent(sequence=self.sequence, state=self.state, progress=self.progress, message=message)
        )
        self._notifier = asyncio.get_running_loop().create_task(self._notify())

    def _how_it_ended(self) -> str:
        if self.ending is None:
            return "failed"
        return "stopped" if self.ending.reason is StopReason.REQUESTED else "finished"

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _emit(self, state: coordinator_pb2.RunState, message: str) -> None:
        self.state = state
        if self.has_ended:
            self.progress_at = time.time()
            metrics.RUNS.labels(self._how_it_ended()).inc()
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
