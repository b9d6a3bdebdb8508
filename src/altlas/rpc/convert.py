"""Between the core's types and messages. No torch and no numpy: evaluator and coordinator use this too."""

from __future__ import annotations

import math

from altlas.core.program import Execution, Limits, ProgramStatus
from altlas.core.score import Score
from altlas.errors import ProtocolError
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.evaluator.v1 import evaluator_pb2

STATUS_TO_PROTO = {status: f"PROGRAM_STATUS_{status.name}" for status in ProgramStatus}
_STATUS_FROM_PROTO = {common_pb2.ProgramStatus.Value(name): status for status, name in STATUS_TO_PROTO.items()}


def status_from_proto(number: int) -> ProgramStatus:
    """Return the status of a message.

    Raises:
        ProtocolError: not one of ours.
    """
    if number not in _STATUS_FROM_PROTO:
        raise ProtocolError(f"program status {number} is unknown; is the peer of another version?")
    return _STATUS_FROM_PROTO[number]


def score_to_proto(score: Score) -> common_pb2.Score:
    """Return a score as a message."""
    return common_pb2.Score(
        status=STATUS_TO_PROTO[score.status],
        reward=score.reward,
        components=dict(score.components),
        cases_passed=score.cases_passed,
        cases=score.cases,
        solved=score.solved,
        verified=score.verified,
        behaviour=score.behaviour,
        error=score.error,
        case_rewards=score.case_rewards,
    )


def score_from_proto(message: common_pb2.Score) -> Score:
    """Return a score from a message.

    Raises:
        ProtocolError: a reward or a component is not finite or the counts contradict each other.
    """
    numbers = (message.reward, *message.case_rewards, *message.components.values())
    if not all(map(math.isfinite, numbers)):
        raise ProtocolError(f"reward {message.reward}, that of a case, or a component is not finite")
    if message.cases_passed > message.cases or (message.verified and not message.solved):
        raise ProtocolError(f"score contradicts itself: {message.cases_passed} of {message.cases} cases passed")
    return Score(
        status=status_from_proto(message.status),
        reward=message.reward,
        components=dict(message.components),
        cases_passed=message.cases_passed,
        cases=message.cases,
        solved=message.solved,
        verified=message.verified,
        behaviour=message.behaviour,
        error=message.error,
        case_rewards=tuple(message.case_rewards),
    )


def limits_from_proto(message: common_pb2.Limits, default: Limits) -> Limits:
    """Return limits from a message, absent fields taken from `default`."""
    return Limits(
        cpu_s=message.cpu_s if message.HasField("cpu_s") else default.cpu_s,
        wall_s=message.wall_s if message.HasField("wall_s") else default.wall_s,
        memory_bytes=message.memory_bytes if message.HasField("memory_bytes") else default.memory_bytes,
        output_bytes=message.output_bytes if message.HasField("output_bytes") else default.output_bytes,
        open_files=message.open_files if message.HasField("open_files") else default.open_files,
        processes=message.processes if message.HasField("processes") else default.processes,
        file_bytes=message.file_bytes if message.HasField("file_bytes") else default.file_bytes,
    )


def limits_to_proto(limits: Limits) -> common_pb2.Limits:
    """Return limits as a message, every field present."""
    return common_pb2.Limits(
        cpu_s=limits.cpu_s,
        wall_s=limits.wall_s,
        memory_bytes=limits.memory_bytes,
        output_bytes=limits.output_bytes,
        open_files=limits.open_files,
        processes=limits.processes,
        file_bytes=limits.file_bytes,
    )


def execution_to_proto(execution: Execution) -> evaluator_pb2.Execution:
    """Return an execution as a message."""
    return evaluator_pb2.Execution(
        status=STATUS_TO_PROTO[execution.status],
        stdout=execution.stdout,
        stderr=execution.stderr,
        exit_code=execution.exit_code,
        cpu_s=execution.cpu_s,
        wall_s=execution.wall_s,
        peak_memory_bytes=execution.peak_memory_bytes,
    )
