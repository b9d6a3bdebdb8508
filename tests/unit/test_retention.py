"""Which checkpoints are kept: the rule by a table, and against its plain reading for any history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altlas.checkpoint.retention import Retention, Standing


def line(*rewards: float | None, fence: int = 0) -> list[Standing]:
    """Checkpoints of updates 1, 2, ... with these mean rewards."""
    return [Standing(fence=fence, update=update, mean_reward=reward) for update, reward in enumerate(rewards, start=1)]


TABLE: list[tuple[str, Retention, list[Standing], list[int]]] = [
    ("the newest", Retention(keep_last=2), line(None, None, None), [2, 3]),
    ("the best of all", Retention(keep_last=1, keep_best=2), line(0.9, 0.1, 0.8, 0.2), [1, 3, 4]),
    ("of equals the newer", Retention(keep_last=1, keep_best=1), line(0.5, 0.5, 0.1), [2, 3]),
    ("negative rewards are rewards", Retention(keep_last=1, keep_best=1), line(-1.0, -2.0, -3.0), [1, 3]),
    ("a reward not told is no best", Retention(keep_last=1, keep_best=3), line(None, 0.1, None), [2, 3]),
    ("the periodic", Retention(keep_last=1, keep_every=2), line(*[None] * 7), [2, 4, 6, 7]),
    ("one for several reasons", Retention(keep_last=1, keep_best=1, keep_every=3), line(0.1, 0.2, 0.3), [3]),
]


@pytest.mark.parametrize(("retention", "standings", "kept"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_is_kept(retention: Retention, standings: list[Standing], kept: list[int]) -> None:
    found = retention.kept(standings, saved=standings[-1])
    assert sorted(each.update for each in found) == kept


@given(
    fences=st.lists(st.tuples(st.integers(0, 3), st.none() | st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=9),
    keep=st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(0, 4)),
    position=st.integers(0, 8),
)
def test_the_rule_read_word_by_word(
    fences: list[tuple[int, float | None]], keep: tuple[int, int, int], position: int
) -> None:
    standings = [
        Standing(fence=fence, update=update, mean_reward=reward) for update, (fence, reward) in enumerate(fences)
    ]
    highest = max(each.fence for each in standings)
    leading = [each for each in standings if each.fence == highest]
    saved = leading[position % len(leading)]
    kept = Retention(keep_last=keep[0], keep_best=keep[1], keep_every=keep[2]).kept(standings, saved=saved)
    assert saved in kept
    for each in standings:
        if each.update > saved.update:
            assert (each in kept) == (each.fence == saved.fence)
            continue
        others = [other for other in standings if other.update <= saved.update]
        newer = sum(other.rank > each.rank for other in others)
        better = sum(
            other.mean_reward is not None
            and each.mean_reward is not None
            and (other.mean_reward, other.rank) > (each.mean_reward, each.rank)
            for other in others
        )
        is_due = newer < keep[0]
        is_due |= each.mean_reward is not None and better < keep[1]
        is_due |= keep[2] > 0 and each.update % keep[2] == 0
        assert (each in kept) == is_due


@pytest.mark.parametrize("keep", [(0, 0, 0), (1, -1, 0), (1, 0, -1)])
def test_numbers_that_keep_nothing_are_refused(keep: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="keep_"):
        Retention(keep_last=keep[0], keep_best=keep[1], keep_every=keep[2])
