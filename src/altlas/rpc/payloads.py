"""What lies in Redis, read by those who do not believe who wrote it: jobs by evaluators, results by the coordinator.

Invariants: a size is checked before what has it is parsed; whatever is wrong is a ProtocolError, and nothing of a
payload with something wrong is used. A result that is well-formed may still be untrue: nothing here can tell.
"""

from __future__ import annotations

import math

from google.protobuf.message import DecodeError

from altlas.core.program import FINGERPRINT_BYTES, fingerprints
from altlas.core.reward import ERROR_CHARACTERS
from altlas.core.score import Score
from altlas.core.score_batch import BEHAVIOUR_BYTES, ScoreBatch, batch_scores
from altlas.errors import ProtocolError
from altlas.rpc.batches import check_scores, scores_from_proto, sources_from_proto
from altlas.rpc.channel import MESSAGE_LIMIT_BYTES
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.convert import score_from_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2

JOB_LIMIT_BYTES = MESSAGE_LIMIT_BYTES
# transport.shard_size goes no further.
MAX_JOB_PROGRAMS = 4096
_MAX_COMPONENTS = 16
_MAX_NAME_BYTES = 300
# A result's own fields, and what the encoding adds to each of its arrays.
_RESULT_OVERHEAD_BYTES = 8192
# UTF-8, with tag and length.
_ERROR_BYTES = 4 * ERROR_CHARACTERS + 8
_SCORE_BYTES = 32 + BEHAVIOUR_BYTES + 8 * _MAX_COMPONENTS + _ERROR_BYTES
_CASE_BYTES = 4


def result_limit_bytes(programs: int, cases: int) -> int:
    """Return the most bytes that an honest JobResult takes."""
    return _RESULT_OVERHEAD_BYTES + programs * (_SCORE_BYTES + _CASE_BYTES * cases)


def read_result(content: bytes, *, job_id: str, programs: int, cases: int, is_sandboxed: bool) -> ScoreBatch:
    """Return the scores in a worker's answer to a job.

    Args:
        content: a JobResult, as committed.
        job_id: the job that was put up.
        programs: how many it held.
        cases: reward cases of its task.
        is_sandboxed: whether rewards are in [0, 1]; see `check_scores`.

    Raises:
        ProtocolError: too large, no JobResult, of another job, or with scores that cannot be.
    """
    limit = result_limit_bytes(programs, cases)
    if len(content) > limit:
        raise ProtocolError(f"the result of job {job_id} has {len(content):,} bytes, at most {limit:,} are believed")
    try:
        result = evaluator_pb2.JobResult.FromString(content)
    except DecodeError as error:
        raise ProtocolError(f"the result of job {job_id} is no JobResult: {error}") from error
    where = f"the result of job {job_id} by worker {result.worker[:_MAX_NAME_BYTES]!r}"
    if result.job_id != job_id:
        raise ProtocolError(f"{where} is of job {result.job_id[:_MAX_NAME_BYTES]!r}")
    if len(result.worker) > _MAX_NAME_BYTES or len(result.tier) > _MAX_NAME_BYTES:
        raise ProtocolError(f"{where} has a worker's or a tier's name of more than {_MAX_NAME_BYTES} characters")
    if len(result.scores.component_names) > _MAX_COMPONENTS:
        raise ProtocolError(f"{where} has {len(result.scores.component_names)} components")
    if not math.isfinite(result.seconds) or result.seconds < 0:
        raise ProtocolError(f"{where} took {result.seconds} seconds")
    try:
        scores = scores_from_proto(result.scores)
        check_scores(scores, programs=programs, cases=cases, is_sandboxed=is_sandboxed)
    except ProtocolError as error:
        raise ProtocolError(f"{where}: {error}") from error
    return scores


def read_stored_score(content: bytes, *, cases: int) -> Score:
    """Return a score from the run's score store, which workers write and which holds sandboxed languages alone.

    Raises:
        ProtocolError: too large, no Score, or one that cannot be.
    """
    limit = result_limit_bytes(1, cases)
    if len(content) > limit:
        raise ProtocolError(f"a stored score has {len(content):,} bytes, at most {limit:,} are believed")
    try:
        score = score_from_proto(common_pb2.Score.FromString(content))
        check_scores(batch_scores([score]), programs=1, cases=cases, is_sandboxed=True)
    except (DecodeError, ValueError) as error:
        raise ProtocolError(f"a stored score is not one: {error}") from error
    return score


def read_job(content: bytes, *, job_id: str, run_id: str) -> tuple[evaluator_pb2.Job, list[bytes]]:
    """Return a job and its programs.

    Args:
        content: a Job, as delivered.
        job_id: under which it was delivered.
        run_id: of the stream that it came by.

    Raises:
        ProtocolError: too large, no Job, of another name than it came under, without programs or with too many, or
            with another number of fingerprints than programs.
    """
    if len(content) > JOB_LIMIT_BYTES:
        raise ProtocolError(f"job {job_id} has {len(content):,} bytes, at most {JOB_LIMIT_BYTES:,} are read")
    try:
        job = evaluator_pb2.Job.FromString(content)
    except DecodeError as error:
        raise ProtocolError(f"job {job_id} is no Job: {error}") from error
    # A job without a run's name says nothing of it.
    if job.job_id != job_id or job.run_id not in ("", run_id):
        raise ProtocolError(
            f"job {job_id} of run {run_id} says it is {job.job_id[:_MAX_NAME_BYTES]!r} of "
            f"{job.run_id[:_MAX_NAME_BYTES]!r}"
        )
    if not 1 <= len(job.sources.sizes) // 4 <= MAX_JOB_PROGRAMS:
        raise ProtocolError(
            f"job {job_id} holds {len(job.sources.sizes) // 4} programs, 1 to {MAX_JOB_PROGRAMS} may be"
        )
    sources = sources_from_proto(job.sources)
    if len(job.fingerprints) != FINGERPRINT_BYTES * len(sources):
        raise ProtocolError(f"job {job_id}: {len(job.fingerprints)} bytes of fingerprints for {len(sources)} programs")
    return job, sources


def check_fingerprints(job: evaluator_pb2.Job, sources: list[bytes], *, language: str) -> None:
    """Check that a job's fingerprints are those of its programs: under them the scores are stored for the whole run.

    Raises:
        ProtocolError: they are not.
    """
    if b"".join(fingerprints(job.task_digest, language, sources)) != job.fingerprints:
        raise ProtocolError(f"job {job.job_id}: its fingerprints are not those of its programs")
