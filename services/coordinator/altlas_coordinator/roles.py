"""The generator and the trainer as the coordinator sees them: two ports, and their gRPC adapters.

A role that is away is waited for, with a line that says for whom, and given up after the configured time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

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
    """Where programs come from. `width`: batches that can be drawn at once."""

    width: int

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

    async def save_checkpoint(
        self, update: int, state: bytes, *, mean_reward: float, is_last: bool
    ) -> trainer_pb2.SaveCheckpointResponse:
        """Write a checkpoint; with the last one of a run the trainer lets go of it."""


class GeneratorClient:
    """ProgramSource over gRPC, of one generator or several. Each deal of a batch goes to one of them, whichever is
    there: a deal's programs are the same from all.

    deal: programs that one call draws; 0 draws a batch in one call.
    """

    def __init__(
        self, channels: Sequence[grpc.aio.Channel], *, run_id: str, fence: int, timeout_s: float, deal: int
    ) -> None:
        self._stubs = [generator_pb2_grpc.GeneratorServiceStub(channel) for channel in channels]
        self._run_id = run_id
        self._fence = fence
        self._timeout_s = timeout_s
        self._deal = deal
        self._next = 0
        self.width = len(self._stubs)

    async def sample(self, *, update: int, policy_version: int, count: int, task: int) -> SampledPrograms:
        """See ProgramSource."""
        size = self._deal or count
        requests = [
            generator_pb2.SampleRequest(
                run_id=self._run_id,
                policy_version=policy_version,
                update=update,
                first_index=first,
                count=min(size, count - first),
                task=task,
                fence=self._fence,
            )
            for first in range(0, count, size)
        ]
        deals = await all_of([self._draw(request) for request in requests])
        return SampledPrograms(
            [source for deal in deals for source in deal.sources], [part for deal in deals for part in deal.parts]
        )

    async def _draw(self, request: generator_pb2.SampleRequest) -> SampledPrograms:
        where = f"update {request.update}"

        async def once() -> SampledPrograms:
            # In turn, so that a generator that is away costs one try.
            stub = self._stubs[self._next % len(self._stubs)]
            self._next += 1
            programs = SampledPrograms([], [])
            async for response in stream(stub.Sample(request, timeout=self._timeout_s), peer="generator"):
                part = response.trajectories
                if part.first_index != request.first_index + len(programs.sources):
                    raise ProtocolError(
                        f"{where}: the generator sent programs from {part.first_index} on, "
                        f"expected {request.first_index + len(programs.sources)}"
                    )
                programs.sources.extend(sources_from_proto(part.sources))
                # Read here and nowhere after: the learner has the tokens.
                part.ClearField("sources")
                programs.parts.append(part)
            return programs

        programs = await until_back(once, peer="generator", limit_s=self._timeout_s)
        if len(programs.sources) != request.count:
            raise ProtocolError(f"{where}: the generator sent {len(programs.sources)} programs of {request.count}")
        return programs


async def all_of(operations: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Return what all give, in order; the first failure cancels the others and is raised."""
    tasks = [asyncio.ensure_future(operation) for operation in operations]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class TrainerClient:
    """Learner over gRPC. Every call may be repeated, so an unanswered one is."""

    def __init__(self, channel: grpc.aio.Channel, *, run_id: str, fence: int, timeout_s: float) -> None:
        self._stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        self._run_id = run_id
        self._fence = fence
        self._timeout_s = timeout_s

    async def open(self, spec: common_pb2.RunSpec, *, resume: bool) -> trainer_pb2.OpenRunResponse:
        """See Learner."""
        request = trainer_pb2.OpenRunRequest(spec=spec, resume=resume, fence=self._fence)
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
            fence=self._fence,
        )
        return await self._call(lambda: self._stub.Learn(request, timeout=self._timeout_s))

    async def save_checkpoint(
        self, update: int, state: bytes, *, mean_reward: float, is_last: bool
    ) -> trainer_pb2.SaveCheckpointResponse:
        """See Learner."""
        request = trainer_pb2.SaveCheckpointRequest(
            run_id=self._run_id,
            update=update,
            coordinator_state=state,
            fence=self._fence,
            mean_reward=mean_reward,
            is_last=is_last,
        )
        return await self._call(lambda: self._stub.SaveCheckpoint(request, timeout=self._timeout_s))

    async def _call(self, make: Callable[[], Awaitable[T]]) -> T:
        return await until_back(lambda: call(make(), peer="trainer"), peer="trainer", limit_s=self._timeout_s)
