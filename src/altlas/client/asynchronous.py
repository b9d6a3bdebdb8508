"""The client for asyncio.

Invariants: a batch gives one result for each of its programs, in their order, or raises, and then what it had running
is cancelled. A failure of the evaluator is raised and never stands in a result. What had no answer when the connection
was lost is sent again, which changes nothing: a program has no effect but its result.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc.aio

from altlas.client.batches import Batch, EvaluateBatch, ExecuteBatch
from altlas.client.messages import (
    Capabilities,
    Source,
    capabilities_from_proto,
    encode_sources,
    make_programs,
)
from altlas.client.patience import Patience
from altlas.client.task_text import task_text
from altlas.core.program import Execution, Limits, Program
from altlas.core.score import Score
from altlas.core.task import Task
from altlas.errors import AltlasError, ConfigError, ProtocolError, TransientError
from altlas.rpc.channel import call, connect
from altlas.rpc.errors import from_rpc_error
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc

BATCH_TIMEOUT_S = 600.0
CAPABILITIES_TIMEOUT_S = 30.0
AWAY_S = 60.0
CLOSED = "the client is closed: make another"
_ADDRESS = re.compile(r"unix:.+|[^/\s]+:\d+")

T = TypeVar("T")


class AsyncEvaluator:
    """An evaluator at an address. Connects when first used, and belongs to the event loop that it is then used in.

    Calls may run side by side. Cancelling one, also by leaving `asyncio.timeout`, kills the programs that it runs.
    """

    def __init__(self, address: str, *, away_s: float = AWAY_S) -> None:
        """Keep the address.

        Args:
            address: HOST:PORT or unix:PATH.
            away_s: seconds for which the evaluator may be away at a stretch before a call gives up, within its
                timeout_s; long enough for a restart.

        Raises:
            ConfigError: not an address.
        """
        if not _ADDRESS.fullmatch(address):
            raise ConfigError(f"{address!r} is not an evaluator's address: HOST:PORT or unix:PATH")
        self._peer = f"the evaluator at {address}"
        self._address = address
        self._away_s = away_s
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._calls: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def execute(
        self,
        sources: Sequence[Source | Program],
        *,
        language: str = "python",
        stdin: Source = b"",
        limits: Limits | None = None,
        timeout_s: float = BATCH_TIMEOUT_S,
    ) -> list[Execution]:
        """Run programs.

        Args:
            sources: the programs. Text travels as UTF-8; a Program brings its own language and input.
            language: of the sources.
            stdin: the input of each source.
            limits: of each program; None takes the evaluator's.
            timeout_s: seconds for the whole call.

        Returns:
            An execution per program, in their order. `has_read_stdin` does not travel and is always True.

        Raises:
            RefusedProgramError: the evaluator refuses one of the programs; the message and `index` say which.
            SandboxError: the sandbox failed on a program, which has no result.
            TransientError: no evaluator there for away_s, or not done within timeout_s.
            AltlasError: the client is closed.
        """
        batch = ExecuteBatch(make_programs(sources, language=language, stdin=stdin), limits)
        await self._run(batch, timeout_s=timeout_s)
        return [batch.results[index] for index in range(len(sources))]

    async def evaluate(
        self, task: str | Path | Task, sources: Sequence[Source], *, timeout_s: float = BATCH_TIMEOUT_S
    ) -> list[Score]:
        """Run and score programs on a task.

        Args:
            task: pack/name of a built-in task, the path of a .toml file, or a task.
            sources: the programs. Text travels as UTF-8; equal ones are run once.
            timeout_s: seconds for the whole call.

        Returns:
            A score per program, in their order.

        Raises:
            TaskError: no such task or file, or it is wrong.
            ConfigError: the evaluator does not know the task's language, or its limits are above the ceiling.
            RefusedProgramError: the evaluator refuses one of the programs; the message and `index` say which.
            SandboxError: the sandbox failed on a program, which has no result.
            TransientError: no evaluator there for away_s, or not done within timeout_s.
            AltlasError: the client is closed.
        """
        batch = EvaluateBatch(task_text(task), encode_sources(sources))
        await self._run(batch, timeout_s=timeout_s)
        return batch.scores()

    async def capabilities(self, *, timeout_s: float = CAPABILITIES_TIMEOUT_S) -> Capabilities:
        """Return what the evaluator can do.

        Raises:
            TransientError: no evaluator there for away_s or within timeout_s.
            AltlasError: the client is closed.
        """

        async def ask(patience: Patience) -> Capabilities:
            request = evaluator_pb2.GetCapabilitiesRequest()
            reply = await call(self._stub.GetCapabilities(request, timeout=patience.remaining_s), peer=self._peer)
            return capabilities_from_proto(reply)

        return await self._within(self._try(ask, timeout_s=timeout_s))

    async def close(self) -> None:
        """End every call in progress, which raises, and the connection. May be called twice."""
        self._is_closed = True
        calls = list(self._calls)
        for task in calls:
            task.cancel()
        if calls:
            await asyncio.wait(calls)
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> AsyncEvaluator:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, batch: Batch[Any, Any], *, timeout_s: float) -> None:
        total = len(batch.left)

        async def stream(patience: Patience) -> None:
            if batch.left:
                await self._stream(batch, patience)

        try:
            await self._within(self._try(stream, timeout_s=timeout_s))
        except TransientError as error:
            error.add_note(f"{len(batch.left):,} of {total:,} programs had no result yet")
            raise

    async def _stream(self, batch: Batch[Any, Any], patience: Patience) -> None:
        stream = batch.open_stream(self._stub, timeout_s=patience.remaining_s)
        try:
            async for response in stream:
                patience.note_answer()
                await batch.take(self._stub, response, peer=self._peer, timeout_s=patience.remaining_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, peer=self._peer) from error
        finally:
            stream.cancel()
        if batch.left:
            raise ProtocolError(f"{self._peer} ended the stream with {len(batch.left):,} programs not answered")

    async def _try(self, attempt: Callable[[Patience], Awaitable[T]], *, timeout_s: float) -> T:
        """Make attempts until one does not end for want of an evaluator."""
        patience = Patience(self._peer, timeout_s=timeout_s, away_s=self._away_s)
        while True:
            try:
                return await attempt(patience)
            except TransientError as error:
                delay_s = patience.delay_s(error)
            await asyncio.sleep(delay_s)

    async def _within(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work that `close` can end."""
        if self._is_closed:
            work.close()
            raise AltlasError(CLOSED)
        if self._channel is None:
            self._channel = connect(self._address)
            self._stub = evaluator_pb2_grpc.EvaluatorServiceStub(self._channel)
        task = asyncio.ensure_future(work)
        self._calls.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._is_closed and caller is not None and not caller.cancelling():
                raise AltlasError(CLOSED) from None
            raise
        finally:
            self._calls.discard(task)
