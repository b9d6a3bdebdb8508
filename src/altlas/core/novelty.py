"""How often each behaviour was seen in a run, and the bonus for rare ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from altlas.core.priority_queue import behaviours_from_tensor, behaviours_to_tensor, split_behaviours
from altlas.core.trajectory import ByteArray


class BehaviourCounts:
    """Counts of 16-byte behaviours."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}

    def bonuses(self, behaviours: ByteArray, weight: float) -> npt.NDArray[np.float64]:
        """Count behaviours [B, 16] in their order and return weight / sqrt(n) for each, n including this sighting.

        The count-based bonus of Bellemare et al. 2016 ("Unifying count-based exploration and intrinsic motivation",
        section 4), on what a program does instead of on a state.
        """
        counts = self._counts
        sightings = []
        for behaviour in split_behaviours(behaviours):
            counts[behaviour] = seen = counts.get(behaviour, 0) + 1
            sightings.append(seen)
        return weight / np.sqrt(np.array(sightings, dtype=np.float64))

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
