"""Three ways to hand jobs to workers through Redis, for `queue_drill`.

- lua_commit: ours. Leases, and first result, ack and delete in one Lua script; all is put up again after each kill.
- list_brpop: LPUSH and BRPOP, then the result.
- ack_on_receipt: a stream and its group, the entries acknowledged as they are read, then the results.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Protocol

import redis
import redis.asyncio

from altlas.transport.keys import RunKeys
from altlas.transport.ports import Commit, JobId, JobMessage
from altlas.transport.redis_client import connect_blocking
from altlas.transport.redis_source import RedisJobSource
from altlas.transport.redis_streams import RedisJobQueue

_PREFETCH = 4
_GROUP = "workers"


@dataclass(frozen=True, slots=True)
class Counted:
    """What has a result in the end: a pair of payload and result for each job, and how many results count in all."""

    results: Sequence[tuple[bytes, bytes]]
    accepted: int
    taken_over: int = 0


class Discipline(Protocol):
    """One way to hand jobs to workers; `name` is for its keys in Redis."""

    def __init__(self, client: redis.asyncio.Redis, name: str) -> None: ...

    async def put_up(self, payloads: Sequence[bytes]) -> None:
        """Makes the jobs available."""

    async def put_up_again(self, payloads: Sequence[bytes]) -> None:
        """Does what a coordinator can do when it has seen a worker die."""

    async def finished(self) -> int:
        """Returns the number of results so far."""

    async def count(self) -> Counted:
        """Returns the results."""

    async def drop(self) -> None:
        """Removes its keys."""

    @staticmethod
    def work(client: redis.Redis, name: str) -> NoReturn:
        """Works as a worker process until it is killed."""


def compute(payload: bytes) -> bytes:
    """Return a job's result after some milliseconds, so that most kills hit a job in hand."""
    return hashlib.pbkdf2_hmac("sha256", payload, b"", 5000)


class LuaCommit:
    """The queue of AltLAS."""

    def __init__(self, client: redis.asyncio.Redis, name: str) -> None:
        self._client = client
        self._done = RunKeys(name).done(0)
        self._queue = RedisJobQueue(client, name, lease_s=0.5, max_deliveries=10)

    async def put_up(self, payloads: Sequence[bytes]) -> None:
        """See `Discipline.put_up`."""
        await self._queue.open(task_digest="drill", task_text="")
        await self.put_up_again(payloads)

    async def put_up_again(self, payloads: Sequence[bytes]) -> None:
        """See `Discipline.put_up_again`. A job's id is its payload."""
        await self._queue.submit(0, [JobMessage(JobId(payload.decode()), payload) for payload in payloads])

    async def finished(self) -> int:
        """See `Discipline.finished`."""
        return (await self._queue.stats()).committed

    async def count(self) -> Counted:
        """See `Discipline.count`."""
        done: Any = await self._client.hgetall(self._done)
        stats = await self._queue.stats()
        return Counted(list(done.items()), stats.committed, stats.reclaimed)

    async def drop(self) -> None:
        """See `Discipline.drop`."""
        await self._queue.close()

    @staticmethod
    def work(client: redis.Redis, name: str) -> NoReturn:
        """See `Discipline.work`."""
        source = RedisJobSource(client)
        while True:
            for delivery in source.take(count=_PREFETCH, block_s=1.0):
                source.commit(Commit(delivery=delivery, payload=compute(delivery.payload)))


class _Plain:
    """What the two usual disciplines share: results are pushed to a list."""

    def __init__(self, client: redis.asyncio.Redis, name: str) -> None:
        self.client = client
        self.jobs, self.results = f"{name}:jobs", f"{name}:results"

    async def put_up_again(self, payloads: Sequence[bytes]) -> None:
        """Nothing: who has the jobs is not known, and all of them again would double most."""

    async def finished(self) -> int:
        """See `Discipline.finished`."""
        return int(await self.client.llen(self.results))

    async def count(self) -> Counted:
        """See `Discipline.count`."""
        rows: Any = await self.client.lrange(self.results, 0, -1)
        results = {row.partition(b" ")[0]: bytes.fromhex(row.partition(b" ")[2].decode()) for row in rows}
        return Counted(list(results.items()), len(rows))

    async def drop(self) -> None:
        """See `Discipline.drop`."""
        await self.client.unlink(self.jobs, self.results)


def _row(payload: bytes) -> bytes:
    return payload + b" " + compute(payload).hex().encode()


class ListBrpop(_Plain):
    """A list: a job is gone from Redis once a worker has it."""

    async def put_up(self, payloads: Sequence[bytes]) -> None:
        """See `Discipline.put_up`."""
        await self.client.lpush(self.jobs, *payloads)

    @staticmethod
    def work(client: redis.Redis, name: str) -> NoReturn:
        """See `Discipline.work`."""
        while True:
            popped: Any = client.brpop([f"{name}:jobs"], timeout=1)
            if popped is not None:
                client.rpush(f"{name}:results", _row(popped[1]))


class AckOnReceipt(_Plain):
    """A stream: a job is acknowledged, and so forgotten, once a worker has it."""

    async def put_up(self, payloads: Sequence[bytes]) -> None:
        """See `Discipline.put_up`."""
        await self.client.xgroup_create(self.jobs, _GROUP, id="0", mkstream=True)
        async with self.client.pipeline(transaction=False) as pipe:
            for payload in payloads:
                pipe.xadd(self.jobs, {b"payload": payload})
            await pipe.execute()

    @staticmethod
    def work(client: redis.Redis, name: str) -> NoReturn:
        """See `Discipline.work`."""
        jobs = f"{name}:jobs"
        while True:
            reply: Any = client.xreadgroup(_GROUP, str(os.getpid()), {jobs: ">"}, count=_PREFETCH, block=1000)
            entries = reply[0][1] if reply else []
            if entries:
                client.xack(jobs, _GROUP, *[entry for entry, _ in entries])
            for _, fields in entries:
                client.rpush(f"{name}:results", _row(fields[b"payload"]))


DISCIPLINES: dict[str, type[Discipline]] = {
    "lua_commit": LuaCommit,
    "list_brpop": ListBrpop,
    "ack_on_receipt": AckOnReceipt,
}


def work(discipline: str, url: str, name: str, ready: Connection) -> NoReturn:
    """Be a worker process until killed; says so through `ready` once it is connected."""
    with connect_blocking(url) as client:
        ready.send_bytes(b"ready")
        DISCIPLINES[discipline].work(client, name)
