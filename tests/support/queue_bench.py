"""One queue adapter under test: ways to get its ends, to let its leases run out and to lose its data."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import redis

from altlas.transport.memory import MemoryTransport
from altlas.transport.memory_registry import MemoryRunRegistry
from altlas.transport.ports import Commit, Delivery, JobId, JobMessage, JobQueue, JobSource, RunRegistry
from altlas.transport.redis_client import connect, connect_blocking
from altlas.transport.redis_source import RedisJobSource
from altlas.transport.redis_streams import RedisJobQueue
from altlas.transport.registry import RedisRunRegistry

Scenario = Callable[[JobQueue], Awaitable[None]]
MAX_DELIVERIES = 3
_RUN_NUMBERS = itertools.count(1)


class Bench(Protocol):
    """An adapter; every queue and source that it gives is of one run."""

    run_id: str
    lease_s: float

    def run(self, scenario: Scenario) -> None:
        """Run a scenario with a queue that is open and does not lead."""

    def another_queue(self) -> JobQueue:
        """Return a second coordinator's end, within a scenario."""

    def source(self) -> JobSource:
        """Return a worker's end."""

    def registry(self) -> RunRegistry:
        """Return the registry of runs, within a scenario; empty at its beginning."""

    def let_leases_run_out(self) -> None:
        """Let the workers' leases and the coordinator's run out."""

    def lose_everything(self) -> None:
        """Lose all data, as a server does that keeps none."""


# By the size of its window, in jobs.
MakeBench = Callable[[int], contextlib.AbstractContextManager[Bench]]


class MemoryBench:
    """The memory twin."""

    run_id = "memory"

    def __init__(self, *, lease_s: float = 10.0, window_jobs: int = 10_000) -> None:
        self.lease_s = lease_s
        self.now = 0.0
        self.transport = MemoryTransport(
            lease_s=lease_s, max_deliveries=MAX_DELIVERIES, window_jobs=window_jobs, clock=lambda: self.now
        )
        self.runs = MemoryRunRegistry()

    def run(self, scenario: Scenario) -> None:
        async def main() -> None:
            queue = self.another_queue()
            await queue.open(task_digest="d", task_text="text")
            await scenario(queue)

        asyncio.run(main())

    def another_queue(self) -> JobQueue:
        return self.transport.queue(self.run_id)

    def source(self) -> JobSource:
        return self.transport.source()

    def registry(self) -> RunRegistry:
        return self.runs

    def let_leases_run_out(self) -> None:
        self.now += self.lease_s + 1

    def lose_everything(self) -> None:
        self.transport.runs.clear()
        self.transport.tasks.clear()


class RedisBench:
    """A real server. It tells time by itself: leases are short and are waited out."""

    def __init__(self, url: str, *, lease_s: float = 0.5, window_jobs: int = 10_000) -> None:
        self.run_id = f"contract{next(_RUN_NUMBERS)}"
        self.lease_s = lease_s
        self._url = url
        self._window_jobs = window_jobs
        self._cleanup = contextlib.ExitStack()
        self._client: redis.asyncio.Redis | None = None

    def run(self, scenario: Scenario) -> None:
        async def main() -> None:
            async with await connect(self._url) as self._client:
                queue = self.another_queue()
                await queue.open(task_digest="d", task_text="text")
                await scenario(queue)

        try:
            asyncio.run(main())
        finally:
            self.lose_everything()

    def another_queue(self) -> JobQueue:
        return RedisJobQueue(
            self._async_client,
            self.run_id,
            lease_s=self.lease_s,
            max_deliveries=MAX_DELIVERIES,
            window_jobs=self._window_jobs,
        )

    @property
    def _async_client(self) -> redis.asyncio.Redis:
        assert self._client is not None, "only within a scenario"
        return self._client

    def source(self) -> JobSource:
        return RedisJobSource(self._cleanup.enter_context(connect_blocking(self._url)))

    def registry(self) -> RunRegistry:
        return RedisRunRegistry(self._async_client)

    def let_leases_run_out(self) -> None:
        time.sleep(self.lease_s * 1.2)

    def lose_everything(self) -> None:
        with connect_blocking(self._url) as client:
            client.flushall()

    def close(self) -> None:
        self._cleanup.close()


@contextlib.contextmanager
def redis_bench(url: str, *, lease_s: float = 0.5, window_jobs: int = 10_000) -> Iterator[RedisBench]:
    """Give a bench on the server, which is its alone."""
    bench = RedisBench(url, lease_s=lease_s, window_jobs=window_jobs)
    try:
        yield bench
    finally:
        bench.close()


def jobs(count: int, update: int = 0) -> list[JobMessage]:
    """Return so many jobs of an update."""
    return [JobMessage(JobId(f"u{update}.s{number}"), f"payload {number}".encode()) for number in range(count)]


def ids(messages: list[JobMessage]) -> list[JobId]:
    """Return their ids."""
    return [message.job_id for message in messages]


def take(source: JobSource, count: int) -> list[Delivery]:
    """Take exactly `count` jobs, in as many calls as it takes."""
    taken: list[Delivery] = []
    while len(taken) < count:
        more = source.take(count=count - len(taken), block_s=5.0)
        assert more, "no job within 5 s"
        taken += more
    return taken


def result(delivery: Delivery) -> bytes:
    """Return what `commit` commits."""
    return b"result of " + delivery.payload


def commit(source: JobSource, delivery: Delivery, payload: bytes | None = None) -> bool:
    """Commit a result; False when another was first."""
    return source.commit(Commit(delivery=delivery, payload=result(delivery) if payload is None else payload))
