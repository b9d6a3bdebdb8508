"""The client for code that blocks: AsyncEvaluator in an event loop of its own, in a thread.

It works the same within a program that runs an event loop already (a notebook), and its calls may come from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from altlas.client.asynchronous import (
    AWAY_S,
    BATCH_TIMEOUT_S,
    CAPABILITIES_TIMEOUT_S,
    CLOSED,
    AsyncEvaluator,
)
from altlas.client.messages import Capabilities, Source
from altlas.core.program import Execution, Limits, Program
from altlas.core.score import Score
from altlas.core.task import Task
from altlas.errors import AltlasError

T = TypeVar("T")


class Evaluator:
    """An evaluator at an address. Connects when first used; may be shared by threads.

    An exception that ends a call early, such as KeyboardInterrupt, kills the programs that it runs. A fork of the
    process takes no connection along: make one in each process, which costs nothing before its first call.
    """

    def __init__(self, address: str, *, away_s: float = AWAY_S) -> None:
        """Keep the address; the arguments and errors are those of AsyncEvaluator."""
        self._client = AsyncEvaluator(address, away_s=away_s)
        self._lock = threading.Lock()
        self._loop: _LoopThread | None = None
        self._is_closed = False

    def execute(
        self,
        sources: Sequence[Source | Program],
        *,
        language: str = "python",
        stdin: Source = b"",
        limits: Limits | None = None,
        timeout_s: float = BATCH_TIMEOUT_S,
    ) -> list[Execution]:
        """Run programs; see AsyncEvaluator.execute."""
        return self._call(
            lambda: self._client.execute(sources, language=language, stdin=stdin, limits=limits, timeout_s=timeout_s)
        )

    def evaluate(
        self, task: str | Path | Task, sources: Sequence[Source], *, timeout_s: float = BATCH_TIMEOUT_S
    ) -> list[Score]:
        """Run and score programs on a task; see AsyncEvaluator.evaluate."""
        return self._call(lambda: self._client.evaluate(task, sources, timeout_s=timeout_s))

    def capabilities(self, *, timeout_s: float = CAPABILITIES_TIMEOUT_S) -> Capabilities:
        """Return what the evaluator can do; see AsyncEvaluator.capabilities."""
        return self._call(lambda: self._client.capabilities(timeout_s=timeout_s))

    def close(self) -> None:
        """End every call in progress, which raises, and the connection. May be called twice."""
        if self._loop is not None and self._loop.is_foreign:
            return
        with self._lock:
            self._is_closed = True
        if self._loop is not None:
            self._loop.stop()

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._loop is not None and self._loop.is_foreign:  # before the lock, which the fork may have left locked
            raise AltlasError("this Evaluator was used before the process forked: make one in the process that uses it")
        with self._lock:
            if self._is_closed:
                raise AltlasError(CLOSED)
            if self._loop is None:
                self._loop = _LoopThread(self._client)
                # The thread must not outlive an Evaluator that nobody closed, nor the interpreter's own end.
                weakref.finalize(self, self._loop.stop)
            future = asyncio.run_coroutine_threadsafe(start(), self._loop.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


class _LoopThread:
    """An event loop in a thread, and the client that lives there."""

    def __init__(self, client: AsyncEvaluator) -> None:
        self.loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._client = client
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="altlas-client", daemon=True)
        self._thread.start()

    @property
    def is_foreign(self) -> bool:
        """Whether this is a fork of the process, which has the loop but not its thread."""
        return os.getpid() != self._pid

    def stop(self) -> None:
        """Close the client and end the thread. May be called twice."""
        if self.is_foreign or not self._thread.is_alive():
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended since
            self.loop.call_soon_threadsafe(self._end.set)
        if threading.current_thread() is not self._thread:  # a finalizer runs in any thread
            self._thread.join()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._wait())

    async def _wait(self) -> None:
        await self._end.wait()
        await self._client.close()
