"""Shrinking gives what the paper's algorithm gives, tries no more than it may, and leaves nothing that can go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altlas.core.shrinking import shrink

Test = Callable[[Sequence[int]], bool]


def literal_ddmin(tokens: list[int], holds: Test) -> list[int]:
    """Figure 5 of the paper, one candidate after the other; a single token is also tried without it."""

    def ddmin2(current: list[int], n: int) -> list[int]:
        size = len(current)
        parts = [current[size * part // n : size * (part + 1) // n] for part in range(n)]
        rests = [current[: size * part // n] + current[size * (part + 1) // n :] for part in range(n)]
        for part in parts:
            if part != current and holds(part):
                return again(part, 2)
        for rest in rests:
            if holds(rest):
                return again(rest, max(n - 1, 2))
        if n < size:
            return again(current, min(size, 2 * n))
        return current

    def again(current: list[int], n: int) -> list[int]:
        return ddmin2(current, min(n, len(current))) if current else current

    return again(tokens, 2)


def literal_shrink(tokens: list[int], holds: Test) -> list[int]:
    """Until nothing changes: the paper's algorithm, or else the first span or pair that can go."""
    current = literal_ddmin(tokens, holds)
    size = len(current)
    spans = [set(range(start, start + length)) for length in range(size, 0, -1) for start in range(size - length + 1)]
    pairs = [{first, second} for first in range(size) for second in range(first + 1, size)]
    for gone in [*spans, *pairs]:
        rest = [token for at, token in enumerate(current) if at not in gone]
        if holds(rest):
            return literal_shrink(rest, holds)
    return current


def contains(needed: Sequence[int]) -> Test:
    """A subsequence is needed, in order."""

    def holds(tokens: Sequence[int]) -> bool:
        rest = iter(tokens)
        return all(token in rest for token in needed)

    return holds


def counts_at_least(total: int) -> Test:
    return lambda tokens: sum(tokens) >= total


def is_balanced(tokens: Sequence[int]) -> bool:
    """0 opens, 1 closes: no single token can go, and a 2 must be within."""
    depth = 0
    for token in tokens:
        depth += {0: 1, 1: -1}.get(token, 0)
        if depth < 0:
            return False
    return depth == 0 and 2 in tokens


TESTS = st.one_of(
    st.lists(st.integers(0, 5), max_size=5).map(contains),
    st.integers(0, 20).map(counts_at_least),
    st.just(is_balanced),
)


@given(st.lists(st.integers(0, 5), max_size=24), TESTS)
def test_it_is_what_trying_one_by_one_gives_and_minimal(tokens: list[int], holds: Test) -> None:
    if not holds(tokens):
        return
    asked: list[tuple[int, ...]] = []

    def score_all(candidates: Sequence[tuple[int, ...]]) -> list[bool]:
        asked.extend(candidates)
        return [holds(candidate) for candidate in candidates]

    shrunk = shrink(tokens, score_all, max_candidates=100_000)
    assert list(shrunk.tokens) == literal_shrink(tokens, holds)
    assert holds(shrunk.tokens)
    assert shrunk.is_minimal
    assert not any(holds(shrunk.tokens[:at] + shrunk.tokens[at + 1 :]) for at in range(len(shrunk.tokens)))
    assert len(asked) == len(set(asked)) == shrunk.candidates


@given(st.integers(0, 40), st.lists(st.integers(0, 3), min_size=1, max_size=24))
def test_the_bound_is_kept_and_said(bound: int, tokens: list[int]) -> None:
    holds = contains(tokens[::2])
    whole = shrink(tokens, lambda candidates: [holds(item) for item in candidates], max_candidates=100_000)
    bounded = shrink(tokens, lambda candidates: [holds(item) for item in candidates], max_candidates=bound)
    assert bounded.candidates <= bound
    assert holds(bounded.tokens)
    assert bounded.is_minimal == (whole.candidates <= bound)
    if bounded.is_minimal:
        assert bounded == whole


def test_what_can_only_go_together_goes() -> None:
    """Brackets around what stays, and a span that no part of a bisection holds alone."""

    def holds(tokens: Sequence[int]) -> bool:
        text = "".join(map(str, tokens))
        return "5" in text and text.count("8") == text.count("9") and not set(text.replace("123", "")) & set("123")

    shrunk = shrink([4, 8, 5, 1, 2, 3, 9, 4], lambda items: [holds(item) for item in items], max_candidates=1000)
    assert shrunk.tokens == (5,)


def test_a_round_is_tried_together() -> None:
    rounds: list[int] = []

    def score_all(candidates: Sequence[tuple[str, ...]]) -> list[bool]:
        rounds.append(len(candidates))
        return ["x" in candidate for candidate in candidates]

    assert shrink("aaaaaxaa", score_all, max_candidates=1000).tokens == ("x",)
    assert len(rounds) <= 4
    assert max(rounds) > 1


def test_a_test_that_does_not_answer_for_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        shrink("ab", lambda candidates: [], max_candidates=10)
