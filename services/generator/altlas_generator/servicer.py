"""GeneratorService: fetch the policy that is asked for, sample, answer in parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio

from altlas.errors import ProtocolError, StaleRunError
from altlas.obs.progress import Progress
from altlas.rpc.channel import stream
from altlas.rpc.generator.v1 import generator_pb2, generator_pb2_grpc
from altlas.rpc.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from altlas.rpc.trajectories import TOKEN_BYTES
from altlas_generator import metrics
from altlas_generator.runs import GeneratorRun, open_run

LOGGER = logging.getLogger(__name__)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MAX_COUNT = 1 << 20
_RUNS_KEPT = 16
T = TypeVar("T")


class GeneratorServicer(generator_pb2_grpc.GeneratorServiceServicer):
    """The generator's RPC. Torch works in one thread, so that health answers meanwhile.

    Attributes:
        progress: of that thread.
    """

    def __init__(self, trainer: grpc.aio.Channel) -> None:
        self.progress = Progress("generator")
        self._trainer = trainer_pb2_grpc.TrainerServiceStub(trainer)
        self._runs: dict[str, GeneratorRun] = {}
        self._turn = asyncio.Lock()  # of one call, between the policy it needs and its programs
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generator")

    async def Sample(
        self, request: generator_pb2.SampleRequest, context: Context
    ) -> AsyncIterator[generator_pb2.SampleResponse]:
        """Stream the trajectories of one update; see the proto."""
        if not 1 <= request.count <= MAX_COUNT:
            raise ProtocolError(f"count {request.count} is not in 1..{MAX_COUNT}")
        async with self._turn:
            run = await self._at_version(request, context)
            with metrics.SAMPLE_SECONDS.time():
                parts = await self._in_worker(
                    "Sample",
                    lambda: run.sample(update=request.update, first_index=request.first_index, count=request.count),
                    limit_s=context.time_remaining() or 0.0,
                )
        metrics.PROGRAMS.inc(request.count)
        metrics.TOKENS.inc(sum(len(part.tokens) for part in parts) // TOKEN_BYTES)
        for part in parts:
            yield generator_pb2.SampleResponse(trajectories=part)

    def close(self) -> None:
        """Wait for the work in progress and end the thread."""
        self._worker.shutdown()

    async def _in_worker(self, name: str, function: Callable[[], T], *, limit_s: float) -> T:
        """Do a piece of work in the one thread, where it is late once the caller has ceased to wait."""

        def work() -> T:
            with self.progress.working(name, limit_s=limit_s):
                return function()

        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def _at_version(self, request: generator_pb2.SampleRequest, context: Context) -> GeneratorRun:
        run = self._runs.get(request.run_id)
        if run is None or not run.holds(request):
            with metrics.FETCH_SECONDS.time():
                run = await self._fetch(request, timeout_s=context.time_remaining() or 0.0)
        if run.policy_version != request.policy_version:
            raise StaleRunError(
                f"policy version {request.policy_version} of run {request.run_id} is gone: "
                f"the trainer is at {run.policy_version}"
            )
        return run

    async def _fetch(self, request: generator_pb2.SampleRequest, *, timeout_s: float) -> GeneratorRun:
        header: trainer_pb2.PolicyHeader | None = None
        content = bytearray()
        responses = self._trainer.GetPolicy(
            trainer_pb2.GetPolicyRequest(
                run_id=request.run_id, min_version=request.policy_version, task=request.task, fence=request.fence
            ),
            timeout=timeout_s,
        )
        async for response in stream(responses, peer="trainer"):
            if response.HasField("header"):
                header = response.header
            content += response.chunk
        if header is None:
            raise ProtocolError("the trainer sent a policy without a header")
        run = self._runs.pop(request.run_id, None)
        if run is None or run.spec != header.spec:
            spec = header.spec
            run = await self._in_worker("opening a run", lambda: open_run(spec), limit_s=timeout_s)
        self._runs[request.run_id] = run
        while len(self._runs) > _RUNS_KEPT:
            self._runs.pop(next(iter(self._runs)))
        await self._in_worker(
            "loading a policy", lambda: run.load(header, bytes(content), task=request.task), limit_s=timeout_s
        )
        metrics.POLICY_VERSION.set(run.policy_version)
        return run
