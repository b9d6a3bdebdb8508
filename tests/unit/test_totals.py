"""The coordinator's counters and stopping conditions."""

from __future__ import annotations

import pytest

from altlas.config.sections import RunSection
from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.errors import CheckpointError
from altlas_coordinator.stopping import StopReason, is_stuck, stop_reason
from altlas_coordinator.totals import Totals


def score(reward: float, *, solved: bool = False, verified: bool = False) -> Score:
    return Score(status=ProgramStatus.OK, reward=reward, solved=solved, verified=verified)


def names(*words: str) -> list[bytes]:
    return [word.encode().ljust(16, b".") for word in words]


def test_counts_programs_and_unique_programs_over_updates() -> None:
    totals = Totals()
    totals.add(["a", "b", "a"], [score(0.1), score(0.2), score(0.1)], names("a", "b", "a"))
    totals.add(["b", "c"], [score(0.2), score(0.0)], names("b", "c"))
    assert (totals.updates, totals.programs, totals.unique_programs) == (2, 5, 3)


def test_best_is_the_first_of_equals_and_a_verified_program_beats_an_equal_reward() -> None:
    totals = Totals()
    assert totals.add(["a", "b", "c"], [score(0.5), score(0.5), score(0.7)], names("a", "b", "c")) == [0, 2]
    assert totals.add(["d"], [score(1.0, solved=True)], names("d")) == [0]
    assert totals.add(["e"], [score(1.0, solved=True, verified=True)], names("e")) == [0]
    assert totals.add(["f"], [score(1.0, solved=True, verified=True)], names("f")) == []
    assert (totals.best_program, totals.best_found_at, totals.verified) == ("e", 4, True)


def test_bytes_round_trip_is_equal_and_deterministic() -> None:
    totals = Totals()
    totals.add(["a", "ü\n"], [score(0.25), score(0.5)], names("a", "u"))
    again = Totals.from_bytes(totals.to_bytes())
    assert again == totals
    assert again.to_bytes() == totals.to_bytes()


@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00{}", b"\x02\x00\x00\x00{}abc", b"\x04\x00\x00\x00nope"])
def test_damaged_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(CheckpointError, match="coordinator's state"):
        Totals.from_bytes(content)


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
    assert stop_reason(section, totals, is_requested=is_requested) is expected


def test_stuck_counts_from_the_best_and_from_a_fresh_start() -> None:
    section = RunSection(budget=1000, stuck_after=100)
    assert is_stuck(section, Totals(programs=150, best_found_at=50))
    assert not is_stuck(section, Totals(programs=149, best_found_at=50))
    assert not is_stuck(section, Totals(programs=220, best_found_at=50, restarted_at=150))
    assert not is_stuck(section, Totals(programs=500, verified=True))
    assert not is_stuck(RunSection(budget=1000, stuck_after=0), Totals(programs=900))
