"""How often each behaviour was seen in a run, and the bonus for rare ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from altlas.core.priority_queue import behaviours_from_tensor, behaviours_to_tensor


class BehaviourCounts:
    """Counts of 16-byte behaviours."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}

    def bonuses(self, behaviours: list[bytes], weight: float) -> list[float]:
        """Count the behaviours in their order and return weight / sqrt(n) for each, n including this sighting.

        The count-based bonus of Bellemare et al. 2016 ("Unifying count-based exploration and intrinsic motivation",
        section 4), on what a program does instead of on a state.
        """
        bonuses = []
        for behaviour in behaviours:
            seen = self._counts.get(behaviour, 0) + 1
            self._counts[behaviour] = seen
            bonuses.append(weight / math.sqrt(seen))
        return bonuses

    def tensors(self) -> dict[str, Tensor]:
        """Return the counts as tensors, in order of first sighting."""
        return {
            "behaviours": behaviours_to_tensor(list(self._counts)),
            "counts": torch.tensor(list(self._counts.values()), dtype=torch.int64),
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take the counts of `tensors()`."""
        behaviours = behaviours_from_tensor(tensors["behaviours"])
        self._counts = dict(zip(behaviours, tensors["counts"].tolist(), strict=True))
