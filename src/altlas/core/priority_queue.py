"""The best programs of a run, unique by behaviour, best first (Abolafia et al. 2018).

Of two programs with equal behaviour the shorter stays, then the older. Equal rewards are ordered by length, then age.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from altlas.core.score import Score
from altlas.core.trajectory import TrajectoryBatch

BEHAVIOUR_BYTES = 16


@dataclass(frozen=True, slots=True)
class QueueItem:
    """A program in the queue; `tokens` ends with its <EOS> and holds no padding."""

    reward: float
    tokens: tuple[int, ...]
    behaviour: bytes

    @property
    def rank(self) -> tuple[float, int]:
        """Smaller is better."""
        return (-self.reward, len(self.tokens))


class PriorityQueue:
    """At most `size` programs."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.items: list[QueueItem] = []

    def add(self, batch: TrajectoryBatch, scores: Sequence[Score]) -> None:
        """Offer every program of a batch, in its order."""
        best = {item.behaviour: item for item in self.items}
        for row, score in enumerate(scores):
            held = best.get(score.behaviour)
            if held is not None and held.rank <= (-score.reward, int(batch.lengths[row])):
                continue
            tokens = tuple(batch.tokens[row, : batch.lengths[row]].tolist())
            best[score.behaviour] = QueueItem(score.reward, tokens, score.behaviour)
        self.items = sorted(best.values(), key=lambda item: item.rank)[: self._size]

    @property
    def best_reward(self) -> float:
        """The first program's reward; 0 while there is none, the lowest reward there is."""
        return self.items[0].reward if self.items else 0.0

    def tensors(self) -> dict[str, Tensor]:
        """Return the queue as tensors, in order: rewards, lengths, tokens end to end, and behaviours."""
        return {
            "rewards": torch.tensor([item.reward for item in self.items], dtype=torch.float64),
            "lengths": torch.tensor([len(item.tokens) for item in self.items], dtype=torch.int64),
            "tokens": torch.tensor([token for item in self.items for token in item.tokens], dtype=torch.int64),
            "behaviours": behaviours_to_tensor([item.behaviour for item in self.items]),
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take the items of `tensors()`."""
        tokens = iter(tensors["tokens"].tolist())
        self.items = [
            QueueItem(reward, tuple(itertools.islice(tokens, length)), behaviour)
            for reward, length, behaviour in zip(
                tensors["rewards"].tolist(),
                tensors["lengths"].tolist(),
                behaviours_from_tensor(tensors["behaviours"]),
                strict=True,
            )
        ]


def behaviours_to_tensor(behaviours: list[bytes]) -> Tensor:
    """Return uint8 [n, 16] for 16-byte behaviours."""
    return torch.tensor([list(behaviour) for behaviour in behaviours], dtype=torch.uint8).reshape(-1, BEHAVIOUR_BYTES)


def behaviours_from_tensor(tensor: Tensor) -> list[bytes]:
    """Return the rows of uint8 [n, 16]."""
    return [bytes(row) for row in tensor.tolist()]
