"""Batches of programs and of scores to and from messages: the arrays of ScoreBatch and SourceBatch (numpy, no torch).

Every array is little-endian and row-major; each size is checked, so that a message of another version or a damaged one
is an error and never a score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from altlas.core.program import ProgramStatus
from altlas.core.score_batch import BEHAVIOUR_BYTES, STATUSES, ScoreBatch
from altlas.errors import ProtocolError
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.convert import STATUS_TO_PROTO

_SOLVED, _VERIFIED = 1, 2
_UNKNOWN = 255
_SANDBOX_ERROR = STATUSES.index(ProgramStatus.SANDBOX_ERROR)
_NUMBERS = np.array([common_pb2.ProgramStatus.Value(STATUS_TO_PROTO[status]) for status in STATUSES], dtype=np.uint8)
_POSITIONS = np.full(256, _UNKNOWN, dtype=np.uint8)
_POSITIONS[_NUMBERS] = np.arange(len(STATUSES), dtype=np.uint8)


def read_array(content: bytes, dtype: str, shape: tuple[int, ...], *, name: str) -> npt.NDArray[np.generic]:
    """Return bytes of a message as an array that shares them and cannot be written to.

    Raises:
        ProtocolError: not as many bytes as the shape takes.
    """
    expected = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise ProtocolError(
            f"{name} has {len(content)} bytes, expected {expected} for {dtype} {list(shape)}; "
            "is the peer of another version?"
        )
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def sources_to_proto(sources: Sequence[bytes]) -> common_pb2.SourceBatch:
    """Return program texts as a message."""
    sizes = np.fromiter(map(len, sources), dtype="<u4", count=len(sources))
    return common_pb2.SourceBatch(sizes=sizes.tobytes(), text=b"".join(sources))


def sources_from_proto(message: common_pb2.SourceBatch) -> list[bytes]:
    """Return the program texts of a message.

    Raises:
        ProtocolError: the sizes do not add up to the text.
    """
    sizes = read_array(message.sizes, "<u4", (len(message.sizes) // 4,), name="sources.sizes")
    ends = np.cumsum(sizes, dtype=np.int64)
    text = message.text
    expected = int(ends[-1]) if len(ends) else 0
    if len(text) != expected:
        raise ProtocolError(f"sources.text has {len(text)} bytes, expected {expected}, the sum of sources.sizes")
    bounds = ends.tolist()
    return [text[start:end] for start, end in zip([0, *bounds[:-1]], bounds, strict=True)] if bounds else []


def scores_to_proto(scores: ScoreBatch) -> common_pb2.ScoreBatch:
    """Return scores as a message."""
    return common_pb2.ScoreBatch(
        count=len(scores),
        cases=scores.cases,
        statuses=_NUMBERS[scores.statuses].tobytes(),
        rewards=scores.rewards.astype("<f8", copy=False).tobytes(),
        flags=(scores.solved * np.uint8(_SOLVED) | scores.verified * np.uint8(_VERIFIED)).tobytes(),
        cases_passed=scores.cases_passed.astype("<u2").tobytes(),
        behaviours=scores.behaviours.tobytes(),
        case_rewards=scores.case_rewards.astype("<f4", copy=False).tobytes(),
        component_names=scores.component_names,
        components=scores.components.astype("<f4", copy=False).tobytes(),
        errors=scores.errors,
    )


def scores_from_proto(message: common_pb2.ScoreBatch) -> ScoreBatch:
    """Return the scores of a message.

    Raises:
        ProtocolError: an array is not of the size that `count` and `cases` give it, a number is not finite, a status is
            unknown, or a score contradicts itself.
    """
    count, cases, names = message.count, message.cases, tuple(message.component_names)

    def read(name: str, dtype: str, *shape: int) -> npt.NDArray[np.generic]:
        return read_array(getattr(message, name), dtype, shape, name=f"scores.{name}")

    flags = read("flags", "u1", count).astype(np.uint8)
    scores = ScoreBatch(
        statuses=_POSITIONS[read("statuses", "u1", count).astype(np.uint8)],
        rewards=read("rewards", "<f8", count).astype(np.float64),
        solved=(flags & _SOLVED).astype(np.bool_),
        verified=(flags & _VERIFIED).astype(np.bool_),
        cases_passed=read("cases_passed", "<u2", count).astype(np.int64),
        behaviours=read("behaviours", "u1", count, BEHAVIOUR_BYTES).astype(np.uint8),
        case_rewards=read("case_rewards", "<f4", count, cases).astype(np.float32),
        component_names=names,
        components=read("components", "<f4", count if names else 0, len(names)).astype(np.float32),
        errors=tuple(message.errors),
    )
    _check(scores, flags)
    return scores


def check_scores(batch: ScoreBatch, *, programs: int, cases: int, is_sandboxed: bool) -> None:
    """Check a worker's scores against what was asked of it; that each is possible by itself is known by now.

    Args:
        batch: what `scores_from_proto` returned.
        programs: how many were to be scored.
        cases: reward cases of the task.
        is_sandboxed: whether the language's rewards are in [0, 1]; those of others are finite and no more.

    Raises:
        ProtocolError: another number of programs or cases, a reward, component or reward of a case out of range, a
            program that is solved without having passed every case, or one that the sandbox failed.
    """
    if (len(batch), batch.cases) != (programs, cases):
        raise ProtocolError(
            f"{len(batch)} scores over {batch.cases} cases for {programs} programs on a task of {cases} cases"
        )
    _refuse(batch.statuses == _SANDBOX_ERROR, "is of a program that the sandbox failed: that is no score")
    _refuse(batch.solved & (batch.cases_passed < cases), f"is solved without having passed all {cases} cases")
    _refuse(batch.cases_passed < 0, "has passed fewer than no cases")
    if is_sandboxed:
        _refuse((batch.rewards < 0) | (batch.rewards > 1), "has a reward that is not in [0, 1]")
        _refuse((batch.case_rewards < 0) | (batch.case_rewards > 1), "has a reward of a case that is not in [0, 1]")
        _refuse((batch.components < 0) | (batch.components > 1), "has a component that is not in [0, 1]")


def _check(scores: ScoreBatch, flags: npt.NDArray[np.uint8]) -> None:
    _refuse(scores.statuses == _UNKNOWN, "has an unknown status; is the peer of another version?")
    _refuse(~np.isfinite(scores.rewards), "has a reward that is not finite")
    _refuse(~np.isfinite(scores.case_rewards), "has a reward of a case that is not finite")
    _refuse(~np.isfinite(scores.components), "has a component that is not finite")
    _refuse(scores.cases_passed > scores.cases, f"has passed more than the {scores.cases} cases there are")
    _refuse(flags > _SOLVED | _VERIFIED, "has an unknown flag; is the peer of another version?")
    _refuse(scores.verified & ~scores.solved, "is verified and not solved")
    if len(set(scores.component_names)) != len(scores.component_names):
        raise ProtocolError(f"scores.component_names has a name twice: {', '.join(scores.component_names)}")
    if scores.errors and len(scores.errors) != len(scores):
        raise ProtocolError(f"scores.errors has {len(scores.errors)} texts, expected {len(scores)} or none")


def _refuse(is_wrong: npt.NDArray[np.bool_], what: str) -> None:
    if is_wrong.any():
        raise ProtocolError(f"score {int(np.argwhere(is_wrong)[0, 0])} of the batch {what}")
