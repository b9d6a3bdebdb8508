"""What the policy's learner keeps for each of its tasks: rewards of one task are no measure for another's.

Invariant: `tensors` and `meta` hold everything, and `load` is their inverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from altlas.config.sections import Config
from altlas.core.archive import Archive
from altlas.core.entropy_target import EntropyWeight
from altlas.core.novelty import BehaviourCounts
from altlas.core.objective import build_objective, drawn_items, token_identities
from altlas.core.priority_queue import PriorityQueue
from altlas.core.score_batch import ScoreBatch
from altlas.core.trajectory import IntArray, TrajectoryBatch
from altlas.errors import CheckpointError
from altlas_trainer.learner import under

_PARTS = {
    "queue": ("rewards", "lengths", "tokens", "behaviours"),
    "novelty": ("behaviours", "counts"),
    "archive": ("rewards", "lengths", "tokens", "behaviours", "case_rewards"),
}


class TaskMemory:
    """Baseline, entropy weight, queue, archive and behaviour counts of one task."""

    def __init__(self, config: Config) -> None:
        self._section = config.objective
        self._archive_section = config.archive
        self.counts = BehaviourCounts()
        self.restart()

    def restart(self) -> None:
        """Begin anew, but for the counts: a new start is drawn to what the old one did not find."""
        self.objective = build_objective(self._section)
        self.entropy_weight = EntropyWeight(self._section)
        self.queue = PriorityQueue(self._section.pqt_size)
        self.archive = Archive(self._archive_section)

    def offer(self, batch: TrajectoryBatch, scores: ScoreBatch, rows: IntArray) -> None:
        """Offer rows of a batch to the queue."""
        offered = batch.take(rows)
        is_by_tokens = self._section.pqt_unique == "tokens"
        identities = token_identities(offered.tokens, offered.lengths) if is_by_tokens else scores.behaviours[rows]
        self.queue.add(offered, scores.rewards[rows], identities)

    def imitated(self, *, seed: int, update: int) -> list[tuple[int, ...]]:
        """Return the programs whose likelihood an update raises."""
        if not self._section.pqt_weight:
            return []
        if self._section.pqt_source == "archive":
            return [elite.tokens for elite in self.archive.members]
        items = self.queue.items
        return [items[row].tokens for row in drawn_items(len(items), self._section.pqt_draw, seed=seed, update=update)]

    def bonuses(self, scores: ScoreBatch) -> Tensor:
        """Return what novelty adds to each reward, float64 [B]."""
        if not self._section.novelty_weight:
            return torch.zeros(len(scores), dtype=torch.float64)
        return torch.from_numpy(self.counts.bonuses(scores.behaviours, self._section.novelty_weight))

    def tensors(self) -> dict[str, Tensor]:
        """Return queue, counts and archive."""
        tensors = {f"queue.{name}": tensor for name, tensor in self.queue.tensors().items()}
        tensors |= {f"novelty.{name}": tensor for name, tensor in self.counts.tensors().items()}
        arrays = self.archive.arrays().items()
        return tensors | {f"archive.{name}": torch.from_numpy(np.asarray(array)) for name, array in arrays}

    def meta(self) -> dict[str, Any]:
        """Return baseline and entropy weight, fit for JSON."""
        return {"baseline": self.objective.baseline} | self.entropy_weight.meta()

    def load(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Take what `tensors` and `meta` returned; other names are left alone.

        Raises:
            CheckpointError: a part is missing.
        """
        missing = {f"{group}.{name}" for group, names in _PARTS.items() for name in names} - tensors.keys()
        missing |= {"baseline"} - meta.keys()
        if missing:
            raise CheckpointError(f"trainer state lacks {', '.join(sorted(missing))}; take another checkpoint")
        self.restart()
        self.objective.baseline = meta["baseline"]
        self.entropy_weight.load(meta)
        self.queue.load(under("queue.", tensors))
        self.counts.load(under("novelty.", tensors))
        self.archive.load({name: tensor.numpy() for name, tensor in under("archive.", tensors).items()})
