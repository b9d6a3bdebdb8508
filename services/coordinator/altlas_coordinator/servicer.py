"""CoordinatorService: find the run, call one method of it, answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc.aio

from altlas.errors import ProtocolError, UnknownRunError
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.coordinator.v1 import coordinator_pb2, coordinator_pb2_grpc
from altlas.transport.ports import JobQueue, RunRegistry, WorkerInfo
from altlas_coordinator.patience import until_back
from altlas_coordinator.runs import ActiveRun, make_run
from altlas_coordinator.session import Peers

LOGGER = logging.getLogger(__name__)
_DRAIN_S = 10.0
_ENDED = (coordinator_pb2.RUN_STATE_FINISHED, coordinator_pb2.RUN_STATE_FAILED)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CoordinatorServicer(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """The coordinator's RPCs. `owner`: the name under which it leads runs, as long as only one has it.

    Attributes:
        runs: every run of this coordinator, and of those before it under its name, by id.
    """

    def __init__(
        self,
        *,
        peers: Peers,
        open_queue: Callable[[common_pb2.RunSpec], JobQueue],
        registry: RunRegistry,
        owner: str,
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._peers = peers
        self._open_queue = open_queue
        self._registry = registry
        self._owner = owner
        self._on_crash = on_crash
        self.runs: dict[str, ActiveRun] = {}

    async def adopt(self) -> None:
        """Go on with the runs that an earlier coordinator of this name left under way, and know those that ended.

        Raises:
            TransientError: Redis is away.
        """
        for content in (await self._registry.records()).values():
            record = coordinator_pb2.RunRecord.FromString(content)
            if record.coordinator != self._owner:
                continue
            run = make_run(record.request.spec, self._open_queue(record.request.spec))
            if record.run.state in _ENDED:
                run.recall(record.run)
                run.request_id = record.request.request_id
                self.runs[run.spec.run_id] = run
                continue
            LOGGER.warning("run %s was under way: going on from its newest checkpoint", run.spec.run_id)
            run.state = record.run.state
            self._start(run, record.request)

    async def CreateRun(
        self, request: coordinator_pb2.CreateRunRequest, context: Context
    ) -> coordinator_pb2.CreateRunResponse:
        """Start a run; see the proto."""
        return coordinator_pb2.CreateRunResponse(run=(await self.create(request)).message())

    async def create(self, request: coordinator_pb2.CreateRunRequest) -> ActiveRun:
        """Start a run, or return the one that this request has made before.

        Raises:
            AltlasError: the request is wrong, its run's name is taken, or Redis is away.
        """
        if not request.request_id or not request.spec.run_id:
            raise ProtocolError("CreateRun needs a request_id and a spec with a run_id")
        run_id = request.spec.run_id
        run = make_run(request.spec, self._open_queue(request.spec))
        known = self.runs.get(run_id)
        record = coordinator_pb2.RunRecord(request=request, run=run.message(), coordinator=self._owner)
        made = await self._registry.register(
            request.request_id,
            run_id,
            record.SerializeToString(),
            # Whoever leads a run of this name from elsewhere has its lease, which is asked for next.
            replace=known is None or known.has_ended,
        )
        if made != run_id or (known is not None and known.request_id == request.request_id):
            return self._run(made)
        self._start(run, request)
        return run

    def _start(self, run: ActiveRun, request: coordinator_pb2.CreateRunRequest) -> None:
        self.runs[run.spec.run_id] = run
        run.request_id = request.request_id
        run.task = asyncio.create_task(self._execute(run, request))
        run.task.add_done_callback(self._check_crash)

    async def _execute(self, run: ActiveRun, request: coordinator_pb2.CreateRunRequest) -> None:
        """Run to the end, and write down how it ended for coordinators to come."""
        try:
            await run.execute(self._peers, owner=self._owner, resume=request.resume)
        finally:
            if run.has_ended:
                record = coordinator_pb2.RunRecord(request=request, run=run.message(), coordinator=self._owner)
                content = record.SerializeToString()
                await until_back(
                    lambda: self._registry.update(run.spec.run_id, content),
                    peer="Redis",
                    limit_s=run.config.transport.rpc_timeout_s,
                )

    async def GetRun(self, request: coordinator_pb2.GetRunRequest, context: Context) -> coordinator_pb2.GetRunResponse:
        """Return one run."""
        return coordinator_pb2.GetRunResponse(run=self._run(request.run_id).message())

    async def ListRuns(
        self, request: coordinator_pb2.ListRunsRequest, context: Context
    ) -> coordinator_pb2.ListRunsResponse:
        """Return every run of this coordinator, and of those before it under its name."""
        return coordinator_pb2.ListRunsResponse(runs=[run.message() for run in self.runs.values()])

    async def WatchRun(
        self, request: coordinator_pb2.WatchRunRequest, context: Context
    ) -> AsyncIterator[coordinator_pb2.WatchRunResponse]:
        """Stream a run's events; see the proto."""
        async for event in self._run(request.run_id).watch(request.after_sequence):
            yield coordinator_pb2.WatchRunResponse(event=event)

    async def PauseRun(
        self, request: coordinator_pb2.PauseRunRequest, context: Context
    ) -> coordinator_pb2.PauseRunResponse:
        """Hold a run before its next update."""
        await self._run(request.run_id).pause()
        return coordinator_pb2.PauseRunResponse()

    async def ResumeRun(
        self, request: coordinator_pb2.ResumeRunRequest, context: Context
    ) -> coordinator_pb2.ResumeRunResponse:
        """Let a paused run go on."""
        await self._run(request.run_id).go_on()
        return coordinator_pb2.ResumeRunResponse()

    async def StopRun(
        self, request: coordinator_pb2.StopRunRequest, context: Context
    ) -> coordinator_pb2.StopRunResponse:
        """End a run after the update in progress."""
        await self._run(request.run_id).stop()
        return coordinator_pb2.StopRunResponse()

    async def ListWorkers(
        self, request: coordinator_pb2.ListWorkersRequest, context: Context
    ) -> coordinator_pb2.ListWorkersResponse:
        """Return the evaluators of every run under way."""
        workers: list[WorkerInfo] = []
        for run in self.runs.values():
            if not run.has_ended:
                workers += await run.queue.workers()
        return coordinator_pb2.ListWorkersResponse(
            workers=[
                coordinator_pb2.Worker(
                    name=worker.name, run_id=worker.run_id, jobs_pending=worker.jobs_pending, idle_s=worker.idle_s
                )
                for worker in workers
            ]
        )

    async def drain(self) -> None:
        """Leave every run to the next coordinator, at a checkpoint; a run whose peers are gone is cut off."""
        for run in self.runs.values():
            await run.suspend()
        if tasks := [run.task for run in self.runs.values() if run.task]:
            _, unfinished = await asyncio.wait(tasks, timeout=_DRAIN_S)
            for task in unfinished:
                LOGGER.warning("a run did not reach its next update boundary: its newest checkpoint is what remains")
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, run_id: str) -> ActiveRun:
        if run_id not in self.runs:
            known = ", ".join(self.runs) or "none"
            raise UnknownRunError(f"no run {run_id!r} here; there are: {known}")
        return self.runs[run_id]

    def _check_crash(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(error)
