"""The figures of a comparison against known values and literal formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altlas.report.statistics import Duel, compare, quantile, solved_curve, wilson_interval

OUTCOMES = st.lists(st.one_of(st.none(), st.integers(1, 1000)), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_has_the_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 200).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilsons_interval_holds_what_the_score_test_does_not_reject(case: tuple[int, int]) -> None:
    """Its ends are where |rate - p| = z * sqrt(p * (1 - p) / n)."""
    successes, trials = case
    z = 1.959963984540054
    for end in wilson_interval(successes, trials):
        assert abs(successes / trials - end) == pytest.approx(z * math.sqrt(end * (1 - end) / trials), abs=1e-9)
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_proportion_is_an_error(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} of {trials}"):
        wilson_interval(successes, trials)


@given(OUTCOMES, st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_a_quantile_is_numpys_with_unsolved_at_the_budget(needed: list[int | None], fraction: float) -> None:
    found = quantile(needed, 1000, fraction)
    filled = [1000 if item is None else item for item in needed]
    assert found.programs == pytest.approx(np.quantile(filled, fraction))
    if None not in needed:
        assert not found.is_least
    if fraction == 1.0:
        assert found.is_least == (None in needed)


def test_a_quantile_that_rests_on_an_unsolved_run_is_marked() -> None:
    assert str(quantile([10, 20, None], 100, 0.5)) == "20"
    assert str(quantile([10, None, None], 12_000, 0.5)) == "≥ 12,000"
    assert str(quantile([10, None], 100, 0.5)) == "≥ 55"


def test_pairs_are_counted_apart() -> None:
    pairs = [(1, 2), (3, None), (5, 4), (None, 9), (7, 7), (None, None), (None, 1)]
    assert compare(pairs) == Duel(first=2, second=3, ties=1, neither=1)
    assert compare(pairs).pairs == len(pairs)


@given(OUTCOMES)
def test_the_curve_is_the_fraction_solved_by_then(needed: list[int | None]) -> None:
    curve = solved_curve(needed)
    for programs, fraction in curve:
        assert fraction == pytest.approx(sum(item is not None and item <= programs for item in needed) / len(needed))
    assert [programs for programs, _ in curve] == sorted({item for item in needed if item is not None})
