"""The work queue in memory: the twin of `redis_streams`, for tests and for runs within one process.

One lock guards everything; a job is in exactly one of waiting, in hand, done and dead. Time comes from the clock that
is handed in, so that tests decide when a lease has run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from altlas.errors import TransientError
from altlas.transport import metrics
from altlas.transport.keys import RunKeys
from altlas.transport.ports import (
    Commit,
    DeadJobError,
    Delivery,
    JobId,
    JobMessage,
    LeaseHeldError,
    QueueStats,
    RunLostError,
    WorkerInfo,
    fenced_error,
)

_SLICE_S = 0.05


@dataclass(slots=True)
class _Job:
    update: int
    message: JobMessage
    put_up_at: float
    deliveries: int = 0
    error: str = ""


@dataclass(slots=True)
class _Lease:
    job: _Job
    delivery: Delivery
    worker: str
    expires_at: float


@dataclass(slots=True)
class _Run:
    is_open: bool = False
    waiting: deque[_Job] = field(default_factory=deque)
    in_hand: dict[JobId, _Lease] = field(default_factory=dict)
    done: dict[int, dict[JobId, bytes]] = field(default_factory=dict)
    dead: dict[int, dict[JobId, str]] = field(default_factory=dict)
    scores: dict[bytes, bytes] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)
    last_seen: dict[str, float] = field(default_factory=dict)
    fence: int = 0
    owner: str = ""
    led_until: float = 0.0

    def holder(self, now: float) -> str:
        """Return who has the coordinator's lease; '' when no one has."""
        return self.owner if now < self.led_until else ""

    def unfinished(self) -> set[JobId]:
        return {job.message.job_id for job in self.waiting} | set(self.in_hand)

    def withdraw(self, job_id: JobId) -> bool:
        """Take an unfinished job from wherever it is; False when there is none."""
        if self.in_hand.pop(job_id, None) is not None:
            return True
        before = len(self.waiting)
        self.waiting = deque(job for job in self.waiting if job.message.job_id != job_id)
        return len(self.waiting) < before


class MemoryTransport:
    """All runs of a process. `queue` gives a run's coordinator end, `source` a worker's end over all runs."""

    def __init__(
        self,
        *,
        lease_s: float = 15.0,
        max_deliveries: int = 3,
        window_jobs: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease_s = lease_s
        self.max_deliveries = max_deliveries
        self.window_jobs = window_jobs
        self.clock = clock
        self.runs: dict[str, _Run] = {}
        self.tasks: dict[str, str] = {}
        self.changed = threading.Condition()
        self._listeners: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count(1)

    def queue(self, run_id: str) -> MemoryJobQueue:
        """Return the coordinator's end of a run."""
        return MemoryJobQueue(self, RunKeys(run_id).run_id)

    def source(self, worker: str | None = None) -> MemoryJobSource:
        """Return an end for one worker."""
        return MemoryJobSource(self, worker or f"worker-{next(self._numbers)}")

    def number(self) -> int:
        """Return a number that no one else has got."""
        return next(self._numbers)

    def announce(self) -> None:
        """Wake everyone who waits. The caller holds `changed`."""
        self.changed.notify_all()
        for listener in self._listeners.values():
            listener()

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """Give an event that every change sets, whichever thread made it."""
        loop, event, number = asyncio.get_running_loop(), asyncio.Event(), self.number()

        def listener() -> None:
            loop.call_soon_threadsafe(event.set)

        with self.changed:
            self._listeners[number] = listener
        try:
            yield event
        finally:
            with self.changed:
                del self._listeners[number]


class MemoryJobQueue:
    """See `JobQueue`."""

    def __init__(self, transport: MemoryTransport, run_id: str) -> None:
        self._transport = transport
        self._run_id = run_id
        self._fence = 0
        self._owner = ""

    @property
    def _run(self) -> _Run:
        return self._transport.runs.setdefault(self._run_id, _Run())

    async def lead(self, *, owner: str, above: int = 0) -> int:
        """See `JobQueue.lead`."""
        with self._transport.changed:
            run, now = self._run, self._transport.clock()
            if (holder := run.holder(now)) not in ("", owner):
                raise LeaseHeldError(self._run_id, holder=holder, remaining_s=run.led_until - now)
            self._fence, self._owner = max(run.fence + 1, above + 1, time.time_ns() // 1000), owner
            self._take_lease(run)
            self._transport.announce()
            return self._fence

    async def keep_lead(self) -> None:
        """See `JobQueue.keep_lead`."""
        with self._transport.changed:
            run = self._run
            holder = run.holder(self._transport.clock())
            if not self._owner or run.fence > self._fence or holder not in ("", self._owner):
                fence = self._fence if self._owner else 0
                raise fenced_error(self._run_id, fence=fence, leads=run.fence, holder=holder)
            self._take_lease(run)

    async def yield_lead(self) -> None:
        """See `JobQueue.yield_lead`."""
        with self._transport.changed:
            run = self._run
            if self._owner and (run.owner, run.fence) == (self._owner, self._fence):
                run.led_until = 0.0
            self._owner = ""

    def _take_lease(self, run: _Run) -> None:
        run.fence, run.owner = self._fence, self._owner
        run.led_until = self._transport.clock() + self._transport.lease_s

    def _check_fence(self, run: _Run) -> None:
        if 0 < self._fence < run.fence:
            holder = run.holder(self._transport.clock())
            raise fenced_error(self._run_id, fence=self._fence, leads=run.fence, holder=holder)

    async def open(self, *, task_digest: str, task_text: str) -> None:
        """See `JobQueue.open`."""
        with self._transport.changed:
            run = self._run
            self._check_fence(run)
            self._transport.tasks[task_digest] = task_text
            run.is_open = True
            if self._owner and run.fence < self._fence:
                self._take_lease(run)
            self._transport.announce()

    async def submit(self, update: int, jobs: Sequence[JobMessage]) -> None:
        """See `JobQueue.submit`."""
        with self._transport.listening() as changed:
            position = self._put_up(update, jobs)
            while position < len(jobs):
                began = time.monotonic()
                await changed.wait()
                changed.clear()
                metrics.ADMISSION_WAIT.inc(time.monotonic() - began)
                # Dead jobs of an earlier try come back further on; those that this call has put up do not.
                self._raise_if_dead(update, [job.job_id for job in jobs[:position]])
                position += self._put_up(update, jobs[position:])

    def _put_up(self, update: int, jobs: Sequence[JobMessage]) -> int:
        """Put up what the window has room for; return how many of the jobs, from the first on, are dealt with."""
        if not jobs:
            return 0
        with self._transport.changed:
            run = self._run
            self._check_fence(run)
            self._check_open(run)
            held, done = run.unfinished(), run.done.get(update, {})
            before, dealt = len(held), 0
            for message in jobs:
                if message.job_id not in held and message.job_id not in done:
                    if len(held) >= self._transport.window_jobs:
                        break
                    held.add(message.job_id)
                    run.dead.get(update, {}).pop(message.job_id, None)
                    run.waiting.append(_Job(update, message, self._transport.clock()))
                    run.counters["issued"] += 1
                dealt += 1
            metrics.WINDOW_JOBS.set(len(held))
            # Only news: who waits for room hears it too, and would wake itself for ever.
            if len(held) > before:
                self._transport.announce()
            return dealt

    def _raise_if_dead(self, update: int, job_ids: Sequence[JobId]) -> None:
        with self._transport.changed:
            dead = self._run.dead.get(update, {})
            if errors := {job_id: dead[job_id] for job_id in job_ids if job_id in dead}:
                raise DeadJobError(self._run_id, errors, self._transport.max_deliveries)

    async def collect(self, update: int, job_ids: Sequence[JobId], *, timeout_s: float) -> Mapping[JobId, bytes]:
        """See `JobQueue.collect`."""
        with self._transport.listening() as changed:
            try:
                async with asyncio.timeout(timeout_s):
                    while (found := self._finished(update, job_ids)) is None:
                        await changed.wait()
                        changed.clear()
                    return found
            except TimeoutError as error:
                raise TransientError(
                    f"run {self._run_id}, update {update}: not every job had a result within {timeout_s:g} s. "
                    "Check that an evaluator runs."
                ) from error

    def _finished(self, update: int, job_ids: Sequence[JobId]) -> Mapping[JobId, bytes] | None:
        if not job_ids:
            return {}
        with self._transport.changed:
            self._check_open(self._run)
            self._raise_if_dead(update, job_ids)
            done = self._run.done.get(update, {})
            if any(job_id not in done for job_id in job_ids):
                return None
            return {job_id: done[job_id] for job_id in job_ids}

    def _check_open(self, run: _Run) -> None:
        if not run.is_open:
            raise RunLostError(f"run {self._run_id} is not open: open it and submit the update's jobs again")

    async def forget(self, update: int) -> None:
        """See `JobQueue.forget`."""
        with self._transport.changed:
            self._check_fence(self._run)
            self._run.done.pop(update, None)
            self._run.dead.pop(update, None)

    async def known_scores(self, fingerprints: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """See `JobQueue.known_scores`."""
        with self._transport.changed:
            scores = self._run.scores
            return {key: scores[key] for key in fingerprints if key in scores}

    async def stats(self) -> QueueStats:
        """See `JobQueue.stats`."""
        with self._transport.changed:
            run, now = self._run, self._transport.clock()
            jobs = [*run.waiting, *(lease.job for lease in run.in_hand.values())]
            return QueueStats(
                waiting=len(run.waiting),
                in_hand=len(run.in_hand),
                oldest_s=max((now - job.put_up_at for job in jobs), default=0.0),
                issued=run.counters["issued"],
                committed=run.counters["committed"],
                duplicates=run.counters["duplicates"],
                reclaimed=run.counters["reclaimed"],
                dead=run.counters["dead"],
            )

    async def workers(self) -> Sequence[WorkerInfo]:
        """See `JobQueue.workers`."""
        with self._transport.changed:
            run, now = self._run, self._transport.clock()
            pending = Counter(lease.worker for lease in run.in_hand.values())
            return [
                WorkerInfo(name=name, run_id=self._run_id, jobs_pending=pending[name], idle_s=now - seen)
                for name, seen in run.last_seen.items()
            ]

    async def close(self) -> None:
        """See `JobQueue.close`."""
        with self._transport.changed:
            old = self._run
            self._check_fence(old)
            self._transport.runs[self._run_id] = _Run(
                scores=old.scores, counters=old.counters, fence=old.fence, owner=old.owner, led_until=old.led_until
            )
            self._transport.announce()
        await self.yield_lead()


class MemoryJobSource:
    """See `JobSource`."""

    def __init__(self, transport: MemoryTransport, worker: str) -> None:
        self.worker = worker
        self._transport = transport

    def take(self, *, count: int, block_s: float) -> Sequence[Delivery]:
        """See `JobSource.take`."""
        deadline = time.monotonic() + block_s
        with self._transport.changed:
            while True:
                taken: list[Delivery] = []
                for run_id, run in self._open_runs():
                    taken += self._take_expired(run_id, run, count - len(taken))
                    taken += self._take_waiting(run_id, run, count - len(taken))
                remaining = deadline - time.monotonic()
                if taken or remaining <= 0:
                    return taken
                # In slices, since nothing announces that a lease has run out.
                self._transport.changed.wait(min(remaining, _SLICE_S))

    def _open_runs(self) -> list[tuple[str, _Run]]:
        return [(run_id, run) for run_id, run in self._transport.runs.items() if run.is_open]

    def _take_expired(self, run_id: str, run: _Run, count: int) -> list[Delivery]:
        now = self._transport.clock()
        expired = [lease.job for lease in run.in_hand.values() if lease.expires_at <= now]
        taken: list[Delivery] = []
        for job in expired:
            if job.deliveries >= self._transport.max_deliveries:
                before = f"; before that: {job.error}" if job.error else ""
                why = f"its lease ran out at delivery {job.deliveries}: the worker died or hung{before}"
                self._bury(run, job, why)
            elif len(taken) < count:
                run.counters["reclaimed"] += 1
                taken.append(self._hand_over(run_id, run, job))
        return taken

    def _take_waiting(self, run_id: str, run: _Run, count: int) -> list[Delivery]:
        run.last_seen[self.worker] = self._transport.clock()
        return [self._hand_over(run_id, run, run.waiting.popleft()) for _ in range(min(count, len(run.waiting)))]

    def _hand_over(self, run_id: str, run: _Run, job: _Job) -> Delivery:
        job.deliveries += 1
        transport = self._transport
        delivery = Delivery(
            run_id=run_id,
            job_id=job.message.job_id,
            payload=job.message.payload,
            entry_id=f"{job.update}/{transport.number()}",
            deliveries=job.deliveries,
            lease_s=transport.lease_s,
        )
        run.in_hand[delivery.job_id] = _Lease(job, delivery, self.worker, transport.clock() + transport.lease_s)
        return delivery

    def _bury(self, run: _Run, job: _Job, error: str) -> None:
        run.in_hand.pop(job.message.job_id, None)
        run.dead.setdefault(job.update, {})[job.message.job_id] = error
        run.counters["dead"] += 1
        self._transport.announce()

    def _own_lease(self, delivery: Delivery) -> tuple[_Run, _Lease] | None:
        """Return the lease unless another worker has taken the job over or finished it."""
        run = self._transport.runs.get(delivery.run_id, _Run())
        lease = run.in_hand.get(delivery.job_id)
        return (run, lease) if lease is not None and lease.delivery == delivery else None

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """See `JobSource.renew`."""
        with self._transport.changed:
            for delivery in deliveries:
                if owned := self._own_lease(delivery):
                    run, lease = owned
                    expires_at = self._transport.clock() + self._transport.lease_s
                    run.in_hand[delivery.job_id] = replace(lease, expires_at=expires_at)

    def commit(self, commit: Commit) -> bool:
        """See `JobSource.commit`."""
        delivery = commit.delivery
        with self._transport.changed:
            run = self._transport.runs.setdefault(delivery.run_id, _Run())
            if not run.withdraw(delivery.job_id):
                run.counters["duplicates"] += 1
                return False
            update = int(delivery.entry_id.partition("/")[0])
            run.done.setdefault(update, {})[delivery.job_id] = commit.payload
            for fingerprint, score in commit.scores.items():
                run.scores.setdefault(fingerprint, score)
            run.counters["committed"] += 1
            self._transport.announce()
            return True

    def fail(self, delivery: Delivery, error: str) -> None:
        """See `JobSource.fail`."""
        with self._transport.changed:
            if owned := self._own_lease(delivery):
                run, lease = owned
                lease.job.error = error
                if lease.job.deliveries >= self._transport.max_deliveries:
                    self._bury(run, lease.job, error)
                else:
                    self._put_back(run, lease.job)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """See `JobSource.release`."""
        with self._transport.changed:
            for delivery in deliveries:
                if owned := self._own_lease(delivery):
                    run, lease = owned
                    lease.job.deliveries -= 1
                    self._put_back(run, lease.job)

    def _put_back(self, run: _Run, job: _Job) -> None:
        del run.in_hand[job.message.job_id]
        job.put_up_at = self._transport.clock()
        run.waiting.append(job)
        self._transport.announce()

    def task(self, digest: str) -> str:
        """See `JobSource.task`."""
        with self._transport.changed:
            if digest not in self._transport.tasks:
                raise TransientError(f"no task {digest}: its run's coordinator stores it when it opens the run")
            return self._transport.tasks[digest]

    def close(self) -> None:
        """See `JobSource.close`. With jobs in hand the name stays until their leases have run out."""
        with self._transport.changed:
            for run in self._transport.runs.values():
                if all(lease.worker != self.worker for lease in run.in_hand.values()):
                    run.last_seen.pop(self.worker, None)
