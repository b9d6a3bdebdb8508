"""From programs to scores: fingerprint, look up, shard, submit, collect, join.

Invariants: a program is run at most once per run; the scores come in the order of the programs whatever the order of
the results; a job's id names its content, so that a re-issue after a crash is the same work or another job.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
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
from altlas.core.score_batch import ScoreBatch, batch_scores, join_scores
from altlas.errors import AltlasError, ProtocolError
from altlas.rpc.batches import sources_to_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2
from altlas.rpc.payloads import read_result, read_stored_score
from altlas.transport.ports import JobId, JobMessage, JobQueue, RunLostError
from altlas_coordinator import metrics
from altlas_coordinator.fingerprint_index import FingerprintIndex, Keys, Rows, keys_of
from altlas_coordinator.known_scores import KnownScores
from altlas_coordinator.patience import until_back

LOGGER = logging.getLogger(__name__)
_PATIENCE_S = 5.0
# What takes an evaluator about 50 ms.
_SANDBOXED_SHARD, _IN_PROCESS_SHARD = 32, 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EvaluatedBatch:
    """Scores in the order of the programs; `evaluated` programs were run, the rest looked up.

    is_new: bool [B], the programs that the run had not seen before, each at its first place in the batch. Error texts
    are those of programs that are new or were run. seen: how many programs the task had seen with this batch.
    """

    scores: ScoreBatch
    is_new: npt.NDArray[np.bool_]
    evaluated: int
    seen: int = 0


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
        self._cases = len(grading.task.cases)
        self._shard_size = section.shard_size or (_SANDBOXED_SHARD if self._is_stored else _IN_PROCESS_SHARD)
        self._timeout_s = section.rpc_timeout_s
        self._trials = section.max_deliveries
        self._index = FingerprintIndex(seen)
        self._known = KnownScores()
        self._coming: dict[int, asyncio.Future[None]] = {}  # rows that a batch in flight brings the scores of

    @property
    def seen(self) -> Keys:
        """The key of every program of the task, in order of first sighting."""
        return self._index.keys

    async def open(self) -> None:
        """Announce the run to the evaluators, with its tasks. May be repeated."""
        for grading in self._announced:
            await self._queue.open(task_digest=grading.digest, task_text=grading.text)

    async def evaluate(self, update: int, sources: Sequence[bytes]) -> EvaluatedBatch:
        """Score the programs of an update; several updates may be in flight, numbered in the order of the calls.

        Raises:
            AltlasError: a job is dead, or a worker's answer breaks the contract.
            TransientError: Redis stayed away.
        """
        names = fingerprints(self._grading.digest, self._grading.task.language, sources)
        seen_before = len(self._index)
        rows = self._index.add(keys_of(names))
        # New rows are given out in order, so a row above all before it is a first sighting.
        is_new = rows > np.maximum.accumulate(np.concatenate([[seen_before - 1], rows[:-1]]))
        seen = len(self._index)
        errors = [""] * len(rows)
        unknown = self._unknown(rows)
        elsewhere = {self._coming[row] for row in rows[unknown].tolist() if row in self._coming}
        own = [position for position in unknown if int(rows[position]) not in self._coming]
        with self._bringing(rows[own].tolist()):
            wanted = await self._look_up(own, rows, names, errors)
            if wanted:
                jobs = self._shards(update, wanted, names, sources)
                scores = await self._run(update, jobs)
                self._store(wanted, rows, scores, errors)
        for other in elsewhere:
            await other
        if not self._known.knows(rows).all():
            raise AltlasError(f"update {update} waited for scores of an update before it, which has failed")
        known = self._known.take(rows, errors=tuple(errors) if any(errors) else ())
        return EvaluatedBatch(known, is_new, evaluated=len(wanted), seen=seen)

    @contextmanager
    def _bringing(self, rows: Sequence[int]) -> Iterator[None]:
        """Let batches after this one wait for its rows instead of having them run again."""
        arrival = asyncio.get_running_loop().create_future()
        self._coming |= dict.fromkeys(rows, arrival)
        try:
            yield
        finally:
            for row in rows:
                del self._coming[row]
            arrival.set_result(None)

    def _unknown(self, rows: Rows) -> list[int]:
        """Return where the programs stand first whose scores this process does not have."""
        unknown = np.flatnonzero(~self._known.knows(rows))
        _, first = np.unique(rows[unknown], return_index=True)
        positions: list[int] = unknown[np.sort(first)].tolist()
        return positions

    async def forget(self, update: int) -> None:
        """Drop the results of an update that has been learned from."""
        await self._redis(lambda: self._queue.forget(update))

    async def _redis(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await until_back(operation, peer="Redis", limit_s=self._timeout_s)

    async def _look_up(self, wanted: list[int], rows: Rows, names: Sequence[bytes], errors: list[str]) -> list[int]:
        """Take what the score store knows of the positions wanted; return those of which it knows nothing.

        The store holds what this process does not know only after a resume.
        """
        if not wanted or not self._is_stored:
            return wanted
        stored = await self._redis(lambda: self._queue.known_scores([names[position] for position in wanted]))
        found = {
            position: read_stored_score(stored[names[position]], cases=self._cases)
            for position in wanted
            if names[position] in stored
        }
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

    async def _run(self, update: int, shards: Sequence[_Shard]) -> ScoreBatch:
        """Return the scores of all shards, in order; one whose result breaks the contract is put up again.

        Raises:
            ProtocolError: results of one shard broke it max_deliveries times.
        """
        parts: dict[JobId, ScoreBatch] = {}
        for trial in range(1, self._trials + 1):
            missing = [shard for shard in shards if shard.message.job_id not in parts]
            results = await self._collect(update, [shard.message for shard in missing])
            for shard in missing:
                try:
                    parts[shard.message.job_id] = self._read(shard, results[shard.message.job_id])
                except ProtocolError as error:
                    metrics.REFUSED_RESULTS.inc()
                    LOGGER.error("result refused (%d of %d): %s", trial, self._trials, error)
                    if trial == self._trials:
                        raise
            if len(parts) == len(shards):
                break
            # What was refused must be gone, or the same result would be collected again.
            await self.forget(update)
        with _of_one_task("the evaluators"):
            return join_scores([parts[shard.message.job_id] for shard in shards])

    async def _collect(self, update: int, jobs: Sequence[JobMessage]) -> Mapping[JobId, bytes]:
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

    def _read(self, shard: _Shard, content: bytes) -> ScoreBatch:
        """Return the scores in a worker's result, none of which is believed before it is checked."""
        return read_result(
            content,
            job_id=shard.message.job_id,
            programs=shard.programs,
            cases=self._cases,
            is_sandboxed=self._is_stored,
        )


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
