"""The generator and the trainer as the coordinator sees them: two ports, and their gRPC adapters.

A role that is away is waited for, with a line that says for whom, and given up after the configured time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import grpc
import grpc.aio

from altlas.core.score import Score
from altlas.errors import ProtocolError
from altlas.rpc.channel import call, stream
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.convert import score_to_proto
from altlas.rpc.generator.v1 import generator_pb2, generator_pb2_grpc
from altlas.rpc.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from altlas_coordinator.patience import until_back

T = TypeVar("T")


class ProgramSource(Protocol):
    """Where programs come from."""

    async def sample(self, *, update: int, policy_version: int, count: int) -> list[common_pb2.Trajectory]:
        """Return `count` trajectories of an update, in order of index."""


class Learner(Protocol):
    """Where programs and scores go."""

    async def open(self, spec: common_pb2.RunSpec, *, resume: bool) -> trainer_pb2.OpenRunResponse:
        """Make the run known and say where it stands."""

    async def learn(
        self,
        update: int,
        trajectories: Sequence[common_pb2.Trajectory],
        scores: Sequence[Score],
        *,
        behaviour_version: int,
        reinitialise: bool,
    ) -> trainer_pb2.LearnResponse:
        """Do one update."""

    async def save_checkpoint(self, update: int, state: bytes) -> trainer_pb2.SaveCheckpointResponse:
        """Write a checkpoint."""


class GeneratorClient:
    """ProgramSource over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, *, run_id: str, timeout_s: float) -> None:
        self._stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        self._run_id = run_id
        self._timeout_s = timeout_s

    async def sample(self, *, update: int, policy_version: int, count: int) -> list[common_pb2.Trajectory]:
        """See ProgramSource."""
        request = generator_pb2.SampleRequest(
            run_id=self._run_id, policy_version=policy_version, update=update, first_index=0, count=count
        )

        async def once() -> list[common_pb2.Trajectory]:
            responses = self._stub.Sample(request, timeout=self._timeout_s)
            return [item async for part in stream(responses, peer="generator") for item in part.trajectories]

        trajectories = await until_back(once, peer="generator", limit_s=self._timeout_s)
        if [trajectory.index for trajectory in trajectories] != list(range(count)):
            raise ProtocolError(f"update {update}: the generator sent {len(trajectories)} of {count}, or out of order")
        return trajectories


class TrainerClient:
    """Learner over gRPC. Every call may be repeated, so an unanswered one is."""

    def __init__(self, channel: grpc.aio.Channel, *, run_id: str, timeout_s: float) -> None:
        self._stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        self._run_id = run_id
        self._timeout_s = timeout_s

    async def open(self, spec: common_pb2.RunSpec, *, resume: bool) -> trainer_pb2.OpenRunResponse:
        """See Learner."""
        request = trainer_pb2.OpenRunRequest(spec=spec, resume=resume)
        return await self._call(lambda: self._stub.OpenRun(request, timeout=self._timeout_s))

    async def learn(
        self,
        update: int,
        trajectories: Sequence[common_pb2.Trajectory],
        scores: Sequence[Score],
        *,
        behaviour_version: int,
        reinitialise: bool,
    ) -> trainer_pb2.LearnResponse:
        """See Learner."""
        request = trainer_pb2.LearnRequest(
            run_id=self._run_id,
            update=update,
            behaviour_version=behaviour_version,
            trajectories=trajectories,
            scores=[score_to_proto(score) for score in scores],
            reinitialise=reinitialise,
        )
        return await self._call(lambda: self._stub.Learn(request, timeout=self._timeout_s))

    async def save_checkpoint(self, update: int, state: bytes) -> trainer_pb2.SaveCheckpointResponse:
        """See Learner."""
        request = trainer_pb2.SaveCheckpointRequest(run_id=self._run_id, update=update, coordinator_state=state)
        return await self._call(lambda: self._stub.SaveCheckpoint(request, timeout=self._timeout_s))

    async def _call(self, make: Callable[[], Awaitable[T]]) -> T:
        return await until_back(lambda: call(make(), peer="trainer"), peer="trainer", limit_s=self._timeout_s)
