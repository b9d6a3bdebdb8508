"""Elites of a run: the best programs by reward, and the best on each case by itself.

A program that is right on a case which no other gets right is kept however poor it is on the rest, so that what it
knows can be combined with what others know (lexicase selection keeps such specialists: Spector 2012; quality-diversity
archives: Mouret and Clune 2015). Unique by behaviour: of two that do the same the shorter stays, then the older.

Invariants: an archive is what the rules leave of everything it was ever offered, however that came in batches;
`arrays` and `load` are inverse.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from altlas.config.sections import ArchiveSection
from altlas.core.score_batch import BEHAVIOUR_BYTES, ScoreBatch
from altlas.core.trajectory import BoolArray, FloatArray, IntArray, TrajectoryBatch
from altlas.errors import CheckpointError

_PARTS = ("rewards", "lengths", "tokens", "behaviours", "case_rewards")


@dataclass(frozen=True, slots=True)
class Elite:
    """A program in the archive; `tokens` ends with its <EOS> where it has one and holds no padding."""

    reward: float
    tokens: tuple[int, ...]
    behaviour: bytes
    case_rewards: FloatArray

    @property
    def rank(self) -> tuple[float, int]:
        """Smaller is better."""
        return (-self.reward, len(self.tokens))


@dataclass(frozen=True, slots=True)
class Elites:
    """The archive's programs as arrays, for drawing from: N programs padded to the longest, T tokens.

    tokens: int64 [N, T], 0 beyond each length. lengths: int64 [N]. best: int64 [K], the best by reward, best first.
    by_case: int64 [C, P], the best on each case; rows with fewer repeat their last. C is 0 where none are kept.
    """

    tokens: IntArray
    lengths: IntArray
    best: IntArray
    by_case: IntArray

    def __len__(self) -> int:
        return len(self.lengths)

    def draw(self, uniforms: FloatArray, *, case_share: float) -> IntArray:
        """Return a program for each row of `uniforms` [B, 3]: by case in a share `case_share`, else of the best.

        Raises:
            ValueError: the archive is empty.
        """
        if not len(self):
            raise ValueError("nothing can be drawn from an empty archive")
        best = self.best[(uniforms[:, 1] * len(self.best)).astype(np.int64)]
        if not self.by_case.size:
            return best
        cases, places = self.by_case.shape
        case = (uniforms[:, 1] * cases).astype(np.int64)
        place = (uniforms[:, 2] * places).astype(np.int64)
        return np.where(uniforms[:, 0] < case_share, self.by_case[case, place], best)


class Archive:
    """At most `size` programs by reward and `per_case` for each case, which may be the same."""

    def __init__(self, section: ArchiveSection) -> None:
        self._size = section.size
        self._per_case = section.per_case
        self._elites: dict[bytes, Elite] = {}
        self._best: list[bytes] = []
        self._by_case: list[list[bytes]] = []
        self._has_room = True

    def __len__(self) -> int:
        return len(self._elites)

    @property
    def best(self) -> list[Elite]:
        """The best by reward, best first."""
        return [self._elites[behaviour] for behaviour in self._best]

    @property
    def members(self) -> list[Elite]:
        """Every program, best first."""
        return sorted(self._elites.values(), key=lambda elite: elite.rank)

    def offer(self, batch: TrajectoryBatch, scores: ScoreBatch) -> IntArray:
        """Take what is good enough, in the batch's order; return the rows int64 [n] that are in afterwards."""
        candidates: dict[bytes, int] = {}
        rows = np.flatnonzero(self._may_enter(batch.lengths, scores))
        behaviours, lengths = scores.behaviours[rows].tobytes(), batch.lengths.tolist()
        for place, row in enumerate(rows.tolist()):
            behaviour = behaviours[place * BEHAVIOUR_BYTES : (place + 1) * BEHAVIOUR_BYTES]
            held, rival = self._elites.get(behaviour), candidates.get(behaviour)
            if held is not None and len(held.tokens) <= lengths[row]:
                continue
            if rival is not None and lengths[rival] <= lengths[row]:
                continue
            candidates.pop(behaviour, None)
            candidates[behaviour] = row
        if not candidates:
            return np.zeros(0, dtype=np.int64)
        for behaviour, row in candidates.items():
            self._elites.pop(behaviour, None)  # The order of `_elites` is that of age among equals.
            self._elites[behaviour] = Elite(
                float(scores.rewards[row]),
                tuple(batch.tokens[row, : batch.lengths[row]].tolist()),
                behaviour,
                scores.case_rewards[row].copy(),
            )
        self._select()
        return np.array(sorted(row for key, row in candidates.items() if key in self._elites), dtype=np.int64)

    def _may_enter(self, lengths: IntArray, scores: ScoreBatch) -> BoolArray:
        """Return which programs surpass the last of some list, bool [B]: no others are in one afterwards."""
        if self._has_room:
            return np.ones(len(scores), dtype=np.bool_)
        surpasses = _outranks(scores.rewards, lengths, [self._elites[self._best[-1]]])[:, 0]
        if self._by_case:
            last = [self._elites[column[-1]] for column in self._by_case]
            least = np.array([elite.case_rewards[case] for case, elite in enumerate(last)])
            is_equal = scores.case_rewards == least
            is_better = (scores.case_rewards > least) | is_equal & _outranks(scores.rewards, lengths, last)
            surpasses |= is_better.any(axis=1)
        return surpasses

    def _select(self) -> None:
        """Keep the best by reward and by case of all that are held."""
        ranked = self.members
        self._best = [elite.behaviour for elite in ranked[: self._size]]
        self._by_case = []
        if self._per_case and ranked:
            rewards = np.stack([elite.case_rewards for elite in ranked])
            # `ranked` is in order of reward, then length: a stable sort by case keeps that among equals.
            orders = np.argsort(-rewards, axis=0, kind="stable")[: self._per_case]
            self._by_case = [[ranked[row].behaviour for row in column] for column in orders.T.tolist()]
        self._has_room = len(ranked) < max(self._size, self._per_case)
        kept = set(self._best).union(*self._by_case)
        self._elites = {elite.behaviour: elite for elite in ranked if elite.behaviour in kept}

    def elites(self) -> Elites:
        """Return the programs as arrays, best first."""
        members = self.members
        position = {elite.behaviour: row for row, elite in enumerate(members)}
        lengths = np.array([len(elite.tokens) for elite in members], dtype=np.int64)
        tokens = np.zeros((len(members), int(lengths.max(initial=0))), dtype=np.int64)
        for row, elite in enumerate(members):
            tokens[row, : lengths[row]] = elite.tokens
        places = max((len(column) for column in self._by_case), default=0)
        by_case = np.array(
            [[position[key] for key in column + column[-1:] * (places - len(column))] for column in self._by_case],
            dtype=np.int64,
        ).reshape(len(self._by_case), places)
        return Elites(tokens, lengths, np.array([position[key] for key in self._best], dtype=np.int64), by_case)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return everything, best first: rewards, lengths, tokens end to end, behaviours, rewards of cases."""
        members = self.members
        cases = len(members[0].case_rewards) if members else 0
        behaviours = np.frombuffer(b"".join(elite.behaviour for elite in members), dtype=np.uint8)
        return {
            "rewards": np.array([elite.reward for elite in members], dtype=np.float64),
            "lengths": np.array([len(elite.tokens) for elite in members], dtype=np.int64),
            "tokens": np.array([token for elite in members for token in elite.tokens], dtype=np.int64),
            "behaviours": behaviours.reshape(-1, BEHAVIOUR_BYTES).copy(),
            "case_rewards": np.array([elite.case_rewards for elite in members], dtype=np.float32).reshape(
                len(members), cases
            ),
        }

    def load(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take what `arrays` gave.

        Raises:
            CheckpointError: a part is missing.
        """
        missing = [name for name in _PARTS if name not in arrays]
        if missing:
            raise CheckpointError(f"the archive lacks {', '.join(missing)}; take another checkpoint")
        tokens = iter(arrays["tokens"].tolist())
        self._elites = {}
        for reward, length, behaviour, cases in zip(
            *(arrays[name] for name in ("rewards", "lengths", "behaviours", "case_rewards")), strict=True
        ):
            key = behaviour.tobytes()
            self._elites[key] = Elite(float(reward), tuple(itertools.islice(tokens, int(length))), key, cases.copy())
        self._select()


def _outranks(rewards: npt.NDArray[np.float64], lengths: IntArray, elites: Sequence[Elite]) -> BoolArray:
    """Return whether programs [B] stand before elites [K] by reward and then length, bool [B, K]."""
    bars = np.array([elite.rank for elite in elites])
    gains, shorter = -rewards[:, None] - bars[:, 0], lengths[:, None] < bars[:, 1]
    outranks: BoolArray = (gains < 0) | (gains == 0) & shorter
    return outranks
