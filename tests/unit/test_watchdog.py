"""The watchdog over a clock that a test turns: when a run is reported, when it fails, and in which words."""

from __future__ import annotations

import math

import pytest

from altlas.config.sections import WatchdogSection
from altlas_coordinator.watchdog import Stall, Watchdog

SECTION = WatchdogSection(report_after=20, fail_after=400, least_report_s=10, least_fail_s=600)


class Clock:
    """Seconds that pass when told so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def watched(*durations: float) -> tuple[Watchdog, Clock]:
    """A watchdog that has seen updates of these durations."""
    clock = Clock()
    watchdog = Watchdog(SECTION, clock)
    for duration in durations:
        clock.now += duration
        watchdog.progress()
    return watchdog, clock


def checks(watchdog: Watchdog, clock: Clock, *, until_s: int) -> list[tuple[str, int]]:
    """What a check every second says, from now to so many seconds later."""
    started, said = clock.now, []
    for second in range(1, until_s + 1):
        clock.now = started + second
        if stall := watchdog.check():
            said.append((stall.kind, second))
    return said


CASES: list[tuple[str, list[float], int, list[tuple[str, int]]]] = [
    ("nothing before the least", [1.0] * 3, 19, []),
    ("by the median, then doubling", [1.0] * 3, 170, [("report", 20), ("report", 40), ("report", 80), ("report", 160)]),
    ("fast updates wait for the least", [0.01] * 3, 39, [("report", 10), ("report", 20)]),
    ("before the first update too", [], 45, [("report", 10), ("report", 20), ("report", 40)]),
    ("one slow update is no median", [1.0, 90.0, 1.0], 21, [("report", 20)]),
    ("slow updates are waited for", [30.0] * 3, 599, []),
    ("only the last fifty count", [90.0] * 60 + [1.0] * 26, 21, [("report", 20)]),
]


@pytest.mark.parametrize(
    ("durations", "until_s", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_when_a_stall_is_reported(durations: list[float], until_s: int, said: list[tuple[str, int]]) -> None:
    assert checks(*watched(*durations), until_s=until_s) == said


@pytest.mark.parametrize(
    ("durations", "fails_at"), [([], 600), ([0.125], 600), ([1.5], 600), ([2.0], 800), ([1.0, 2.0, 90.0], 800)]
)
def test_when_a_run_fails(durations: list[float], fails_at: int) -> None:
    said = checks(*watched(*durations), until_s=fails_at + 1)
    assert [second for kind, second in said if kind == "fail"] == [fails_at, fails_at + 1]


def test_progress_ends_a_stall_and_the_next_is_reported_anew() -> None:
    watchdog, clock = watched(1.0, 1.0, 1.0)
    assert checks(watchdog, clock, until_s=45) == [("report", 20), ("report", 40)]
    assert watchdog.progress() == 45.0
    assert checks(watchdog, clock, until_s=45) == [("report", 20), ("report", 40)]
    clock.now += 1.0
    watchdog.progress()
    clock.now += 1.0
    assert watchdog.progress() is None


def test_one_late_check_reports_once() -> None:
    watchdog, clock = watched(1.0)
    clock.now += 100.0
    stall = watchdog.check()
    assert stall is not None
    assert (stall.kind, stall.seconds) == ("report", 100.0)
    assert checks(watchdog, clock, until_s=150) == [("report", 100)]


def test_a_pause_counts_for_nothing() -> None:
    watchdog, clock = watched(1.0)
    clock.now += 5.0
    watchdog.paused(True)
    watchdog.begin("evaluating update 1", "evaluators")
    assert checks(watchdog, clock, until_s=10_000) == []
    watchdog.paused(True)
    watchdog.paused(False)
    watchdog.paused(False)
    assert checks(watchdog, clock, until_s=15) == [("report", 15)]
    stall = watchdog.check()
    assert stall is None
    watchdog.progress()
    assert checks(watchdog, clock, until_s=210) == [("report", 210)]  # the median of 1 s and 20 s, 20 times


def test_a_stall_tells_the_stage_that_it_is_in() -> None:
    watchdog, clock = watched(1.2, 1.2)
    clock.now += 2.0
    watchdog.begin("evaluating update 17", "evaluators")
    clock.now += 61.0
    stall = watchdog.check()
    assert stall is not None
    assert (stall.kind, stall.stage, stall.waiting_for) == ("report", "evaluating update 17", "evaluators")
    assert (stall.seconds, stall.stage_s) == pytest.approx((63.0, 61.0))
    assert stall.median_s is not None
    assert math.isclose(stall.median_s, 1.2)


TEXTS = [
    (
        Stall(
            kind="report", stage="evaluating update 17", waiting_for="evaluators", seconds=63, stage_s=61, median_s=1.2
        ),
        "no worker for 58 s",
        "no update for 63 s (median 1.2 s): evaluating update 17 for 61 s, waiting for evaluators: no worker for 58 s",
    ),
    (
        Stall(kind="fail", stage="starting", waiting_for="", seconds=600, stage_s=600, median_s=None),
        "",
        "no update for 600 s (none has ended yet): starting for 600 s",
    ),
]


@pytest.mark.parametrize(("stall", "details", "text"), TEXTS)
def test_a_stall_in_words(stall: Stall, details: str, text: str) -> None:
    assert stall.text(details) == text
