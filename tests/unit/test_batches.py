"""Programs, scores and trajectories survive the wire, and a message that breaks the contract is an error."""

from __future__ import annotations

import dataclasses
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.core.score_batch import ScoreBatch, batch_scores, join_scores
from altlas.core.trajectory import TrajectoryBatch
from altlas.errors import ProtocolError
from altlas.rpc.batches import scores_from_proto, scores_to_proto, sources_from_proto, sources_to_proto
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.convert import score_from_proto, score_to_proto
from altlas.rpc.trajectories import trajectories_from_proto, trajectories_to_proto

FINITE = st.floats(allow_nan=False, allow_infinity=False)
FLOAT32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
NAMES = st.sampled_from([(), ("syntax",), ("syntax", "runs", "exact")])


@st.composite
def scores_of_one_task(draw: st.DrawFn) -> list[Score]:
    cases, names = draw(st.integers(0, 4)), draw(NAMES)

    def one() -> Score:
        solved = draw(st.booleans())
        return Score(
            status=draw(st.sampled_from(ProgramStatus)),
            reward=draw(FINITE),
            components={name: draw(FLOAT32) for name in names},
            cases_passed=draw(st.integers(0, cases)),
            cases=cases,
            solved=solved,
            verified=solved and draw(st.booleans()),
            behaviour=draw(st.binary(min_size=16, max_size=16)),
            error=draw(st.sampled_from(["", "ValueError: ü"])),
            case_rewards=tuple(draw(FLOAT32) for _ in range(cases)),
        )

    return [one() for _ in range(draw(st.integers(1, 6)))]


@given(scores_of_one_task())
def test_scores_survive_the_wire(scores: list[Score]) -> None:
    content = scores_to_proto(batch_scores(scores)).SerializeToString()
    again = scores_from_proto(common_pb2.ScoreBatch.FromString(content))
    assert [again.score(row) for row in range(len(again))] == scores
    assert [score_from_proto(score_to_proto(score)) for score in scores] == scores


@given(scores=scores_of_one_task(), rows=st.lists(st.integers(0, 5), max_size=8), at=st.integers(1, 5))
def test_taking_and_joining_equal_those_on_lists(scores: list[Score], rows: list[int], at: int) -> None:
    batch = batch_scores(scores)
    rows = [row % len(scores) for row in rows]
    taken = batch.take(np.array(rows, dtype=np.int64))
    assert [taken.score(row) for row in range(len(taken))] == [scores[row] for row in rows]
    joined = join_scores([batch_scores(part) for part in (scores[:at], scores[at:]) if part])
    assert [joined.score(row) for row in range(len(joined))] == scores


def message() -> common_pb2.ScoreBatch:
    score = Score(
        status=ProgramStatus.OK,
        reward=-3.5,
        components={"exact": 0.5},
        cases_passed=1,
        cases=2,
        behaviour=bytes(16),
        case_rewards=(1.0, -8.0),
        error="late",
    )
    return scores_to_proto(batch_scores([score, score]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"count": 3}, r"scores\.flags has 2 bytes, expected 3"),
        ({"cases": 3}, r"scores\.case_rewards has 16 bytes, expected 24 for <f4 \[2, 3\]"),
        ({"rewards": bytes(15)}, r"scores\.rewards has 15 bytes, expected 16"),
        ({"cases_passed": bytes(8)}, r"scores\.cases_passed has 8 bytes, expected 4"),
        ({"behaviours": bytes(16)}, r"scores\.behaviours has 16 bytes, expected 32"),
        ({"components": b""}, r"scores\.components has 0 bytes, expected 8"),
        ({"statuses": b"\x01\x63"}, "score 1 .* unknown status"),
        ({"statuses": b"\x00\x01"}, "score 0 .* unknown status"),
        ({"rewards": struct.pack("<2d", 0.0, float("inf"))}, "score 1 .* not finite"),
        ({"case_rewards": struct.pack("<4f", 0.0, 0.0, float("nan"), 0.0)}, "score 1 .* not finite"),
        ({"components": struct.pack("<2f", float("nan"), 0.0)}, "score 0 .* not finite"),
        ({"cases_passed": struct.pack("<2H", 1, 3)}, "score 1 .* more than the 2 cases"),
        ({"flags": b"\x02\x03"}, "score 0 .* verified and not solved"),
        ({"flags": b"\x03\x08"}, "score 1 .* unknown flag"),
        ({"errors": ["a"]}, r"scores\.errors has 1 texts, expected 2 or none"),
        ({"component_names": ["a", "a"], "components": bytes(16)}, "a name twice"),
    ],
)
def test_scores_that_break_the_contract_are_refused(change: dict[str, object], reason: str) -> None:
    changed = message()
    for name in change:
        changed.ClearField(name)  # type: ignore[arg-type]
    changed.MergeFrom(common_pb2.ScoreBatch(**change))  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match=reason):
        scores_from_proto(changed)


@given(st.lists(st.binary(max_size=9), max_size=9))
def test_sources_survive_the_wire(sources: list[bytes]) -> None:
    content = sources_to_proto(sources).SerializeToString()
    assert sources_from_proto(common_pb2.SourceBatch.FromString(content)) == sources


@pytest.mark.parametrize(
    ("sizes", "text", "reason"),
    [
        (bytes(3), b"", "sources.sizes has 3 bytes, expected 0"),
        (b"\x02\0\0\0", b"abc", "sources.text has 3 bytes, expected 2"),
        (b"", b"abc", "sources.text has 3 bytes, expected 0"),
    ],
)
def test_sources_of_another_size_are_refused(sizes: bytes, text: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        sources_from_proto(common_pb2.SourceBatch(sizes=sizes, text=text))


@st.composite
def trajectory_batches(draw: st.DrawFn) -> TrajectoryBatch:
    lengths = np.array(draw(st.lists(st.integers(1, 6), min_size=1, max_size=7)), dtype=np.int64)
    inside = np.arange(lengths.max()) < lengths[:, None]
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return TrajectoryBatch(
        indices=np.arange(len(lengths), dtype=np.int64) + draw(st.integers(0, 1 << 20)),
        tokens=np.where(inside, random.integers(1, 70, inside.shape), 0),
        lengths=lengths,
        log_probs=np.where(inside, -random.random(inside.shape), 0).astype(np.float32),
        entropies=np.where(inside, random.random(inside.shape), 0).astype(np.float32),
        origins=random.integers(0, draw(st.sampled_from([1, 3])), len(lengths)).astype(np.uint8),
        policy_version=draw(st.integers(0, 1 << 40)),
    )


def from_parts(parts: list[common_pb2.TrajectoryBatch], version: int) -> TrajectoryBatch:
    return trajectories_from_proto(parts, policy_version=version, pad_id=0, vocabulary_size=70)


@given(batch=trajectory_batches(), size=st.integers(1, 7))
def test_trajectories_survive_the_wire_in_parts(batch: TrajectoryBatch, size: int) -> None:
    parts = [batch.part(start, start + size) for start in range(0, len(batch), size)]
    messages = [trajectories_to_proto(part, [b"x"] * len(part)) for part in parts]
    contents = [message.SerializeToString() for message in messages]
    again = from_parts([common_pb2.TrajectoryBatch.FromString(content) for content in contents], batch.policy_version)
    for field in dataclasses.fields(TrajectoryBatch):
        sent, found = np.asarray(getattr(batch, field.name)), np.asarray(getattr(again, field.name))
        assert found.dtype == sent.dtype
        assert np.array_equal(found, sent), field.name


@given(trajectory_batches())
def test_what_may_be_absent_is_zero(batch: TrajectoryBatch) -> None:
    sent = trajectories_to_proto(batch, [b""] * len(batch))
    for name in ("log_probs", "entropies", "origins", "sources"):
        sent.ClearField(name)  # type: ignore[arg-type]
    again = from_parts([sent], batch.policy_version)
    assert again.log_probs.shape == again.entropies.shape == batch.tokens.shape
    assert not again.log_probs.any()
    assert not again.entropies.any()
    assert again.origins.tolist() == [0] * len(batch)


def two_programs(**change: object) -> common_pb2.TrajectoryBatch:
    lengths = struct.pack("<2H", 1, 2)
    fields = {"first_index": 4, "policy_version": 9, "lengths": lengths, "tokens": struct.pack("<3H", 7, 8, 9)}
    return common_pb2.TrajectoryBatch(**(fields | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "without trajectories"),
        ([two_programs(lengths=b"", tokens=b"")], "without trajectories"),
        ([two_programs(lengths=bytes(5))], r"trajectories\.lengths has 5 bytes, expected 4"),
        ([two_programs(tokens=bytes(4))], r"trajectories\.tokens has 4 bytes, expected 6"),
        ([two_programs(log_probs=bytes(8))], r"trajectories\.log_probs has 8 bytes, expected 12"),
        ([two_programs(entropies=bytes(13))], r"trajectories\.entropies has 13 bytes, expected 12"),
        ([two_programs(origins=bytes(3))], r"trajectories\.origins has 3 bytes, expected 2"),
        ([two_programs(lengths=struct.pack("<2H", 3, 0))], "trajectory 5 is empty"),
        ([two_programs(tokens=struct.pack("<3H", 7, 70, 9))], "token 70 is not in a vocabulary of 70"),
        ([two_programs(), two_programs()], "begins at trajectory 4, expected 6"),
        ([two_programs(policy_version=8)], "policy version 8, expected 9"),
    ],
)
def test_trajectories_that_break_the_contract_are_refused(parts: list[common_pb2.TrajectoryBatch], reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        from_parts(parts, 9)


def test_components_of_one_task_may_come_in_any_order() -> None:
    one = Score(status=ProgramStatus.OK, reward=0.0, behaviour=bytes(16), components={"runs": 1.0, "exact": 0.5})
    other = dataclasses.replace(one, components={"exact": 0.25, "runs": 0.75})
    batch = batch_scores([one, other])
    assert [batch.score(0), batch.score(1)] == [one, other]
    assert join_scores([batch_scores([one]), batch_scores([other])]).score(1) == other


def test_scores_of_several_tasks_are_no_batch() -> None:
    one = Score(status=ProgramStatus.OK, reward=0.0, behaviour=bytes(16), cases=1, case_rewards=(0.0,))
    with pytest.raises(ValueError, match="score 1 is of another task"):
        batch_scores([one, dataclasses.replace(one, cases=2, case_rewards=(0.0, 0.0))])
    with pytest.raises(ValueError, match="lacks rewards of cases"):
        batch_scores([dataclasses.replace(one, case_rewards=())])
    with pytest.raises(ValueError, match="behaviour of 3 bytes"):
        batch_scores([dataclasses.replace(one, behaviour=b"abc")])
    other: ScoreBatch = batch_scores([dataclasses.replace(one, components={"exact": 1.0})])
    with pytest.raises(ValueError, match="different tasks"):
        join_scores([batch_scores([one]), other])
