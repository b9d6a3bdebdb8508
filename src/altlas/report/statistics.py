"""The figures of a comparison, from the runs of one task and algorithm: pure functions of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# The 97.5 % point of the standard normal distribution.
_Z_95 = 1.959963984540054


def wilson_interval(successes: int, trials: int, *, z: float = _Z_95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion, 95 % by default.

    Wilson, "Probable inference, the law of succession, and statistical inference", 1927. Unlike the normal
    approximation it is of use with five runs, and with none or all of them successful.

    Raises:
        ValueError: no trials, or successes outside 0 to trials.
    """
    if not 0 <= successes <= trials or not trials:
        raise ValueError(f"{successes} of {trials} is not a proportion")
    rate = successes / trials
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    centre, scale = rate + z * z / (2 * trials), 1 + z * z / trials
    # At the ends the interval touches 0 and 1 exactly, which rounding would miss.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


@dataclass(frozen=True, slots=True)
class Bound:
    """A number of programs; `is_least` where all that is known is that it takes no fewer."""

    programs: float
    is_least: bool

    def __str__(self) -> str:
        return f"{'≥ ' if self.is_least else ''}{self.programs:,.0f}"


def quantile(needed: Sequence[int | None], budget: int, fraction: float) -> Bound:
    """Return a quantile of programs to solve, by linear interpolation between order statistics.

    Args:
        needed: programs to solve, one a run; None where the budget was spent before, which counts as the budget.
        budget: of each run, programs.
        fraction: in [0, 1].

    Raises:
        ValueError: no runs.
    """
    if not needed:
        raise ValueError("no runs have no quantile")
    ordered = sorted((budget if programs is None else programs, programs is None) for programs in needed)
    place = fraction * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    value = below[0] + (above[0] - below[0]) * (place - math.floor(place))
    return Bound(value, is_least=above[1])


@dataclass(frozen=True, slots=True)
class Duel:
    """How often one algorithm needed fewer programs than another, over the same tasks and seeds."""

    first: int
    second: int
    ties: int
    neither: int

    @property
    def pairs(self) -> int:
        """Tasks and seeds that both have run."""
        return self.first + self.second + self.ties + self.neither


def compare(pairs: Iterable[tuple[int | None, int | None]]) -> Duel:
    """Count, over pairs of programs to solve (None: unsolved), who needed fewer."""
    first = second = ties = neither = 0
    for one, other in pairs:
        if one is None and other is None:
            neither += 1
        elif one == other:
            ties += 1
        elif other is None or (one is not None and one < other):
            first += 1
        else:
            second += 1
    return Duel(first, second, ties, neither)


def solved_curve(needed: Sequence[int | None]) -> list[tuple[int, float]]:
    """Return where the fraction of solved runs rises: (programs, fraction from there on), ascending."""
    ordered = sorted(programs for programs in needed if programs is not None)
    steps = {programs: (number + 1) / len(needed) for number, programs in enumerate(ordered)}
    return list(steps.items())
