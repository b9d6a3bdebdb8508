"""Shrinking a program until nothing small can be left out of it.

First delta debugging over tokens, `ddmin` (Zeller & Hildebrandt, "Simplifying and Isolating Failure-Inducing Input",
2002, figure 5), which ends where no single token can go. Then whatever takes tokens together: every span, longest first
(a statement whose value nobody uses), and every two (brackets, indentation); again from the start after each success.
Candidates are tried many at a time, and the first in order that holds is taken, so the result is that of trying them
one by one. What does not parse simply does not hold. Deterministic when the test is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, pairwise
from typing import Generic, TypeVar

T = TypeVar("T")
Holds = Callable[[Sequence[tuple[T, ...]]], Sequence[bool]]


# More than a round of ddmin has on any program; of the many spans and pairs, those after a success need not be tried.
_TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Shrunk(Generic[T]):
    """What was left.

    Attributes:
        tokens: the smallest sequence found that holds.
        candidates: how many sequences were tried.
        is_minimal: no span and no two tokens can be left out; False where the bound on candidates came first.
    """

    tokens: tuple[T, ...]
    candidates: int
    is_minimal: bool


def shrink(tokens: Sequence[T], score_all: Holds[T], *, max_candidates: int) -> Shrunk[T]:
    """Reduce tokens for as long as the test holds.

    Args:
        tokens: [T], a sequence for which the test holds; it is not tried itself.
        score_all: says of each of some candidates, in their order, whether it holds; never asked the same twice.
        max_candidates: the bound on how many are tried.

    Raises:
        ValueError: `score_all` did not answer for every candidate.
    """
    trial = _Trial(score_all, max_candidates)
    current = _ddmin(tuple(tokens), trial)
    while not trial.is_spent and (smaller := trial.first_that_holds(_without_spans_and_pairs(current))) is not None:
        current = _ddmin(smaller, trial)
    return Shrunk(current, trial.count, is_minimal=not trial.is_spent)


def _ddmin(current: tuple[T, ...], trial: _Trial[T]) -> tuple[T, ...]:
    parts = 2
    while current and not trial.is_spent:
        parts = min(parts, len(current))
        subsets, complements = _split(current, parts)
        if parts > 1 and (subset := trial.first_that_holds(subsets)) is not None:
            current, parts = subset, 2
        elif (complement := trial.first_that_holds(complements)) is not None:
            current, parts = complement, max(parts - 1, 2)
        elif parts < len(current):
            parts *= 2
        else:
            break
    return current


def _without_spans_and_pairs(tokens: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    size = len(tokens)
    for length in range(size, 0, -1):
        for start in range(size - length + 1):
            yield tokens[:start] + tokens[start + length :]
    for first, second in combinations(range(size), 2):
        yield tokens[:first] + tokens[first + 1 : second] + tokens[second + 1 :]


def _split(tokens: tuple[T, ...], parts: int) -> tuple[list[tuple[T, ...]], list[tuple[T, ...]]]:
    """Return `parts` pieces whose lengths differ by at most one, and what is left without each."""
    edges = [len(tokens) * part // parts for part in range(parts + 1)]
    pairs = list(pairwise(edges))
    return [tokens[low:high] for low, high in pairs], [tokens[:low] + tokens[high:] for low, high in pairs]


class _Trial(Generic[T]):
    """The test with a memory and a bound."""

    def __init__(self, score_all: Holds[T], max_candidates: int) -> None:
        self._score_all = score_all
        self._max = max_candidates
        self._known: dict[tuple[T, ...], bool] = {}
        self.is_spent = False

    @property
    def count(self) -> int:
        """Candidates tried."""
        return len(self._known)

    def first_that_holds(self, candidates: Iterable[tuple[T, ...]]) -> tuple[T, ...] | None:
        """Return the first candidate that holds, as far as the bound allows to look."""
        rest = iter(candidates)
        while not self.is_spent and (together := list(islice(rest, _TOGETHER))):
            fresh = [candidate for candidate in dict.fromkeys(together) if candidate not in self._known]
            allowed = fresh[: self._max - self.count]
            self.is_spent = len(allowed) < len(fresh)
            if allowed:
                self._known.update(zip(allowed, self._score_all(allowed), strict=True))
            for candidate in together:
                if self._known.get(candidate):
                    return candidate
        return None
