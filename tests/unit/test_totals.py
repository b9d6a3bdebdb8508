"""The coordinator's counters and stopping conditions."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altlas.config.sections import RunSection
from altlas.core.curriculum import ProgressWindow
from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.errors import CheckpointError
from altlas_coordinator.stopping import StopReason, is_stuck, stop_reason
from altlas_coordinator.totals import NO_KEYS, RunTotals, Totals, pack_state, unpack_state


def score(reward: float, *, solved: bool = False, verified: bool = False) -> Score:
    return Score(status=ProgramStatus.OK, reward=reward, solved=solved, verified=verified, behaviour=bytes(16))


def add(totals: Totals, *scored: tuple[str, Score], unique: int = 0, evaluated: int = 0) -> list[int]:
    sources = [source.encode() for source, _ in scored]
    return totals.add(sources, batch_scores([item for _, item in scored]), unique=unique, evaluated=evaluated)


def test_counts_programs_over_updates() -> None:
    totals = Totals()
    add(totals, ("a", score(0.1)), ("b", score(0.2)), ("a", score(0.1)), unique=2, evaluated=2)
    add(totals, ("b", score(0.2)), ("c", score(0.0)), unique=1)
    assert (totals.updates, totals.programs, totals.unique_programs, totals.evaluated_programs) == (2, 5, 3, 2)


def test_best_is_the_first_of_equals_and_a_verified_program_beats_an_equal_reward() -> None:
    totals = Totals()
    assert add(totals, ("a", score(0.5)), ("b", score(0.5)), ("c", score(0.7))) == [0, 2]
    assert add(totals, ("d", score(1.0, solved=True))) == [0]
    assert add(totals, ("e", score(1.0, solved=True, verified=True))) == [0]
    assert add(totals, ("f", score(1.0, solved=True, verified=True))) == []
    assert (totals.best_program, totals.best_found_at, totals.verified) == ("e", 4, True)


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([-90.0, -1.0, 0.0, 0.5, 1.0]), st.booleans()), min_size=1, max_size=9),
        min_size=1,
        max_size=4,
    )
)
def test_best_equals_that_of_one_program_after_the_other(updates: list[list[tuple[float, bool]]]) -> None:
    totals, best, best_found_at, count = Totals(), (False, -math.inf), 0, 0
    for update in updates:
        expected = []
        for position, (reward, verified) in enumerate(update):
            if (verified, reward) > best:
                best, best_found_at = (verified, reward), count
                expected.append(position)
            count += 1
        scored = [(str(reward), score(reward, solved=verified, verified=verified)) for reward, verified in update]
        assert add(totals, *scored) == expected
    assert (totals.verified, totals.best_reward, totals.best_program) == (*best, str(best[1]))
    assert (totals.best_found_at, totals.solved) == (best_found_at, best[0])


def run_of(*tasks: Totals) -> RunTotals:
    return RunTotals(list(tasks), [ProgressWindow() for _ in tasks])


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), unique=True), min_size=1, max_size=3))
def test_state_round_trip_is_equal_and_deterministic(keys: list[list[int]]) -> None:
    seen = [np.array(own, dtype=np.uint64) for own in keys]
    totals = RunTotals.start(len(keys))
    for task, window, own in zip(totals.tasks, totals.windows, keys, strict=True):
        add(task, ("a", score(-0.25)), ("ü\n", score(0.5, solved=True)), unique=len(own))
        window.add(2, 0.125, task.best_reward, length=10)
    content = pack_state(totals, seen)
    again, seen_again = unpack_state(content)
    assert again == totals
    assert [own.tolist() for own in seen_again] == keys
    assert pack_state(again, seen_again) == content
    nothing = RunTotals.start(2)
    assert unpack_state(pack_state(nothing, [NO_KEYS, NO_KEYS]))[0] == nothing


def test_state_from_when_a_run_had_one_task_is_that_tasks() -> None:
    totals = Totals()
    add(totals, ("a", score(0.5)), unique=1)
    fields = dataclasses.asdict(totals)
    for name in ("unique_programs", "programs_to_solve", "programs_to_verify", "restarts"):
        del fields[name]
    header = json.dumps(fields).encode()
    content = len(header).to_bytes(4, "little") + header + (7).to_bytes(8, "little")
    again, seen = unpack_state(content)
    assert again.tasks == [totals]
    assert [keys.tolist() for keys in seen] == [[7]]


def test_a_run_is_the_sum_of_its_tasks_and_solved_when_all_are() -> None:
    first, second = Totals(seconds=1.5), Totals(seconds=2.0)
    add(first, ("a", score(0.1)), ("b", score(1.0, solved=True, verified=True)), unique=2, evaluated=2)
    add(second, ("a", score(0.2)), unique=1, evaluated=0)
    add(second, ("c", score(1.0, solved=True)), unique=1, evaluated=1)
    run = run_of(first, second)
    assert (run.updates, run.programs, run.unique_programs, run.evaluated_programs, run.seconds) == (3, 4, 4, 3, 3.5)
    assert (run.solved, run.verified) == (True, False)
    assert (first.programs_to_solve, first.programs_to_verify) == (2, 2)
    assert (second.programs_to_solve, second.programs_to_verify) == (2, None)
    add(second, ("d", score(1.0, solved=True)), ("e", score(1.0, solved=True, verified=True)))
    assert (second.programs_to_solve, second.programs_to_verify, run.verified) == (2, 4, True)


@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00{}", b"\x02\x00\x00\x00{}abc", b"\x04\x00\x00\x00nope"])
def test_damaged_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(CheckpointError, match="coordinator's state"):
        unpack_state(content)


@pytest.mark.parametrize(
    ("section", "totals", "is_requested", "expected"),
    [
        (RunSection(budget=10), Totals(programs=9), False, None),
        (RunSection(budget=10), Totals(programs=10), False, StopReason.BUDGET),
        (RunSection(budget=10), Totals(programs=4, solved=True), False, None),
        (RunSection(budget=10), Totals(programs=4, solved=True, verified=True), True, StopReason.SOLVED),
        (RunSection(budget=10, stop_on_solved=False), Totals(programs=4, verified=True), False, None),
        (RunSection(budget=10), Totals(programs=4), True, StopReason.REQUESTED),
        (RunSection(budget=10, wall_clock_s=2), Totals(programs=4, seconds=2.5), False, StopReason.WALL_CLOCK),
        (RunSection(budget=10, wall_clock_s=2), Totals(programs=4, seconds=1.5), False, None),
        (RunSection(budget=99, stuck_after=20, on_stuck="stop"), Totals(programs=20), False, StopReason.STUCK),
        (RunSection(budget=99, stuck_after=20, on_stuck="reinitialise"), Totals(programs=20), False, None),
    ],
)
def test_stop_reason(section: RunSection, totals: Totals, is_requested: bool, expected: StopReason | None) -> None:
    assert stop_reason(section, run_of(totals), is_requested=is_requested) is expected


DONE, FAR, NEAR = Totals(programs=4, verified=True), Totals(programs=20), Totals(programs=19)


@pytest.mark.parametrize(
    ("tasks", "on_stuck", "expected"),
    [
        ([DONE, NEAR], "stop", None),
        ([DONE, FAR], "stop", StopReason.STUCK),
        ([FAR, NEAR], "stop", None),
        ([FAR, FAR], "reinitialise", None),
        ([DONE, DONE], "stop", StopReason.SOLVED),
        ([FAR, FAR, FAR], "reinitialise", StopReason.BUDGET),
    ],
)
def test_a_run_goes_on_while_a_task_does(
    tasks: list[Totals], on_stuck: Literal["stop", "reinitialise"], expected: StopReason | None
) -> None:
    section = RunSection(budget=50, stuck_after=20, on_stuck=on_stuck)
    assert stop_reason(section, run_of(*tasks), is_requested=False) is expected


def test_stuck_counts_from_the_best_and_from_a_fresh_start() -> None:
    section = RunSection(budget=1000, stuck_after=100)
    assert is_stuck(section, Totals(programs=150, start_best_at=50))
    assert not is_stuck(section, Totals(programs=149, start_best_at=50))
    assert not is_stuck(section, Totals(programs=220, start_best_at=50, restarted_at=150))
    assert not is_stuck(section, Totals(programs=500, verified=True))
    assert not is_stuck(RunSection(budget=1000, stuck_after=0), Totals(programs=900))


def test_a_new_start_is_stuck_by_its_own_best_not_by_an_earlier_one() -> None:
    section, totals = RunSection(budget=1000, stuck_after=3), Totals()
    add(totals, ("a", score(0.9)), ("b", score(0.1)), ("c", score(0.1)), ("d", score(0.1)))
    assert is_stuck(section, totals)
    totals.restart()
    assert totals.restarts == 1
    assert not is_stuck(section, totals)
    add(totals, ("e", score(0.1)), ("f", score(0.1)))
    add(totals, ("g", score(0.2)), ("h", score(0.1)))
    assert not is_stuck(section, totals)
    assert totals.best_found_at == 0
    add(totals, ("i", score(0.2)))
    assert is_stuck(section, totals)
