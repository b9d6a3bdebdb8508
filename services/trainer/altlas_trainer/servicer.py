"""TrainerService: validate, call the run, translate. Torch works in one thread, so that health answers meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio

from altlas.errors import FencedError, ProtocolError, StaleRunError
from altlas.rpc.channel import CHUNK_BYTES
from altlas.rpc.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from altlas_trainer import metrics
from altlas_trainer.runs import TrainerRun, open_run

LOGGER = logging.getLogger(__name__)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
T = TypeVar("T")


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """The trainer's RPCs. Everything that touches a run goes through one thread: no locks, no races."""

    def __init__(self) -> None:
        self._runs: dict[str, TrainerRun] = {}
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trainer")

    async def OpenRun(self, request: trainer_pb2.OpenRunRequest, context: Context) -> trainer_pb2.OpenRunResponse:
        """Make a run known; see the proto."""
        return await self._in_worker(lambda: self._open(request))

    async def Learn(self, request: trainer_pb2.LearnRequest, context: Context) -> trainer_pb2.LearnResponse:
        """Do one update; see the proto."""
        with metrics.LEARN_SECONDS.time():
            response = await self._in_worker(lambda: self._run(request.run_id, request.fence).learn(request))
        metrics.observe(response)
        return response

    async def GetPolicy(
        self, request: trainer_pb2.GetPolicyRequest, context: Context
    ) -> AsyncIterator[trainer_pb2.GetPolicyResponse]:
        """Stream the policy asked for, or the newest; see the proto."""
        run = self._run(request.run_id, request.fence)
        # What is held already is given away while the thread learns.
        version, held = request.min_version, run.snapshots.get((request.min_version, request.task))
        if held is None:
            version, content = await self._in_worker(lambda: self._newest(request))
        else:
            content = held
        header = trainer_pb2.PolicyHeader(
            spec=run.spec,
            policy_version=version,
            size_bytes=len(content),
            sha256=hashlib.sha256(content).digest(),
            fence=run.fence,
        )
        yield trainer_pb2.GetPolicyResponse(header=header)
        for start in range(0, len(content), CHUNK_BYTES):
            yield trainer_pb2.GetPolicyResponse(chunk=content[start : start + CHUNK_BYTES])

    async def SaveCheckpoint(
        self, request: trainer_pb2.SaveCheckpointRequest, context: Context
    ) -> trainer_pb2.SaveCheckpointResponse:
        """Write a checkpoint; see the proto."""
        with metrics.CHECKPOINT_SECONDS.time():
            response = await self._in_worker(lambda: self._save(request))
        metrics.CHECKPOINT_BYTES.set(response.size_bytes)
        return response

    async def ListCheckpoints(
        self, request: trainer_pb2.ListCheckpointsRequest, context: Context
    ) -> trainer_pb2.ListCheckpointsResponse:
        """List the run's checkpoints, broken ones with their problem."""
        entries = await self._in_worker(lambda: self._known(request.run_id).store.list())
        return trainer_pb2.ListCheckpointsResponse(
            checkpoints=[
                trainer_pb2.CheckpointInfo(
                    path=str(entry.path), update=entry.update, valid=not entry.problem, problem=entry.problem
                )
                for entry in entries
            ]
        )

    def close(self) -> None:
        """Wait for the work in progress and end the thread."""
        self._worker.shutdown()

    async def _in_worker(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function)

    def _known(self, run_id: str) -> TrainerRun:
        if run_id not in self._runs:
            raise StaleRunError(
                f"run {run_id!r} is not open at this trainer: it was restarted, or OpenRun never called"
            )
        return self._runs[run_id]

    def _run(self, run_id: str, fence: int) -> TrainerRun:
        run = self._known(run_id)
        if fence < run.fence:
            raise FencedError(f"run {run_id!r} is led by a coordinator with fence {run.fence}, this call has {fence}")
        if fence > run.fence:
            raise StaleRunError(
                f"run {run_id!r} is open for fence {run.fence}, this call has {fence}: OpenRun comes first"
            )
        return run

    def _save(self, request: trainer_pb2.SaveCheckpointRequest) -> trainer_pb2.SaveCheckpointResponse:
        response = self._run(request.run_id, request.fence).save_checkpoint(request)
        if request.is_last:
            # A repeat of this call finds the run gone, goes back to this checkpoint and ends there again.
            del self._runs[request.run_id]
        return response

    def _open(self, request: trainer_pb2.OpenRunRequest) -> trainer_pb2.OpenRunResponse:
        spec = request.spec
        run = self._runs.get(spec.run_id)
        if run is not None and run.spec != spec and request.fence <= run.fence:
            raise ProtocolError(f"run {spec.run_id!r} is open here with another spec")
        if run is not None and request.fence < run.fence:
            raise FencedError(
                f"run {spec.run_id!r} is led by a coordinator with fence {run.fence}, not {request.fence}"
            )
        if run is None or request.fence > run.fence:
            run = open_run(spec, resume=request.resume, fence=request.fence)
        self._runs[spec.run_id] = run
        LOGGER.info(
            "run %s on %s (%s) at update %d", spec.run_id, run.device.device, run.device.reason, run.policy_version
        )
        return trainer_pb2.OpenRunResponse(
            policy_version=run.policy_version,
            coordinator_state=run.coordinator_state,
            checkpoint=str(run.loaded.path) if run.loaded else "",
            warning=(run.loaded.warning or "") if run.loaded else "",
            checkpoint_fence=run.loaded.manifest["fence"] if run.loaded else 0,
            device=f"{run.device.device} ({run.device.reason})",
            parameters=run.learner.parameters,
            policy_sha256=run.learner.sha256(),
        )

    def _newest(self, request: trainer_pb2.GetPolicyRequest) -> tuple[int, bytes]:
        run = self._run(request.run_id, request.fence)
        if run.policy_version < request.min_version:
            raise StaleRunError(f"policy version {request.min_version} is not there yet: at {run.policy_version}")
        return run.policy_version, run.policy_snapshot(request.task)
