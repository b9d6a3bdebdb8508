"""The generator and the trainer as the coordinator sees them: two ports, and their gRPC adapters.

A role that is away is waited for, with a line that says for whom, and given up after the configured time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import grpc
import grpc.aio

from altlas.core.score_batch import ScoreBatch
from altlas.errors import ProtocolError
from altlas.rpc.batches import scores_to_proto, sources_from_proto
from altlas.rpc.channel import call, stream
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.generator.v1 import generator_pb2, generator_pb2_grpc
from altlas.rpc.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from altlas_coordinator.patience import until_back

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SampledPrograms:
    """An update's programs: their texts in order, and the trajectories as they came, for the learner alone to read."""

    sources: list[bytes]
    parts: list[common_pb2.TrajectoryBatch]


class ProgramSource(Protocol):
    """Where programs come from."""

    async def sample(self, *, update: int, policy_version: int, count: int, task: int) -> SampledPrograms:
        """Return `count` programs of an update, in order of index; `task` is a position among the run's."""


class Learner(Protocol):
    """Where programs and scores go."""

    async def open(self, spec: common_pb2.RunSpec, *, resume: bool) -> trainer_pb2.OpenRunResponse:
        """Make the run known and say where it stands."""

    async def learn(
        self,
        update: int,
        programs: SampledPrograms,
        scores: ScoreBatch,
        *,
        behaviour_version: int,
        task: int,
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

    async def sample(self, *, update: int, policy_version: int, count: int, task: int) -> SampledPrograms:
        """See ProgramSource."""
        request = generator_pb2.SampleRequest(
            run_id=self._run_id, policy_version=policy_version, update=update, first_index=0, count=count, task=task
        )

        async def once() -> SampledPrograms:
            programs = SampledPrograms([], [])
            async for response in stream(self._stub.Sample(request, timeout=self._timeout_s), peer="generator"):
                part = response.trajectories
                if part.first_index != len(programs.sources):
                    raise ProtocolError(
                        f"update {update}: the generator sent programs from {part.first_index} on, "
                        f"expected {len(programs.sources)}"
                    )
                programs.sources.extend(sources_from_proto(part.sources))
                # Read here and nowhere after: the learner has the tokens.
                part.ClearField("sources")
                programs.parts.append(part)
            return programs

        programs = await until_back(once, peer="generator", limit_s=self._timeout_s)
        if len(programs.sources) != count:
            raise ProtocolError(f"update {update}: the generator sent {len(programs.sources)} programs of {count}")
        return programs


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
        programs: SampledPrograms,
        scores: ScoreBatch,
        *,
        behaviour_version: int,
        task: int,
        reinitialise: bool,
    ) -> trainer_pb2.LearnResponse:
        """See Learner."""
        request = trainer_pb2.LearnRequest(
            run_id=self._run_id,
            update=update,
            behaviour_version=behaviour_version,
            trajectories=programs.parts,
            scores=scores_to_proto(replace(scores, errors=())),
            reinitialise=reinitialise,
            task=task,
        )
        return await self._call(lambda: self._stub.Learn(request, timeout=self._timeout_s))

    async def save_checkpoint(self, update: int, state: bytes) -> trainer_pb2.SaveCheckpointResponse:
        """See Learner."""
        request = trainer_pb2.SaveCheckpointRequest(run_id=self._run_id, update=update, coordinator_state=state)
        return await self._call(lambda: self._stub.SaveCheckpoint(request, timeout=self._timeout_s))

    async def _call(self, make: Callable[[], Awaitable[T]]) -> T:
        return await until_back(lambda: call(make(), peer="trainer"), peer="trainer", limit_s=self._timeout_s)
