"""Which checkpoints are kept when a new one has been written, and which of them is the newest.

Newest is the highest (fence, update): a run that has gone back to update 50 and is now, under a higher fence, at 60 is
newer than the 70 that it has left behind.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What decides on a checkpoint; `mean_reward` is None where it was not told."""

    fence: int
    update: int
    mean_reward: float | None = None

    @property
    def rank(self) -> tuple[int, int]:
        """The higher, the newer."""
        return self.fence, self.update


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is kept: the union of the newest, the best and the periodic ones.

    keep_last: so many of the newest, at least one.
    keep_best: so many of the highest mean reward; of equal ones the newer.
    keep_every: those at a multiple of so many updates; 0 for none.
    """

    keep_last: int
    keep_best: int = 0
    keep_every: int = 0

    def __post_init__(self) -> None:
        if self.keep_last < 1:
            raise ValueError(f"keep_last is {self.keep_last}: at least one checkpoint must be kept")
        if self.keep_best < 0 or self.keep_every < 0:
            raise ValueError(f"keep_best is {self.keep_best}, keep_every {self.keep_every}: neither can be below 0")

    def kept(self, standings: Collection[Standing], *, saved: Standing) -> Set[Standing]:
        """Return those of `standings` that are kept now that `saved`, one of them, is durable.

        Abandoned ones, of a lower fence than `saved` and a higher update, are not. Later ones of its own fence are:
        nothing says which of them the run has left behind.
        """
        line = [each for each in standings if each.fence >= saved.fence or each.update <= saved.update]
        newer = {each for each in line if each.rank > saved.rank}
        line = sorted(set(line) - newer, key=lambda each: each.rank, reverse=True)
        told = [each for each in line if each.mean_reward is not None]
        # The sort is stable: of equal rewards the newer stays in front.
        best = sorted(told, key=lambda each: each.mean_reward or 0.0, reverse=True)[: self.keep_best]
        periodic = [each for each in line if self.keep_every and each.update % self.keep_every == 0]
        return {*newer, *line[: self.keep_last], *best, *periodic}
