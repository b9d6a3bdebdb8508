"""The worker's end of the work queue on Redis Streams, over all open runs.

Every change of a job's state is one Lua script, so that no crash leaves it between two states. Waiting is done by the
server (XREADGROUP BLOCK), in slices; expired leases of other workers are looked for in between.
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

from altlas.errors import TransientError
from altlas.transport.keys import GROUP, OPEN_RUNS, RunKeys, task_key
from altlas.transport.ports import Commit, Delivery, JobId
from altlas.transport.redis_client import address, own_errors
from altlas.transport.scripts import script_text

_REFRESH_S = 0.5
_NO_RUN_PAUSE_S = 0.1


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
            self._scan_at = now + min([1.0, *(run.lease_s / 4 for run in self._runs.values())])
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
