"""Threads for work that waits: for programs to end, for room in the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class WaitingThreads:
    """A pool for one event loop that is handed no more than it runs: who waits for a thread waits in the loop, and a
    call that is cancelled leaves nothing behind.
    """

    def __init__(self, threads: int, *, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = asyncio.Semaphore(threads)

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Run `work` in a thread and return what it returns. Cancelling does not end `work`."""
        return await asyncio.wrap_future(await self.start(work, *args, **kwargs))

    async def start(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Wait for a thread and begin `work` in it."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future = self._pool.submit(work, *args, **kwargs)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free.release))
        return future

    def close(self) -> None:
        """Wait for what runs, and end the threads."""
        self._pool.shutdown()
