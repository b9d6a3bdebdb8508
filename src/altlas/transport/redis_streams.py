"""The work queue on Redis Streams: `RedisJobQueue` for the coordinator, `RedisJobSource` for a worker.

Every change of a job's state is one Lua script, so that no crash leaves it between two states. The stream holds work
that is waiting or in hand and nothing else; a job's entry is deleted in the step that stores its result. Waiting is
done by the server (BLMPOP, XREADGROUP BLOCK), in slices, so that a lost wake costs a second and never a result.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio

from altlas.errors import TransientError
from altlas.transport.keys import GROUP, OPEN_RUNS, RunKeys, task_key
from altlas.transport.ports import (
    Commit,
    DeadJobError,
    Delivery,
    JobId,
    JobMessage,
    QueueStats,
    RunLostError,
    WorkerInfo,
)
from altlas.transport.redis_client import address, own_errors
from altlas.transport.scripts import script_text

_SLICE_S = 1.0
_REFRESH_S = 0.5
_NO_RUN_PAUSE_S = 0.1
# What a dead job leaves in the list of finished ones, where a committed one leaves its id.
_DEAD = b""


class RedisJobQueue:
    """The coordinator's end for one run. The client stays the caller's to close."""

    def __init__(
        self, client: redis.asyncio.Redis, run_id: str, *, lease_s: float = 15.0, max_deliveries: int = 3
    ) -> None:
        self._client = client
        self._keys = RunKeys(run_id)
        self._terms: dict[Any, Any] = {"lease_s": repr(lease_s), "max_deliveries": str(max_deliveries)}
        self._max_deliveries = max_deliveries
        self._address = address(client)
        self._submit = client.register_script(script_text("submit"))

    async def open(self, *, task_digest: str, task_text: str) -> None:
        """See `JobQueue.open`. The lease and the number of deliveries travel with the run to its workers."""
        with own_errors(self._address):
            try:
                await self._client.xgroup_create(self._keys.jobs, GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.set(task_key(task_digest), task_text.encode())
                pipe.hset(self._keys.meta, mapping={"task_digest": task_digest, **self._terms})
                pipe.sadd(OPEN_RUNS, self._keys.run_id)
                await pipe.execute()

    async def submit(self, update: int, jobs: Sequence[JobMessage]) -> None:
        """See `JobQueue.submit`."""
        if not jobs:
            return
        keys = self._keys
        args: list[Any] = [update]
        for job in jobs:
            args += (job.job_id, job.payload)
        with own_errors(self._address):
            added = await self._submit(keys=[keys.jobs, keys.open, keys.done(update), keys.dead(update)], args=args)
        if added < 0:
            raise RunLostError(self._gone())

    async def collect(self, update: int, job_ids: Sequence[JobId], *, timeout_s: float) -> Mapping[JobId, bytes]:
        """See `JobQueue.collect`."""
        deadline = time.monotonic() + timeout_s
        found: dict[JobId, bytes] = {}
        missing = list(dict.fromkeys(job_ids))
        with own_errors(self._address):
            while True:
                found |= await self._finished(update, missing)
                missing = [job_id for job_id in missing if job_id not in found]
                if not missing:
                    return {job_id: found[job_id] for job_id in job_ids}
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise TransientError(await self._late(update, missing, timeout_s))
                await self._wait(update, missing, deadline)

    async def _finished(self, update: int, job_ids: Sequence[JobId]) -> Mapping[JobId, bytes]:
        if not job_ids:
            return {}
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(self._keys.done(update), list(job_ids))
            pipe.hmget(self._keys.dead(update), list(job_ids))
            pipe.exists(self._keys.jobs)
            done, dead, is_open = await pipe.execute()
        if not is_open:
            raise RunLostError(self._gone())
        errors = {job_id: error.decode() for job_id, error in zip(job_ids, dead, strict=True) if error is not None}
        if errors:
            raise DeadJobError(self._keys.run_id, errors, self._max_deliveries)
        return {job_id: result for job_id, result in zip(job_ids, done, strict=True) if result is not None}

    def _gone(self) -> str:
        return (
            f"run {self._keys.run_id} is not open at Redis {self._address}: it was closed, or Redis has lost its data. "
            "Open it and submit the update's jobs again."
        )

    async def _wait(self, update: int, missing: Sequence[JobId], deadline: float) -> None:
        """Sleep until the missing jobs seem to be committed, one is dead, or nothing has come for a slice."""
        awaited = {job_id.encode() for job_id in missing}
        while awaited and (remaining := deadline - time.monotonic()) > 0:
            # Redis reads a timeout of 0 as for ever.
            slice_s = max(min(remaining, _SLICE_S), 0.01)
            popped: Any = await self._client.blmpop(
                slice_s, 1, self._keys.results(update), direction="LEFT", count=len(awaited)
            )
            if popped is None or _DEAD in popped[1]:
                return
            awaited.difference_update(popped[1])

    async def _late(self, update: int, missing: Sequence[JobId], timeout_s: float) -> str:
        stats = await self.stats()
        workers = await self.workers()
        return (
            f"run {self._keys.run_id}, update {update}: {len(missing)} jobs (first {missing[0]}) had no result within "
            f"{timeout_s:g} s; {stats.waiting} waiting, {stats.in_hand} in hand, {len(workers)} evaluators known at "
            f"Redis {self._address}. Check that an evaluator runs against this Redis."
        )

    async def forget(self, update: int) -> None:
        """See `JobQueue.forget`."""
        keys = self._keys
        with own_errors(self._address):
            await self._client.unlink(keys.done(update), keys.dead(update), keys.results(update))

    async def known_scores(self, fingerprints: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """See `JobQueue.known_scores`."""
        if not fingerprints:
            return {}
        with own_errors(self._address):
            scores: Sequence[Any] = await self._client.hmget(self._keys.scores, list(fingerprints))
        return {key: score for key, score in zip(fingerprints, scores, strict=True) if score is not None}

    async def stats(self) -> QueueStats:
        """See `JobQueue.stats`."""
        names = ("committed", "duplicates", "reclaimed", "dead")
        with own_errors(self._address):
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.xlen(self._keys.jobs)
                pipe.xpending(self._keys.jobs, GROUP)
                pipe.hmget(self._keys.meta, names)
                try:
                    length, pending, counters = await pipe.execute()
                except redis.ResponseError as error:
                    if "NOGROUP" not in str(error):
                        raise
                    length, pending = 0, {"pending": 0}
                    counters = await self._client.hmget(self._keys.meta, names)
        in_hand = pending["pending"]
        numbers = {name: int(value or 0) for name, value in zip(names, counters, strict=True)}
        return QueueStats(waiting=length - in_hand, in_hand=in_hand, **numbers)

    async def workers(self) -> Sequence[WorkerInfo]:
        """See `JobQueue.workers`."""
        with own_errors(self._address):
            try:
                consumers = await self._client.xinfo_consumers(self._keys.jobs, GROUP)
            except redis.ResponseError as error:
                if "NOGROUP" in str(error) or "no such key" in str(error):
                    return []
                raise
        return [
            WorkerInfo(
                name=item["name"].decode(),
                run_id=self._keys.run_id,
                jobs_pending=item["pending"],
                idle_s=item["idle"] / 1000,
            )
            for item in consumers
        ]

    async def close(self) -> None:
        """See `JobQueue.close`. Drops everything of the run but its scores and counters."""
        kept = {self._keys.scores.encode(), self._keys.meta.encode()}
        with own_errors(self._address):
            await self._client.srem(OPEN_RUNS, self._keys.run_id)
            keys = [key async for key in self._client.scan_iter(match=self._keys.prefix + "*", count=1000)]
            if gone := [key for key in keys if key not in kept]:
                await self._client.unlink(*gone)


def worker_name() -> str:
    """Return a name for this incarnation of this process: host, pid, nonce. No two workers ever share one."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class _OpenRun:
    keys: RunKeys
    lease_s: float
    max_deliveries: int


class RedisJobSource:
    """A worker's end over all open runs, which it finds by itself. The client stays the caller's to close."""

    def __init__(self, client: redis.Redis, *, worker: str | None = None) -> None:
        self.worker = worker or worker_name()
        self._client = client
        self._address = address(client)
        names = ("commit", "fail", "release", "renew", "take_over", "leave")
        self._scripts = {name: client.register_script(script_text(name)) for name in names}
        self._runs: dict[str, _OpenRun] = {}
        self._joined: set[str] = set()
        self._refresh_at = 0.0
        self._scan_at = 0.0
        self._closed = threading.Event()

    def take(self, *, count: int, block_s: float) -> Sequence[Delivery]:
        """See `JobSource.take`. Expired leases are looked for every quarter of a lease, once a second at least."""
        deadline = time.monotonic() + block_s
        with own_errors(self._address):
            while True:
                self._refresh()
                remaining = deadline - time.monotonic()
                taken = self._take_over(count)
                # A single run is waited on at once; several are asked in turn first, so that each gets its share.
                if not taken and (len(self._runs) > 1 or remaining <= 0):
                    taken = self._take_waiting(count)
                if not taken and remaining > 0:
                    taken = self._block(count, min(remaining, _REFRESH_S))
                if taken or remaining <= 0:
                    return taken

    def _refresh(self) -> None:
        """Learn which runs are open, and turn their order so that each is first in its turn."""
        now = time.monotonic()
        if now >= self._refresh_at or not self._runs:
            self._refresh_at = now + _REFRESH_S
            names: set[Any] = self._client.smembers(OPEN_RUNS)
            run_ids = sorted(name.decode() for name in names)
            self._runs = {run_id: self._runs.get(run_id) or self._terms(run_id) for run_id in run_ids}
        elif len(self._runs) > 1:
            first = next(iter(self._runs))
            self._runs[first] = self._runs.pop(first)

    def _terms(self, run_id: str) -> _OpenRun:
        keys = RunKeys(run_id)
        lease_s, max_deliveries = self._client.hmget(keys.meta, ["lease_s", "max_deliveries"])
        return _OpenRun(keys, float(lease_s or 15.0), int(max_deliveries or 3))

    def _take_over(self, count: int) -> list[Delivery]:
        now = time.monotonic()
        if now < self._scan_at or not self._runs:
            return []
        taken: list[Delivery] = []
        for run in list(self._runs.values()):
            if len(taken) < count:
                taken += self._take_expired(run, count - len(taken))
        if len(taken) < count:
            self._scan_at = now + min(1.0, *(run.lease_s / 4 for run in self._runs.values()))
        return taken

    def _take_expired(self, run: _OpenRun, count: int) -> list[Delivery]:
        keys = run.keys
        try:
            rows = self._scripts["take_over"](
                keys=[keys.jobs, keys.open, keys.letters, keys.meta, keys.dead(""), keys.results("")],
                args=[GROUP, self.worker, int(run.lease_s * 1000), run.max_deliveries, count],
            )
        except redis.ResponseError as error:
            self._withdraw(run, error)
            return []
        self._joined.add(keys.run_id)
        return [
            _delivery(run, entry, job, update, payload, deliveries) for entry, job, update, payload, deliveries in rows
        ]

    def _take_waiting(self, count: int) -> list[Delivery]:
        taken: list[Delivery] = []
        for run in list(self._runs.values()):
            if len(taken) < count:
                taken += self._read([run], count - len(taken), None)
        return taken

    def _block(self, count: int, timeout_s: float) -> list[Delivery]:
        """Wait on all runs at once. COUNT is per stream, so what comes beyond `count` is given back."""
        runs = list(self._runs.values())
        if not runs:
            self._closed.wait(min(timeout_s, _NO_RUN_PAUSE_S))
            return []
        taken = self._read(runs, max(1, count // len(runs)), max(1, int(timeout_s * 1000)))
        self.release(taken[count:])
        return taken[:count]

    def _read(self, runs: Sequence[_OpenRun], count: int, block_ms: int | None) -> list[Delivery]:
        streams: dict[Any, Any] = {run.keys.jobs: ">" for run in runs}
        try:
            reply = self._client.xreadgroup(GROUP, self.worker, streams, count=count, block=block_ms)
        except redis.ResponseError as error:
            for run in runs:
                self._withdraw(run, error)
            return []
        self._joined.update(run.keys.run_id for run in runs)
        by_stream = {run.keys.jobs.encode(): run for run in runs}
        return [
            _read_delivery(by_stream[stream], entry, fields)
            for stream, entries in _by_stream(reply)
            for entry, fields in entries
        ]

    def _withdraw(self, run: _OpenRun, error: redis.ResponseError) -> None:
        """A run that was closed under our hands leaves an error, once; any other error is not ours to swallow."""
        if not any(word in str(error) for word in ("NOGROUP", "UNBLOCKED", "no such key")):
            raise error
        self._runs.pop(run.keys.run_id, None)

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """See `JobSource.renew`. A lease that another worker has taken over stays with it."""
        for run_id, group in _by_run(deliveries).items():
            entries = [_split(delivery)[1] for delivery in group]
            with own_errors(self._address):
                self._scripts["renew"](keys=[RunKeys(run_id).jobs], args=[GROUP, self.worker, *entries])

    def commit(self, commit: Commit) -> bool:
        """See `JobSource.commit`.

        When the connection broke after the server had committed, the repeat reports False: the result is stored once
        all the same.
        """
        delivery = commit.delivery
        keys = RunKeys(delivery.run_id)
        update, entry = _split(delivery)
        args: list[Any] = [GROUP, entry, delivery.job_id, commit.payload]
        for fingerprint, score in commit.scores.items():
            args += (fingerprint, score)
        with own_errors(self._address):
            first = self._scripts["commit"](
                keys=[keys.jobs, keys.open, keys.done(update), keys.results(update), keys.scores, keys.meta], args=args
            )
        return bool(first)

    def fail(self, delivery: Delivery, error: str) -> None:
        """See `JobSource.fail`."""
        keys = RunKeys(delivery.run_id)
        update, entry = _split(delivery)
        with own_errors(self._address):
            run = self._runs.get(delivery.run_id) or self._terms(delivery.run_id)
            self._scripts["fail"](
                keys=[keys.jobs, keys.open, keys.dead(update), keys.results(update), keys.letters, keys.meta],
                args=[GROUP, self.worker, entry, delivery.deliveries, run.max_deliveries, error],
            )

    def task(self, digest: str) -> str:
        """See `JobSource.task`."""
        with own_errors(self._address):
            text: Any = self._client.get(task_key(digest))
        if text is None:
            raise TransientError(
                f"no task {digest} at Redis {self._address}: its run's coordinator stores it when it opens the run"
            )
        return str(text.decode())

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """See `JobSource.release`."""
        for run_id, group in _by_run(deliveries).items():
            keys = RunKeys(run_id)
            args: list[Any] = [GROUP, self.worker]
            for delivery in group:
                args += (_split(delivery)[1], delivery.deliveries - 1)
            with own_errors(self._address):
                self._scripts["release"](keys=[keys.jobs, keys.open], args=args)

    def close(self) -> None:
        """See `JobSource.close`. With jobs in hand the name stays in the group until their leases have run out."""
        self._closed.set()
        with own_errors(self._address):
            for run_id in sorted(self._joined):
                self._scripts["leave"](keys=[RunKeys(run_id).jobs], args=[GROUP, self.worker])


def _delivery(run: _OpenRun, entry: bytes, job: bytes, update: bytes, payload: bytes, deliveries: int) -> Delivery:
    return Delivery(
        run_id=run.keys.run_id,
        job_id=JobId(job.decode()),
        payload=payload,
        entry_id=f"{update.decode()}/{entry.decode()}",
        deliveries=deliveries,
        lease_s=run.lease_s,
    )


def _read_delivery(run: _OpenRun, entry: bytes, fields: Mapping[bytes, bytes]) -> Delivery:
    return _delivery(run, entry, fields[b"job"], fields[b"update"], fields[b"payload"], int(fields[b"deliveries"]) + 1)


def _by_stream(reply: Any) -> Iterable[tuple[bytes, Any]]:
    return [] if not reply else [(stream, entries) for stream, entries in reply]


def _split(delivery: Delivery) -> tuple[str, str]:
    """Return update and stream entry of a delivery's handle."""
    update, _, entry = delivery.entry_id.partition("/")
    return update, entry


def _by_run(deliveries: Sequence[Delivery]) -> Mapping[str, list[Delivery]]:
    groups: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        groups.setdefault(delivery.run_id, []).append(delivery)
    return groups
