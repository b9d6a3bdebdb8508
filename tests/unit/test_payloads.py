"""What the coordinator believes of a worker's result, and an evaluator of a job."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altlas.core.program import ProgramStatus, fingerprints
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.errors import ProtocolError
from altlas.rpc.batches import scores_to_proto, sources_to_proto
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.convert import score_to_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2
from altlas.rpc.payloads import (
    check_fingerprints,
    read_job,
    read_result,
    read_stored_score,
    result_limit_bytes,
)
from altlas.rpc.trajectories import trajectories_from_proto

CASES = 2
ID = "u0.s0.abc"
ResultChange = Callable[[evaluator_pb2.JobResult], None]


def score(*, reward: float = 0.5, case_reward: float = 0.5, component: float = 0.5) -> Score:
    return Score(
        status=ProgramStatus.RUNTIME_ERROR,
        reward=reward,
        components={"exact": component},
        cases_passed=1,
        cases=CASES,
        behaviour=bytes(16),
        case_rewards=(case_reward, 1.0),
        error="x" * 500,
    )


def result(*scores: Score) -> evaluator_pb2.JobResult:
    batch = scores_to_proto(batch_scores(scores or (score(), score())))
    return evaluator_pb2.JobResult(job_id=ID, worker="w", scores=batch, seconds=0.5, tier="namespaces")


def read(message: evaluator_pb2.JobResult, *, is_sandboxed: bool = True) -> object:
    content = message.SerializeToString()
    return read_result(content, job_id=ID, programs=2, cases=CASES, is_sandboxed=is_sandboxed)


def test_an_honest_result_is_read() -> None:
    assert read_result(
        result().SerializeToString(), job_id=ID, programs=2, cases=CASES, is_sandboxed=True
    ).rewards.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("text", ["x" * 500, "\U0001f40d" * 500])
def test_the_longest_honest_errors_fit(text: str) -> None:
    message = result()
    message.scores.errors[:] = [text, text]
    read(message)


@pytest.mark.parametrize("field", ["reward", "case_reward", "component"])
@pytest.mark.parametrize("value", [-0.001, 1.001, 2.0, 1e30])
def test_only_sandboxed_rewards_are_in_0_to_1(field: str, value: float) -> None:
    message = result(score(), score(**{field: value}))
    with pytest.raises(ProtocolError, match=r"worker 'w': score 1 .* not in \[0, 1\]"):
        read(message)
    read(message, is_sandboxed=False)


def padded(message: evaluator_pb2.JobResult) -> None:
    message.worker = "w" * result_limit_bytes(2, CASES)


def set_scores(**arrays: bytes) -> ResultChange:
    def change(message: evaluator_pb2.JobResult) -> None:
        for name, content in arrays.items():
            setattr(message.scores, name, content)

    return change


def set_field(name: str, value: object) -> ResultChange:
    return lambda message: setattr(message, name, value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (padded, "bytes, at most .* are believed"),
        (set_field("job_id", "u0.s1.abc"), "is of job 'u0.s1.abc'"),
        (set_field("job_id", ""), "is of job ''"),
        (set_field("worker", "w" * 301), "more than 300"),
        (set_field("seconds", math.nan), "took nan seconds"),
        (set_field("seconds", -1.0), "took -1.0 seconds"),
        (lambda message: message.scores.component_names.extend(map(str, range(16))), "17 components"),
        (lambda message: message.scores.CopyFrom(result(*[score()] * 3).scores), "3 scores over 2 cases for 2"),
        (lambda message: message.scores.CopyFrom(result(score()).scores), "1 scores over 2 cases for 2"),
        (lambda message: message.scores.Clear(), "0 scores over 0 cases for 2"),
        (set_scores(statuses=b"\x01\x08"), "score 1 .* sandbox failed"),
        (set_scores(statuses=b"\x01\x63"), "score 1 .* unknown status"),
        (set_scores(flags=b"\x01\x00"), "score 0 .* solved without having passed"),
        (set_scores(rewards=struct.pack("<2d", 0.5, math.nan)), "score 1 .* not finite"),
        (set_scores(cases_passed=struct.pack("<2H", 3, 0)), "score 0 .* more than the 2 cases"),
        (set_scores(behaviours=bytes(31)), "behaviours has 31 bytes"),
    ],
)
def test_a_result_that_cannot_be_is_refused(change: ResultChange, reason: str) -> None:
    message = result()
    change(message)
    with pytest.raises(ProtocolError, match=reason):
        read(message)


@given(st.binary(max_size=200))
def test_what_is_no_result_is_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_result(content, job_id=ID, programs=2, cases=CASES, is_sandboxed=True)


def test_a_stored_score_is_read_and_checked() -> None:
    assert read_stored_score(score_to_proto(score()).SerializeToString(), cases=CASES).reward == 0.5


@pytest.mark.parametrize(
    "change",
    [
        {"reward": 2.0},
        {"reward": math.inf},
        {"behaviour": b"short"},
        {"cases": 3},
        {"components": {"exact": math.nan}},
        {"status": 99},
        {"solved": True},
        {"error": "x" * 100_000},
    ],
)
def test_a_stored_score_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    message = score_to_proto(score())
    message.MergeFrom(common_pb2.Score(**change))  # type: ignore[arg-type]
    with pytest.raises(ProtocolError):
        read_stored_score(message.SerializeToString(), cases=CASES)


def job() -> evaluator_pb2.Job:
    sources = [b"print(1)", b"print(2)"]
    names = b"".join(fingerprints("digest", "python", sources))
    return evaluator_pb2.Job(
        job_id=ID, run_id="run", task_digest="digest", sources=sources_to_proto(sources), fingerprints=names
    )


def test_a_job_is_read_and_its_fingerprints_are_those_of_its_programs() -> None:
    message, sources = read_job(job().SerializeToString(), job_id=ID, run_id="run")
    assert sources == [b"print(1)", b"print(2)"]
    check_fingerprints(message, sources, language="python")
    with pytest.raises(ProtocolError, match="fingerprints are not those"):
        check_fingerprints(message, sources[::-1], language="python")
    with pytest.raises(ProtocolError, match="fingerprints are not those"):
        check_fingerprints(message, sources, language="javascript")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"job_id": "other"}, "says it is 'other'"),
        ({"run_id": "other"}, "of 'other'"),
        ({"fingerprints": bytes(33)}, "33 bytes of fingerprints for 2 programs"),
        ({"sources": common_pb2.SourceBatch()}, "holds 0 programs"),
        ({"sources": common_pb2.SourceBatch(sizes=bytes(4 * 4097))}, "holds 4097 programs"),
        ({"sources": common_pb2.SourceBatch(sizes=b"\xff\xff\xff\xff" * 2, text=b"x")}, "text has 1 bytes"),
    ],
)
def test_a_job_that_cannot_be_is_refused(change: dict[str, object], reason: str) -> None:
    message = job()
    for name in change:
        message.ClearField(name)  # type: ignore[arg-type]
    message.MergeFrom(evaluator_pb2.Job(**change))  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match=reason):
        read_job(message.SerializeToString(), job_id=ID, run_id="run")


@given(st.binary(max_size=200))
def test_what_is_no_job_is_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_job(content, job_id=ID, run_id="run")


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"log_probs": struct.pack("<2f", 0.0, math.nan)}, "log_probs holds a number that is not finite"),
        ({"entropies": struct.pack("<2f", math.inf, 0.0)}, "entropies holds a number that is not finite"),
    ],
)
def test_trajectories_with_numbers_that_are_none_are_refused(arrays: dict[str, bytes], reason: str) -> None:
    message = common_pb2.TrajectoryBatch(lengths=b"\x02\0", tokens=b"\x01\0\x02\0", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match=reason):
        trajectories_from_proto([message], policy_version=0, pad_id=0, vocabulary_size=9)


def test_a_small_message_cannot_be_padded_to_gigabytes() -> None:
    lengths = struct.pack("<5000H", 60_000, *[1] * 4999)
    message = common_pb2.TrajectoryBatch(lengths=lengths, tokens=bytes(2 * (60_000 + 4999)))
    with pytest.raises(ProtocolError, match="5000 programs of up to 60000 tokens are too many"):
        trajectories_from_proto([message], policy_version=0, pad_id=0, vocabulary_size=9)
