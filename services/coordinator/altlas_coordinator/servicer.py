"""CoordinatorService: find the run, call one method of it, answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from altlas.errors import ProtocolError
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.coordinator.v1 import coordinator_pb2, coordinator_pb2_grpc
from altlas.transport.ports import JobQueue, WorkerInfo
from altlas_coordinator.runs import ActiveRun, make_run

LOGGER = logging.getLogger(__name__)
_DRAIN_S = 10.0
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CoordinatorServicer(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """The coordinator's RPCs."""

    def __init__(
        self,
        *,
        generator: grpc.aio.Channel,
        trainer: grpc.aio.Channel,
        open_queue: Callable[[common_pb2.RunSpec], JobQueue],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._generator = generator
        self._trainer = trainer
        self._open_queue = open_queue
        self._on_crash = on_crash
        self._runs: dict[str, ActiveRun] = {}
        self._requests: dict[str, ActiveRun] = {}

    async def CreateRun(
        self, request: coordinator_pb2.CreateRunRequest, context: Context
    ) -> coordinator_pb2.CreateRunResponse:
        """Start a run; see the proto."""
        if not request.request_id or not request.spec.run_id:
            raise ProtocolError("CreateRun needs a request_id and a spec with a run_id")
        if request.request_id in self._requests:
            return coordinator_pb2.CreateRunResponse(run=self._requests[request.request_id].message())
        known = self._runs.get(request.spec.run_id)
        if known is not None and not known.has_ended:
            raise ProtocolError(f"run {request.spec.run_id} is under way; stop it first or take another run_id")
        run = make_run(request.spec, self._open_queue(request.spec))
        self._runs[request.spec.run_id] = self._requests[request.request_id] = run
        run.task = asyncio.create_task(run.execute(self._generator, self._trainer, resume=request.resume))
        run.task.add_done_callback(self._check_crash)
        return coordinator_pb2.CreateRunResponse(run=run.message())

    async def GetRun(self, request: coordinator_pb2.GetRunRequest, context: Context) -> coordinator_pb2.GetRunResponse:
        """Return one run."""
        return coordinator_pb2.GetRunResponse(run=self._run(request.run_id).message())

    async def ListRuns(
        self, request: coordinator_pb2.ListRunsRequest, context: Context
    ) -> coordinator_pb2.ListRunsResponse:
        """Return every run since this process started."""
        return coordinator_pb2.ListRunsResponse(runs=[run.message() for run in self._runs.values()])

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
        for run in self._runs.values():
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
        """Stop every run and wait a while for their last checkpoints; a run whose peers are gone is cut off."""
        for run in self._runs.values():
            await run.stop()
        if tasks := [run.task for run in self._runs.values() if run.task]:
            _, unfinished = await asyncio.wait(tasks, timeout=_DRAIN_S)
            for task in unfinished:
                LOGGER.warning("a run did not reach its next update boundary: its newest checkpoint is what remains")
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, run_id: str) -> ActiveRun:
        if run_id not in self._runs:
            known = ", ".join(self._runs) or "none"
            raise ProtocolError(f"no run {run_id!r} here; there are: {known}")
        return self._runs[run_id]

    def _check_crash(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(error)
