"""The evaluator's pull side: take a shard, score it, commit it.

Invariants: a job that is taken is committed, given back, or taken over by another worker after its lease; a fault of
the sandbox gives the job back with the error and never becomes a score.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from altlas.core.grading import Grading, parse_grading
from altlas.errors import ProtocolError, SandboxError, TaskError, TransientError
from altlas.rpc.convert import score_to_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2
from altlas.transport.ports import Commit, Delivery, JobSource
from altlas_evaluator import metrics
from altlas_evaluator.engine import Executor
from altlas_evaluator.scoring import TaskScorer

LOGGER = logging.getLogger(__name__)
_BLOCK_S = 0.5
_BACKOFF_S = 0.5
_TICK_S = 0.1


class Worker:
    """Pulls from one source with one executor until told to stop."""

    def __init__(self, source: JobSource, executor: Executor, *, name: str) -> None:
        self._source = source
        self._executor = executor
        self._name = name
        self._gradings: dict[str, Grading] = {}
        self._in_hand: Sequence[Delivery] = ()
        self._stopping = threading.Event()

    def run(self) -> None:
        """Work until `stop`; the job in hand is finished first. Redis being away is waited for."""
        renewer = threading.Thread(target=self._renew, name="lease-renewer", daemon=True)
        renewer.start()
        away_since: float | None = None
        while not self._stopping.is_set():
            try:
                for delivery in self._source.take(count=1, block_s=_BLOCK_S):
                    self._work(delivery)
            except TransientError as error:
                if away_since is None:
                    away_since = time.monotonic()
                    LOGGER.warning("waiting for Redis: %s", error)
                self._stopping.wait(_BACKOFF_S)
                continue
            if away_since is not None:
                LOGGER.warning("resumed after waiting %.1f s for Redis", time.monotonic() - away_since)
                away_since = None
        renewer.join()

    def stop(self) -> None:
        """Ask `run` to return after the job in hand."""
        self._stopping.set()

    def _work(self, delivery: Delivery) -> None:
        started = time.monotonic()
        self._in_hand = (delivery,)
        try:
            job = evaluator_pb2.Job.FromString(delivery.payload)
            if len(job.sources) != len(job.fingerprints):
                raise ProtocolError(
                    f"job {delivery.job_id}: {len(job.sources)} programs, {len(job.fingerprints)} names"
                )
            grading = self._grading(job.task_digest)
            scorer = TaskScorer(self._executor, grading.reward)
            scores = [score_to_proto(score) for score in scorer.score(grading.task, job.sources)]
        except (SandboxError, ProtocolError, TaskError, DecodeError) as error:
            LOGGER.error("job %s given back: %s: %s", delivery.job_id, type(error).__name__, error)
            metrics.JOBS.labels("failed").inc()
            self._source.fail(delivery, f"{self._name}: {type(error).__name__}: {error}")
            return
        finally:
            self._in_hand = ()
        result = evaluator_pb2.JobResult(
            job_id=job.job_id, worker=self._name, scores=scores, seconds=time.monotonic() - started
        )
        by_fingerprint = {key: score.SerializeToString() for key, score in zip(job.fingerprints, scores, strict=True)}
        is_first = self._commit(Commit(delivery=delivery, payload=result.SerializeToString(), scores=by_fingerprint))
        metrics.JOBS.labels("committed" if is_first else "duplicate").inc()
        metrics.JOB_SECONDS.observe(time.monotonic() - started)

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
        while not self._stopping.wait(_TICK_S):
            waited_s += _TICK_S
            in_hand = self._in_hand
            if in_hand and waited_s >= min(delivery.lease_s for delivery in in_hand) / 3:
                waited_s = 0.0
                try:
                    self._source.renew(in_hand)
                except TransientError as error:
                    LOGGER.warning("lease not renewed, another worker may take over: %s", error)
