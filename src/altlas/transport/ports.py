"""The two ends of the work queue, and the registry of runs. Payloads are bytes: this package knows no message of ours.

Invariants, of every adapter:
- A submitted job has exactly one committed result, whatever is submitted, delivered or committed how often.
- A delivery that is neither committed nor renewed for `lease_s` goes to another worker.
- After `max_deliveries` deliveries a job is dead: it is kept with its last error and `collect` raises.
- Nothing that is work is ever trimmed or dropped.
- Once a later coordinator leads a run, an earlier one changes nothing of it (docs/adr/0013).
- No more than `window_jobs` jobs of a run wait or are in hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NewType, Protocol

from altlas.errors import AltlasError, FencedError, ProtocolError, TransientError

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


class LeaseHeldError(TransientError):
    """Another coordinator leads the run: `holder` for `remaining_s` seconds still, unless it renews its lease."""

    def __init__(self, run_id: str, *, holder: str, remaining_s: float) -> None:
        self.holder = holder
        self.remaining_s = remaining_s
        super().__init__(
            f"run {run_id} is led by {holder}, whose lease lasts {remaining_s:.1f} s still. "
            "Stop that coordinator, or try again when its lease has run out."
        )


def fenced_error(run_id: str, *, fence: int, leads: int, holder: str) -> FencedError:
    """Return what a coordinator with `fence` gets when the run is led by `leads`; `holder`: '' when none has the lease.

    A `fence` of 0 says that this queue does not lead.
    """
    if not fence:
        return FencedError(f"run {run_id}: this queue does not lead it: call lead first")
    owner = f", of {holder}" if holder else ""
    return FencedError(
        f"run {run_id} is led by fence {leads}{owner}; fence {fence} changes nothing of it any more. "
        "Stop this coordinator's work on the run: the other one goes on with it."
    )


def known_run_error(run_id: str) -> ProtocolError:
    """Return what a request gets for a run that another request has made."""
    return ProtocolError(
        f"run {run_id} was made by another request. Choose another name, or repeat the request under its own id."
    )


def requested(request_id: str, run_id: str) -> str:
    """Return the request's id; without one, every such request would be a repeat of the first.

    Raises:
        ProtocolError: it is empty.
    """
    if not request_id:
        raise ProtocolError(f"the request for run {run_id} has no id: give it one that is used for nothing else")
    return request_id


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
    """Counters of one run's queue, over all its coordinators.

    oldest_s: since the oldest job that waits or is in hand was put up, last time; it grows by itself, so it makes no
    two of these differ.
    """

    waiting: int = 0
    in_hand: int = 0
    oldest_s: float = field(default=0.0, compare=False)
    issued: int = 0
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
    """The coordinator's end, for one run.

    A queue that has called `lead` is refused with a FencedError once a later coordinator leads; one that never has is
    not checked, which is for drills and benchmarks.
    """

    async def lead(self, *, owner: str, above: int = 0) -> int:
        """Becomes the run's coordinator for `lease_s` and returns its fence, larger than every earlier one and `above`.

        `owner` names what can exist once, such as host and listen address: who comes back under the same name takes its
        own lease over at once.

        Raises:
            LeaseHeldError: another owner has the lease.
        """

    async def keep_lead(self) -> None:
        """Renews the lease, well within `lease_s`. Puts lease and fence back where the server has lost them.

        Raises:
            FencedError: a later coordinator leads, or this queue does not.
        """

    async def yield_lead(self) -> None:
        """Gives the lease up if it is this queue's. May be repeated."""

    async def open(self, *, task_digest: str, task_text: str) -> None:
        """Announces the run and stores its task where workers find it. May be repeated.

        Raises:
            FencedError: a later coordinator leads.
        """

    async def submit(self, update: int, jobs: Sequence[JobMessage]) -> None:
        """Puts jobs up for work, waiting for room in the window until all are in.

        A job that is waiting, in hand or committed already is not put up again and takes no room. A dead one is, with
        all its deliveries before it.

        Raises:
            RunLostError: the run is not open (any more).
            TransientError: the server is away.
            FencedError: a later coordinator leads.
            DeadJobError: a job that this call had put up died while others waited for room.
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
        """Drops the results of an update whose learning is done.

        Raises:
            FencedError: a later coordinator leads.
        """

    async def known_scores(self, fingerprints: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Returns the committed scores among these fingerprints."""

    async def stats(self) -> QueueStats:
        """Returns the run's counters."""

    async def workers(self) -> Sequence[WorkerInfo]:
        """Returns the evaluators that have taken jobs of this run."""

    async def close(self) -> None:
        """Withdraws the run from the workers and gives the lease up; its scores stay.

        Raises:
            FencedError: a later coordinator leads.
        """


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


class RunRegistry(Protocol):
    """The runs that there are, for coordinators that come after: a record of bytes each."""

    async def register(self, request_id: str, run_id: str, record: bytes, *, replace: bool) -> str:
        """Writes a new run down, once per request, and returns the id of the run that the request made.

        That is `run_id`, or an earlier one's when the request is a repeat, which changes nothing. `replace` allows a
        run of another request to lose its record to this one.

        Raises:
            ProtocolError: a run of this id is known from another request, or the request has no id.
        """

    async def update(self, run_id: str, record: bytes) -> None:
        """Replaces a run's record, or writes it where the server has lost it."""

    async def records(self) -> Mapping[str, bytes]:
        """Returns every run's record."""
