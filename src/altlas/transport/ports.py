"""The two ends of the work queue. Payloads are bytes: this package knows no message of ours.

Invariants, of every adapter:
- A submitted job has exactly one committed result, whatever is submitted, delivered or committed how often.
- A delivery that is neither committed nor renewed for `lease_s` goes to another worker.
- After `max_deliveries` deliveries a job is dead: it is kept with its last error and `collect` raises.
- Nothing that is work is ever trimmed or dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NewType, Protocol

from altlas.errors import AltlasError, TransientError

JobId = NewType("JobId", str)


class DeadJobError(AltlasError):
    """Jobs that ran out of deliveries; `errors` maps each to its last error."""

    def __init__(self, run_id: str, errors: Mapping[JobId, str], max_deliveries: int) -> None:
        self.errors = dict(errors)
        job_id, error = next(iter(self.errors.items()))
        others = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
        super().__init__(
            f"run {run_id}: job {job_id}{others} failed {max_deliveries} deliveries, the last with: {error}. "
            "Look at the evaluators' logs, mend the cause, and resume the run: it puts the job up again."
        )


class RunLostError(TransientError):
    """The queue does not know the run (any more): open it and submit again, which repeats nothing still known."""


@dataclass(frozen=True, slots=True)
class JobMessage:
    """A job as submitted: the same `job_id` is the same work."""

    job_id: JobId
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A job in a worker's hands. `entry_id` is the queue's own handle, `deliveries` counts this one.

    The worker renews well within `lease_s`, a third of it for example.
    """

    run_id: str
    job_id: JobId
    payload: bytes
    entry_id: str
    deliveries: int = 1
    lease_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """Counters of one run's queue."""

    waiting: int = 0
    in_hand: int = 0
    committed: int = 0
    duplicates: int = 0
    reclaimed: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """One evaluator as the queue sees it."""

    name: str
    run_id: str
    jobs_pending: int
    idle_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A worker's result for a delivery; `scores` maps fingerprint to serialised score for the run's score store."""

    delivery: Delivery
    payload: bytes
    scores: Mapping[bytes, bytes] = field(default_factory=dict)


class JobQueue(Protocol):
    """The coordinator's end, for one run."""

    async def open(self, *, task_digest: str, task_text: str) -> None:
        """Announces the run and stores its task where workers find it. May be repeated."""

    async def submit(self, update: int, jobs: Sequence[JobMessage]) -> None:
        """Puts jobs up for work. A job that is waiting, in hand or committed already is not put up again.

        A dead one is, with all its deliveries before it.

        Raises:
            RunLostError: the run is not open (any more).
            TransientError: the server is away.
        """

    async def collect(self, update: int, job_ids: Sequence[JobId], *, timeout_s: float) -> Mapping[JobId, bytes]:
        """Waits until every job has its result and returns them.

        Raises:
            RunLostError: the run is not open (any more).
            TransientError: not all were there within timeout_s, or the server is away. Submitting again before the
                next try repeats nothing, and mends a server that came back without its last second.
            DeadJobError: a job is dead; the message holds the last error.
        """

    async def forget(self, update: int) -> None:
        """Drops the results of an update whose learning is done."""

    async def known_scores(self, fingerprints: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Returns the committed scores among these fingerprints."""

    async def stats(self) -> QueueStats:
        """Returns the run's counters."""

    async def workers(self) -> Sequence[WorkerInfo]:
        """Returns the evaluators that have taken jobs of this run."""

    async def close(self) -> None:
        """Withdraws the run from the workers; its scores stay."""


class JobSource(Protocol):
    """A worker's end, over all open runs. Blocking; used from one thread, but `renew` from another."""

    def take(self, *, count: int, block_s: float) -> Sequence[Delivery]:
        """Returns up to `count` jobs, expired ones of other workers first; empty after block_s without any."""

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Keeps the leases of jobs that are being worked on."""

    def commit(self, commit: Commit) -> bool:
        """Stores the result, acks and deletes the entry in one step; False when another commit was first."""

    def fail(self, delivery: Delivery, error: str) -> None:
        """Gives a job back after a fault of ours; it is delivered again, or dead after max_deliveries."""

    def task(self, digest: str) -> str:
        """Returns the task's text.

        Raises:
            TransientError: no such task is stored (yet).
        """

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Gives jobs back unstarted, at once available to others (drain)."""

    def close(self) -> None:
        """Leaves the group."""
