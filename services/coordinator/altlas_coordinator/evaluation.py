"""From programs to scores: fingerprint, look up, shard, submit, collect, join.

Invariants: a program is run at most once per run; the scores come in the order of the programs whatever the order of
the results; a job's id names its content, so that a re-issue after a crash is the same work or another job.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from altlas.config.sections import TransportSection
from altlas.core.grading import Grading
from altlas.core.program import fingerprint
from altlas.core.score import Score
from altlas.errors import ProtocolError
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.convert import score_from_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2
from altlas.transport.ports import JobId, JobMessage, JobQueue, RunLostError
from altlas_coordinator.patience import until_back

_PATIENCE_S = 5.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EvaluatedBatch:
    """Scores and fingerprints in the order of the programs; `evaluated` programs were run, the rest looked up."""

    scores: list[Score]
    fingerprints: list[bytes]
    evaluated: int


class Evaluation:
    """One run's way to its evaluators."""

    def __init__(self, queue: JobQueue, *, run_id: str, grading: Grading, section: TransportSection) -> None:
        self._queue = queue
        self._run_id = run_id
        self._grading = grading
        self._shard_size = section.shard_size
        self._timeout_s = section.rpc_timeout_s

    async def open(self) -> None:
        """Announce the run to the evaluators. May be repeated."""
        await self._queue.open(task_digest=self._grading.digest, task_text=self._grading.text)

    async def evaluate(self, update: int, sources: Sequence[str]) -> EvaluatedBatch:
        """Score the programs of an update.

        Raises:
            AltlasError: a job is dead, or a worker's answer breaks the contract.
            TransientError: Redis stayed away.
        """
        language = self._grading.task.language
        programs = [source.encode() for source in sources]
        fingerprints = [fingerprint(self._grading.digest, language, program) for program in programs]
        by_fingerprint = dict(zip(fingerprints, programs, strict=True))
        known = dict(await self._redis(lambda: self._queue.known_scores(list(by_fingerprint))))
        unseen = [key for key in by_fingerprint if key not in known]
        jobs = self._shards(update, unseen, by_fingerprint)
        known |= self._join(jobs, await self._run(update, list(jobs)))
        scores = {key: score_from_proto(common_pb2.Score.FromString(known[key])) for key in by_fingerprint}
        return EvaluatedBatch([scores[key] for key in fingerprints], fingerprints, evaluated=len(unseen))

    async def forget(self, update: int) -> None:
        """Drop the results of an update that has been learned from."""
        await self._redis(lambda: self._queue.forget(update))

    async def _redis(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await until_back(operation, peer="Redis", limit_s=self._timeout_s)

    def _shards(
        self, update: int, unseen: Sequence[bytes], programs: Mapping[bytes, bytes]
    ) -> dict[JobMessage, Sequence[bytes]]:
        jobs = {}
        for shard, start in enumerate(range(0, len(unseen), self._shard_size)):
            keys = unseen[start : start + self._shard_size]
            content = hashlib.sha256(b"".join(keys)).hexdigest()[:12]
            job_id = JobId(f"u{update}.s{shard}.{content}")
            job = evaluator_pb2.Job(
                job_id=job_id,
                run_id=self._run_id,
                update=update,
                task_digest=self._grading.digest,
                sources=[programs[key] for key in keys],
                fingerprints=keys,
            )
            jobs[JobMessage(job_id, job.SerializeToString())] = keys
        return jobs

    async def _run(self, update: int, jobs: Sequence[JobMessage]) -> Mapping[JobId, bytes]:
        job_ids = [job.job_id for job in jobs]

        async def once() -> Mapping[JobId, bytes]:
            try:
                # Again with every try: a Redis that came back without its last second has lost some of them.
                await self._queue.submit(update, jobs)
                return await self._queue.collect(update, job_ids, timeout_s=_PATIENCE_S)
            except RunLostError:
                await self.open()
                raise

        return await until_back(once, peer="evaluators", limit_s=math.inf)

    @staticmethod
    def _join(jobs: Mapping[JobMessage, Sequence[bytes]], results: Mapping[JobId, bytes]) -> dict[bytes, bytes]:
        scores: dict[bytes, bytes] = {}
        for job, keys in jobs.items():
            result = evaluator_pb2.JobResult.FromString(results[job.job_id])
            if result.job_id != job.job_id or len(result.scores) != len(keys):
                raise ProtocolError(
                    f"worker {result.worker} answered job {job.job_id} ({len(keys)} programs) "
                    f"with {len(result.scores)} scores for {result.job_id!r}"
                )
            scores |= {key: score.SerializeToString() for key, score in zip(keys, result.scores, strict=True)}
        return scores
