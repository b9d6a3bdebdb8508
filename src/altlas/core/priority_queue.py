"""The best programs of a run, unique by behaviour, best first (Abolafia et al. 2018).

Of two programs with equal behaviour the shorter stays, then the older. Equal rewards are ordered by length, then age.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from altlas.core.score_batch import BEHAVIOUR_BYTES
from altlas.core.trajectory import ByteArray, TrajectoryBatch


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

    def add(self, batch: TrajectoryBatch, rewards: npt.NDArray[np.float64], behaviours: ByteArray) -> None:
        """Offer every program of a batch, in its order; rewards [B], behaviours [B, 16]."""
        rows = self._rows_that_may_enter(batch, rewards)
        if not rows:
            return
        names = split_behaviours(behaviours)
        first_row = dict(zip(reversed(names), range(len(names) - 1, -1, -1), strict=True))
        best = {item.behaviour: item for item in self.items}
        # A behaviour is as old as its first sighting, though a later program may stand for it.
        for row in sorted(rows, key=lambda row: (first_row[names[row]], row)):
            reward, length, behaviour = float(rewards[row]), int(batch.lengths[row]), names[row]
            held = best.get(behaviour)
            if held is None or not held.rank <= (-reward, length):
                best[behaviour] = QueueItem(reward, tuple(batch.tokens[row, :length].tolist()), behaviour)
        self.items = sorted(best.values(), key=lambda item: item.rank)[: self._size]

    def _rows_that_may_enter(self, batch: TrajectoryBatch, rewards: npt.NDArray[np.float64]) -> list[int]:
        """Return the rows that are better than the last of a full queue: no others can be in it afterwards."""
        if len(self.items) < self._size:
            return list(range(len(batch)))
        reward, length = self.items[-1].reward, len(self.items[-1].tokens)
        is_better = (rewards > reward) | ((rewards == reward) & (batch.lengths < length)) | np.isnan(rewards)
        found: list[int] = np.flatnonzero(is_better).tolist()
        return found

    @property
    def best_reward(self) -> float:
        """The first program's reward; minus infinity while there is none."""
        return self.items[0].reward if self.items else -math.inf

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


def split_behaviours(behaviours: ByteArray) -> list[bytes]:
    """Return the rows of uint8 [n, 16] as bytes."""
    content = behaviours.tobytes()
    return [content[start : start + BEHAVIOUR_BYTES] for start in range(0, len(content), BEHAVIOUR_BYTES)]


def behaviours_to_tensor(behaviours: list[bytes]) -> Tensor:
    """Return uint8 [n, 16] for 16-byte behaviours."""
    return torch.from_numpy(np.frombuffer(bytearray().join(behaviours), dtype=np.uint8)).reshape(-1, BEHAVIOUR_BYTES)


def behaviours_from_tensor(tensor: Tensor) -> list[bytes]:
    """Return the rows of uint8 [n, 16]."""
    return split_behaviours(tensor.numpy())
