"""The work queue on Redis Streams, the coordinator's end; `redis_source` is the worker's.

Every change of a job's state is one Lua script, so that no crash leaves it between two states. The stream holds work
that is waiting or in hand and nothing else; a job's entry is deleted in the step that stores its result. Waiting for
results is done by the server (BLMPOP), in slices, so that a lost wake costs a second and never a result.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio

from altlas.errors import TransientError
from altlas.transport import metrics
from altlas.transport.keys import GROUP, OPEN_RUNS, RunKeys, task_key
from altlas.transport.ports import (
    DeadJobError,
    JobId,
    JobMessage,
    LeaseHeldError,
    QueueStats,
    RunLostError,
    WorkerInfo,
    fenced_error,
)
from altlas.transport.redis_client import address, own_errors
from altlas.transport.redis_source import RedisJobSource, worker_name
from altlas.transport.scripts import script_text

__all__ = ["RedisJobQueue", "RedisJobSource", "worker_name"]

log = logging.getLogger(__name__)

_SLICE_S = 1.0
# What a dead job leaves in the list of finished ones, where a committed one leaves its id.
_DEAD = b""
_BATCH = 1000
_LEAST_PAUSE_S, _MOST_PAUSE_S = 0.005, 0.05
_REPORT_WAIT_S = 5.0
_FENCED = "FENCED"
_SCRIPTS = ("lead", "keep_lead", "yield_lead", "open", "submit", "withdraw", "drop")


@dataclass(frozen=True, slots=True)
class _Admission:
    """What `submit.lua` answers: jobs dealt with, jobs of the run in the window, dead jobs of the update."""

    dealt: int
    held: int
    dead: int


class RedisJobQueue:
    """The coordinator's end for one run. The client stays the caller's to close."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        run_id: str,
        *,
        lease_s: float = 15.0,
        max_deliveries: int = 3,
        window_jobs: int = 10_000,
    ) -> None:
        self._client = client
        self._keys = RunKeys(run_id)
        self._lease_ms = max(1, int(lease_s * 1000))
        self._terms: dict[str, Any] = {"lease_s": repr(lease_s), "max_deliveries": str(max_deliveries)}
        self._max_deliveries = max_deliveries
        self._window_jobs = window_jobs
        self._address = address(client)
        self._scripts = {name: client.register_script(script_text(name)) for name in _SCRIPTS}
        self._fence = 0
        self._owner = ""

    async def lead(self, *, owner: str, above: int = 0) -> int:
        """See `JobQueue.lead`."""
        with own_errors(self._address):
            reply = await self._scripts["lead"](
                keys=[self._keys.lease, self._keys.meta], args=[owner, self._lease_ms, above]
            )
        if not reply[0]:
            raise LeaseHeldError(self._keys.run_id, holder=reply[1].decode(), remaining_s=reply[2] / 1000)
        self._fence, self._owner = int(reply[0]), owner
        return self._fence

    async def keep_lead(self) -> None:
        """See `JobQueue.keep_lead`."""
        if not self._owner:
            raise fenced_error(self._keys.run_id, fence=0, leads=0, holder="")
        args: list[Any] = [self._fence, self._owner, self._lease_ms]
        with self._fenced_errors():
            await self._scripts["keep_lead"](keys=[self._keys.lease, self._keys.meta], args=args)

    async def yield_lead(self) -> None:
        """See `JobQueue.yield_lead`."""
        owner, self._owner = self._owner, ""
        if owner:
            with own_errors(self._address):
                await self._scripts["yield_lead"](keys=[self._keys.lease, self._keys.meta], args=[self._fence, owner])

    @contextlib.contextmanager
    def _fenced_errors(self) -> Iterator[None]:
        """Translate what the scripts and the client library report."""
        with own_errors(self._address):
            try:
                yield
            except redis.ResponseError as error:
                reply, _, rest = str(error).partition(" ")
                if reply != _FENCED:
                    raise
                leads, _, holder = rest.partition(" ")
                raise fenced_error(
                    self._keys.run_id, fence=self._fence, leads=int(leads), holder=holder.strip()
                ) from error

    async def open(self, *, task_digest: str, task_text: str) -> None:
        """See `JobQueue.open`. The lease and the number of deliveries travel with the run to its workers."""
        keys = self._keys
        args: list[Any] = [GROUP, keys.run_id, task_text.encode(), self._fence, self._owner, self._lease_ms]
        for name, value in {"task_digest": task_digest, **self._terms}.items():
            args += (name, value)
        with self._fenced_errors():
            await self._scripts["open"](
                keys=[keys.jobs, keys.meta, keys.lease, OPEN_RUNS, task_key(task_digest)], args=args
            )

    async def submit(self, update: int, jobs: Sequence[JobMessage]) -> None:
        """See `JobQueue.submit`."""
        position, size = 0, _BATCH
        while position < len(jobs):
            batch = jobs[position : position + size]
            admission = await self._put_up(update, batch)
            position += admission.dealt
            if admission.dealt == len(batch):
                size = min(size * 2, _BATCH)
            else:
                # What is sent and does not fit travels for nothing, so the next batch is as large as the room.
                size = await self._wait_for_room(update, [job.job_id for job in jobs[:position]], of=len(jobs))

    async def _put_up(self, update: int, jobs: Sequence[JobMessage]) -> _Admission:
        keys = self._keys
        args: list[Any] = [update, self._fence, self._window_jobs]
        for job in jobs:
            args += (job.job_id, job.payload)
        with self._fenced_errors():
            reply = await self._scripts["submit"](
                keys=[keys.jobs, keys.open, keys.done(update), keys.dead(update), keys.meta, keys.lease], args=args
            )
        if reply[0] < 0:
            raise RunLostError(self._gone())
        admission = _Admission(dealt=reply[0], held=reply[1], dead=reply[2])
        metrics.WINDOW_JOBS.set(admission.held)
        return admission

    async def _wait_for_room(self, update: int, up: Sequence[JobId], *, of: int) -> int:
        """Return for how many jobs there is room, once there is; `up` are the jobs of this call that are up."""
        began = time.monotonic()
        pause_s, report_at = _LEAST_PAUSE_S, began + _REPORT_WAIT_S
        try:
            while True:
                await asyncio.sleep(pause_s)
                admission = await self._put_up(update, [])
                if admission.dead:
                    await self._raise_if_dead(update, up)
                if (room := self._window_jobs - admission.held) > 0:
                    break
                pause_s = min(pause_s * 1.5, _MOST_PAUSE_S)
                if time.monotonic() > report_at:
                    report_at = math.inf
                    log.warning(
                        "run %s, update %d: waiting for room: %d of %d jobs are up and %d may wait or be in hand. "
                        "Check that an evaluator runs.",
                        *(self._keys.run_id, update, len(up), of, self._window_jobs),
                    )
        finally:
            waited_s = time.monotonic() - began
            metrics.ADMISSION_WAIT.inc(waited_s)
        if report_at == math.inf:
            log.warning("run %s, update %d: resumed after %.1f s", self._keys.run_id, update, waited_s)
        return room

    async def _raise_if_dead(self, update: int, job_ids: Sequence[JobId]) -> None:
        with own_errors(self._address):
            dead: Mapping[Any, Any] = await self._client.hgetall(self._keys.dead(update))
        errors = {job_id: dead[job_id.encode()].decode() for job_id in job_ids if job_id.encode() in dead}
        if errors:
            raise DeadJobError(self._keys.run_id, errors, self._max_deliveries)

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
        await self._drop([keys.done(update), keys.dead(update), keys.results(update)])

    async def _drop(self, keys: Sequence[str | bytes]) -> None:
        with self._fenced_errors():
            await self._scripts["drop"](keys=[self._keys.meta, self._keys.lease, *keys], args=[self._fence])

    async def known_scores(self, fingerprints: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """See `JobQueue.known_scores`."""
        if not fingerprints:
            return {}
        with own_errors(self._address):
            scores: Sequence[Any] = await self._client.hmget(self._keys.scores, list(fingerprints))
        return {key: score for key, score in zip(fingerprints, scores, strict=True) if score is not None}

    async def stats(self) -> QueueStats:
        """See `JobQueue.stats`."""
        names = ("issued", "committed", "duplicates", "reclaimed", "dead")
        with own_errors(self._address):
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.xlen(self._keys.jobs)
                pipe.xrange(self._keys.jobs, count=1)
                pipe.time()
                pipe.hmget(self._keys.meta, names)
                pipe.xpending(self._keys.jobs, GROUP)
                replies: list[Any] = await pipe.execute(raise_on_error=False)
            for reply in replies:
                # A run that is not open has no group.
                if isinstance(reply, Exception) and "NOGROUP" not in str(reply):
                    raise reply
        length, oldest, now, counters, pending = replies
        in_hand = 0 if isinstance(pending, Exception) else pending["pending"]
        numbers = {name: int(value or 0) for name, value in zip(names, counters, strict=True)}
        return QueueStats(
            waiting=length - in_hand, in_hand=in_hand, oldest_s=_age_s(oldest[0][0], now) if oldest else 0.0, **numbers
        )

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
        """See `JobQueue.close`. Drops everything of the run but its scores, its counters and its fence."""
        keys = self._keys
        with self._fenced_errors():
            await self._scripts["withdraw"](
                keys=[keys.jobs, keys.open, keys.meta, keys.lease, OPEN_RUNS], args=[keys.run_id, self._fence]
            )
        kept = {key.encode() for key in (keys.scores, keys.meta, keys.lease)}
        with own_errors(self._address):
            found = [key async for key in self._client.scan_iter(match=keys.prefix + "*", count=1000)]
        gone = [key for key in found if key not in kept]
        for start in range(0, len(gone), _BATCH):
            await self._drop(gone[start : start + _BATCH])
        # Last, so that no other coordinator begins while this one still drops.
        await self.yield_lead()


def _age_s(entry: bytes, now: tuple[int, int]) -> float:
    """Return how long ago the server made a stream entry, whose id begins with the milliseconds of its clock."""
    seconds, microseconds = now
    return max(0.0, seconds + microseconds / 1e6 - int(entry.partition(b"-")[0]) / 1000)
