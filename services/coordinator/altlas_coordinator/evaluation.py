"""From programs to scores: fingerprint, look up, shard, submit, collect, join.

Invariants: a program is run at most once per run; the scores come in the order of the programs whatever the order of
the results; a job's id names its content, so that a re-issue after a crash is the same work or another job.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from altlas.config.sections import TransportSection
from altlas.core.grading import Grading
from altlas.core.program import fingerprints, is_sandboxed
from altlas.core.score import Score
from altlas.core.score_batch import ScoreBatch, batch_scores, join_scores
from altlas.errors import ProtocolError
from altlas.rpc.batches import scores_from_proto, sources_to_proto
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.convert import score_from_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2
from altlas.transport.ports import JobId, JobMessage, JobQueue, RunLostError
from altlas_coordinator.fingerprint_index import FingerprintIndex, Keys, Rows, keys_of
from altlas_coordinator.known_scores import KnownScores
from altlas_coordinator.patience import until_back

_PATIENCE_S = 5.0
# What takes an evaluator about 50 ms.
_SANDBOXED_SHARD, _IN_PROCESS_SHARD = 32, 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EvaluatedBatch:
    """Scores in the order of the programs; `evaluated` programs were run, the rest looked up.

    is_new: bool [B], the programs that the run had not seen before, each at its first place in the batch. Error texts
    are those of programs that are new or were run.
    """

    scores: ScoreBatch
    is_new: npt.NDArray[np.bool_]
    evaluated: int


class Evaluation:
    """One task's way to a run's evaluators, and what it has learned from them.

    `seen`: the keys that a checkpoint holds. `announced`: every task of the run where it has several; evaluators that
    have lost Redis' data need all.
    """

    def __init__(
        self,
        queue: JobQueue,
        *,
        run_id: str,
        grading: Grading,
        section: TransportSection,
        seen: Keys | None = None,
        announced: Sequence[Grading] = (),
    ) -> None:
        self._queue = queue
        self._run_id = run_id
        self._grading = grading
        self._announced = announced or (grading,)
        self._is_stored = is_sandboxed(grading.task.language)
        self._shard_size = section.shard_size or (_SANDBOXED_SHARD if self._is_stored else _IN_PROCESS_SHARD)
        self._timeout_s = section.rpc_timeout_s
        self._index = FingerprintIndex(seen)
        self._known = KnownScores()

    @property
    def seen(self) -> Keys:
        """The key of every program of the task, in order of first sighting."""
        return self._index.keys

    async def open(self) -> None:
        """Announce the run to the evaluators, with its tasks. May be repeated."""
        for grading in self._announced:
            await self._queue.open(task_digest=grading.digest, task_text=grading.text)

    async def evaluate(self, update: int, sources: Sequence[bytes]) -> EvaluatedBatch:
        """Score the programs of an update.

        Raises:
            AltlasError: a job is dead, or a worker's answer breaks the contract.
            TransientError: Redis stayed away.
        """
        names = fingerprints(self._grading.digest, self._grading.task.language, sources)
        seen_before = len(self._index)
        rows = self._index.add(keys_of(names))
        # New rows are given out in order, so a row above all before it is a first sighting.
        is_new = rows > np.maximum.accumulate(np.concatenate([[seen_before - 1], rows[:-1]]))
        errors = [""] * len(rows)
        wanted = await self._look_up(rows, names, errors)
        if wanted:
            jobs = self._shards(update, wanted, names, sources)
            scores = self._join(jobs, await self._run(update, [job.message for job in jobs]))
            self._store(wanted, rows, scores, errors)
        known = self._known.take(rows, errors=tuple(errors) if any(errors) else ())
        return EvaluatedBatch(known, is_new, evaluated=len(wanted))

    async def forget(self, update: int) -> None:
        """Drop the results of an update that has been learned from."""
        await self._redis(lambda: self._queue.forget(update))

    async def _redis(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await until_back(operation, peer="Redis", limit_s=self._timeout_s)

    async def _look_up(self, rows: Rows, names: Sequence[bytes], errors: list[str]) -> list[int]:
        """Take what the score store knows; return where the programs stand first of which nothing is known.

        The store holds what this process does not know only after a resume.
        """
        unknown = np.flatnonzero(~self._known.knows(rows))
        _, first = np.unique(rows[unknown], return_index=True)
        wanted: list[int] = unknown[np.sort(first)].tolist()
        if not wanted or not self._is_stored:
            return wanted
        stored = await self._redis(lambda: self._queue.known_scores([names[position] for position in wanted]))
        found = {position: _stored_score(stored[names[position]]) for position in wanted if names[position] in stored}
        if found:
            with _of_one_task("the score store"):
                scores = batch_scores(list(found.values()))
            self._store(list(found), rows, scores, errors)
        return [position for position in wanted if position not in found]

    def _store(self, positions: Sequence[int], rows: Rows, scores: ScoreBatch, errors: list[str]) -> None:
        self._known.store(rows[np.array(positions)], scores)
        for position, error in zip(positions, scores.errors, strict=False):
            errors[position] = error

    def _shards(
        self, update: int, wanted: Sequence[int], names: Sequence[bytes], sources: Sequence[bytes]
    ) -> list[_Shard]:
        shards = []
        for number, start in enumerate(range(0, len(wanted), self._shard_size)):
            positions = wanted[start : start + self._shard_size]
            fingerprints_text = b"".join([names[position] for position in positions])
            content = hashlib.sha256(fingerprints_text).hexdigest()[:12]
            job_id = JobId(f"u{update}.s{number}.{content}")
            job = evaluator_pb2.Job(
                job_id=job_id,
                run_id=self._run_id,
                update=update,
                task_digest=self._grading.digest,
                sources=sources_to_proto([sources[position] for position in positions]),
                fingerprints=fingerprints_text,
            )
            shards.append(_Shard(JobMessage(job_id, job.SerializeToString()), len(positions)))
        return shards

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
    def _join(shards: Sequence[_Shard], results: Mapping[JobId, bytes]) -> ScoreBatch:
        batches = []
        for shard in shards:
            result = evaluator_pb2.JobResult.FromString(results[shard.message.job_id])
            if result.job_id != shard.message.job_id or result.scores.count != shard.programs:
                raise ProtocolError(
                    f"worker {result.worker} answered job {shard.message.job_id} ({shard.programs} programs) "
                    f"with {result.scores.count} scores for {result.job_id!r}"
                )
            batches.append(scores_from_proto(result.scores))
        with _of_one_task("the evaluators"):
            return join_scores(batches)


@dataclass(frozen=True, slots=True)
class _Shard:
    """A job and how many programs it holds."""

    message: JobMessage
    programs: int


@contextmanager
def _of_one_task(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ProtocolError(f"{where}: {error}; are all evaluators of one version?") from error


def _stored_score(content: bytes) -> Score:
    return score_from_proto(common_pb2.Score.FromString(content))
