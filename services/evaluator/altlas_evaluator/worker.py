"""The evaluator's pull side: take shards, score them, commit each when it is done.

Invariants: a job that is taken is committed, given back, or taken over by another worker after its lease; a fault of
the sandbox, or a job that this evaluator may not run, gives the job back with the error and never becomes a score; no
more jobs are in hand than there are slots (two at least, so that one is run while another is graded and committed).
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from altlas.core.grading import Grading, parse_grading
from altlas.core.program import FINGERPRINT_BYTES, is_sandboxed
from altlas.core.score_batch import ScoreBatch
from altlas.errors import ConfigError, ProtocolError, SandboxError, TaskError, TransientError
from altlas.rpc.batches import scores_to_proto
from altlas.rpc.convert import score_to_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2
from altlas.rpc.payloads import check_fingerprints, read_job
from altlas.transport.ports import Commit, Delivery, JobSource
from altlas_evaluator import metrics
from altlas_evaluator.engine import Batch, Executor
from altlas_evaluator.scoring import TaskScorer

LOGGER = logging.getLogger(__name__)
_BLOCK_S = 0.5
_BACKOFF_S = 0.5
_TICK_S = 0.1
_MIN_IN_HAND = 2


class Worker:
    """Pulls from one source with one executor until told to stop."""

    def __init__(self, source: JobSource, executor: Executor, *, name: str) -> None:
        self._source = source
        self._executor = executor
        self._name = name
        self._capacity = max(_MIN_IN_HAND, executor.slots)
        self._gradings: dict[str, Grading] = {}
        self._changed = threading.Condition()  # of what is in hand
        self._in_hand: dict[int, Delivery] = {}
        self._batches: dict[int, Batch] = {}
        self._crash: BaseException | None = None
        self._away_since: float | None = None
        self._stopping = threading.Event()
        self._has_ended = threading.Event()

    def run(self) -> None:
        """Work until `stop`; the jobs in hand are finished first. Redis being away is waited for.

        Raises:
            Exception: whatever a job died of that is neither its own fault nor the sandbox's nor Redis's.
        """
        renewer = threading.Thread(target=self._renew, name="lease-renewer", daemon=True)
        renewer.start()
        with ThreadPoolExecutor(self._capacity, thread_name_prefix="job") as pool:
            while not self._stopping.is_set():
                try:
                    self._take(pool)
                except TransientError as error:
                    if self._away_since is None:
                        self._away_since = time.monotonic()
                        LOGGER.warning("waiting for Redis: %s", error)
                    self._stopping.wait(_BACKOFF_S)
                    continue
                if self._away_since is not None:
                    LOGGER.warning("resumed after waiting %.1f s for Redis", time.monotonic() - self._away_since)
                    self._away_since = None
        self._has_ended.set()
        renewer.join()
        if self._crash is not None:
            raise self._crash

    def not_ready(self) -> str:
        """Return why no jobs are taken now; empty when they are. From any thread."""
        away_since = self._away_since
        return "" if away_since is None else f"no Redis for {time.monotonic() - away_since:.0f} s; see the log"

    def stop(self) -> None:
        """Ask `run` to return after the jobs in hand."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def give_back(self) -> None:
        """After `stop`: end what the jobs in hand run, and give them to other workers without counting the delivery."""
        with self._changed:
            batches = list(self._batches.values())
        for batch in batches:
            batch.cancel()

    def _take(self, pool: ThreadPoolExecutor) -> None:
        """Take as many jobs as may be in hand beside those that are; wait for one to end where there are none free."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._in_hand) < self._capacity or self._stopping.is_set(), _BLOCK_S)
            free = self._capacity - len(self._in_hand)
        if not free or self._stopping.is_set():
            return
        deliveries = self._source.take(count=free, block_s=_BLOCK_S)
        if self._stopping.is_set():
            self._source.release(deliveries)
            return
        for delivery in deliveries:
            with self._changed:
                self._in_hand[id(delivery)] = delivery
                self._batches[id(delivery)] = Batch(self._executor)
            pool.submit(self._work, delivery).add_done_callback(self._end)

    def _end(self, work: Future[None]) -> None:
        error = work.exception()
        if isinstance(error, TransientError):
            LOGGER.warning("a job is left to its lease: %s", error)
        elif error is not None:
            self._crash = error
            self.stop()

    def _work(self, delivery: Delivery) -> None:
        try:
            self._work_in_hand(delivery, self._batches[id(delivery)])
        except CancelledError:
            LOGGER.info("job %s given back unfinished", delivery.job_id)
            self._source.release([delivery])
        finally:
            with self._changed:
                del self._in_hand[id(delivery)], self._batches[id(delivery)]
                self._changed.notify_all()

    def _work_in_hand(self, delivery: Delivery, batch: Batch) -> None:
        started = time.monotonic()
        try:
            job, sources = read_job(delivery.payload, job_id=delivery.job_id, run_id=delivery.run_id)
            grading = self._grading(job.task_digest)
            if is_sandboxed(grading.task.language):
                check_fingerprints(job, sources, language=grading.task.language)
            scores = TaskScorer(batch, grading.reward).score_batch(grading.task, sources)
        except (SandboxError, ProtocolError, TaskError, ConfigError) as error:
            LOGGER.error("job %s given back: %s: %s", delivery.job_id, type(error).__name__, error)
            metrics.JOBS.labels("failed").inc()
            self._source.fail(delivery, f"{self._name}: {type(error).__name__}: {error}")
            return
        result = evaluator_pb2.JobResult(
            job_id=job.job_id,
            worker=self._name,
            scores=scores_to_proto(scores),
            seconds=time.monotonic() - started,
            tier=self._executor.tier,
        )
        stored = _stored_scores(job.fingerprints, scores) if is_sandboxed(grading.task.language) else {}
        is_first = self._commit(Commit(delivery=delivery, payload=result.SerializeToString(), scores=stored))
        seconds = time.monotonic() - started
        metrics.observe_job(grading.task.language, programs=len(sources), seconds=seconds, is_first=is_first)

    def _commit(self, commit: Commit) -> bool:
        while True:
            try:
                return self._source.commit(commit)
            except TransientError as error:
                # The work is done: better to wait with the result than to have it done again.
                LOGGER.warning("job %s is not committed yet: %s", commit.delivery.job_id, error)
                if self._stopping.wait(_BACKOFF_S):
                    raise

    def _grading(self, digest: str) -> Grading:
        if digest not in self._gradings:
            grading = parse_grading(self._source.task(digest), where=f"task {digest[:12]}")
            if grading.digest != digest:
                raise ProtocolError(f"the task stored under {digest} has digest {grading.digest}")
            self._gradings[digest] = grading
        return self._gradings[digest]

    def _renew(self) -> None:
        waited_s = 0.0
        while not self._has_ended.wait(_TICK_S):
            waited_s += _TICK_S
            with self._changed:
                in_hand = list(self._in_hand.values())
            if in_hand and waited_s >= min(delivery.lease_s for delivery in in_hand) / 3:
                waited_s = 0.0
                try:
                    self._source.renew(in_hand)
                except TransientError as error:
                    LOGGER.warning("lease not renewed, another worker may take over: %s", error)


def _stored_scores(fingerprints: bytes, scores: ScoreBatch) -> dict[bytes, bytes]:
    """Return the score store's entry for each program."""
    starts = range(0, len(fingerprints), FINGERPRINT_BYTES)
    return {
        fingerprints[start : start + FINGERPRINT_BYTES]: score_to_proto(scores.score(row)).SerializeToString()
        for row, start in enumerate(starts)
    }
