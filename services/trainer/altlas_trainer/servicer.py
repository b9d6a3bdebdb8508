"""TrainerService: validate, call the run, translate. Torch works in one thread, so that health answers meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import grpc
import grpc.aio

from altlas.config.loader import config_from_json
from altlas.errors import FencedError, LearningError, ProtocolError, StaleRunError
from altlas.obs.progress import Progress
from altlas.rpc.channel import CHUNK_BYTES
from altlas.rpc.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from altlas_trainer import metrics
from altlas_trainer.runs import TrainerRun, open_run

if TYPE_CHECKING:
    from altlas_trainer.replicas import Leader

LOGGER = logging.getLogger(__name__)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
T = TypeVar("T")


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """The trainer's RPCs. Everything that touches a run goes through one thread: no locks, no races.

    With a `leader` the learners are in several processes, of which this is the first.

    Attributes:
        progress: of that thread.
    """

    def __init__(self, leader: Leader | None = None) -> None:
        self._leader = leader
        self.progress = Progress("trainer")
        self._runs: dict[str, TrainerRun] = {}
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trainer")

    async def OpenRun(self, request: trainer_pb2.OpenRunRequest, context: Context) -> trainer_pb2.OpenRunResponse:
        """Make a run known; see the proto."""
        return await self._in_worker(context, "OpenRun", lambda: self._open(request))

    async def Learn(self, request: trainer_pb2.LearnRequest, context: Context) -> trainer_pb2.LearnResponse:
        """Do one update; see the proto."""
        asked_at = time.perf_counter()
        with metrics.LEARN_SECONDS.time():
            response = await self._in_worker(context, "Learn", lambda: self._learn(request, asked_at=asked_at))
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
            version, content = await self._in_worker(context, "GetPolicy", lambda: self._newest(request))
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
            response = await self._in_worker(context, "SaveCheckpoint", lambda: self._save(request))
        metrics.observe_checkpoint(response.size_bytes)
        return response

    async def ListCheckpoints(
        self, request: trainer_pb2.ListCheckpointsRequest, context: Context
    ) -> trainer_pb2.ListCheckpointsResponse:
        """List the run's checkpoints, broken ones with their problem."""
        entries = await self._in_worker(context, "ListCheckpoints", lambda: self._known(request.run_id).store.list())
        return trainer_pb2.ListCheckpointsResponse(
            checkpoints=[
                trainer_pb2.CheckpointInfo(
                    path=str(entry.path), update=entry.update, valid=not entry.problem, problem=entry.problem
                )
                for entry in entries
            ]
        )

    async def keep_waiting(self, interval_s: float) -> None:
        """Tell the leader's other processes every so often that this one is there. Ends when it is cancelled."""
        while self._leader is not None:
            await asyncio.sleep(interval_s)
            await asyncio.get_running_loop().run_in_executor(self._worker, self._leader.wait)

    def close(self) -> None:
        """Wait for the work in progress and end the thread, and the leader's other processes."""
        if self._leader is not None:
            self._worker.submit(self._leader.end)
        self._worker.shutdown()

    async def _in_worker(self, context: Context, name: str, function: Callable[[], T]) -> T:
        """Do a call's work in the one thread, where it is late once the caller has ceased to wait."""
        limit_s = context.time_remaining() or 0.0

        def work() -> T:
            with self.progress.working(name, limit_s=limit_s):
                return function()

        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

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

    def _learn(self, request: trainer_pb2.LearnRequest, *, asked_at: float) -> trainer_pb2.LearnResponse:
        metrics.PHASE_SECONDS.labels("wait").observe(time.perf_counter() - asked_at)
        try:
            return self._run(request.run_id, request.fence).learn(request)
        except LearningError:
            metrics.NONFINITE.inc()
            raise

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
            run = open_run(spec, resume=request.resume, fence=request.fence, leader=self._leader)
        self._runs[spec.run_id] = run
        LOGGER.info(
            "run %s on %s (%s) at update %d", spec.run_id, run.device.device, run.device.reason, run.policy_version
        )
        entropy_floor = config_from_json(spec.config_json).objective.entropy_target
        metrics.observe_opened(run.policy_version, entropy_floor=entropy_floor, loaded=run.loaded)
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
