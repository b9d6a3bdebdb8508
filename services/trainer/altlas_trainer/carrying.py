"""Runs of several tasks whose learners share nothing but, where it is carried over, an archive.

Invariant: a learner here is what it would be in a run of its own; a run of one task has its state and its hash as they
are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from altlas.config.sections import ArchiveSection, Config
from altlas.core.archive import Archive
from altlas.core.proposals import elites_to_tensors
from altlas.core.score_batch import ScoreBatch
from altlas.core.trajectory import TrajectoryBatch
from altlas.errors import CheckpointError
from altlas_trainer.learner import Learner, LearnReport, check_update, under

NEVER = -1


def task_prefix(position: int) -> str:
    """Return what the names of a task's tensors begin with: nothing for the first."""
    return f"task{position}." if position else ""


def carried(
    archives: Sequence[Archive], learned_at: Sequence[int], section: ArchiveSection, *, max_tokens: int
) -> Archive:
    """Return the newest archive that is not empty, without the programs that are too long for another task.

    Args:
        archives: of each task, by position.
        learned_at: the update at which each learned last.
        section: of the archives.
        max_tokens: of the other task.
    """
    filled = [position for position, archive in enumerate(archives) if len(archive)]
    arrays = archives[max(filled, key=lambda position: learned_at[position], default=0)].arrays()
    lengths: npt.NDArray[np.int64] = arrays["lengths"].astype(np.int64)
    is_short = lengths <= max_tokens
    kept = {name: array[is_short] for name, array in arrays.items() if name != "tokens"}
    fitted = Archive(section)
    fitted.load({**kept, "tokens": arrays["tokens"][np.repeat(is_short, lengths)]})
    return fitted


class SeparateLearners:
    """A learner for each task. `max_tokens`: of each task, by position."""

    def __init__(self, config: Config, learners: Sequence[Learner], *, max_tokens: Sequence[int]) -> None:
        self._section = config.archive
        self._is_carried = config.curriculum.carry == "policy_and_archive"
        self._learners = learners
        self._max_tokens = max_tokens
        self._learned_at = [NEVER for _ in learners]
        self.updates = 0

    @property
    def parameters(self) -> int:
        """Weights that learning moves."""
        return sum(learner.parameters for learner in self._learners)

    def learn(
        self, batch: TrajectoryBatch, scores: ScoreBatch, *, update: int, reinitialise: bool = False, task: int = 0
    ) -> LearnReport:
        """See RunLearner."""
        check_update(batch, scores, update=update, due=self.updates)
        learner = self._learners[task]
        lag = update - batch.policy_version
        own = replace(batch, policy_version=learner.updates - lag)
        report = learner.learn(own, scores, update=learner.updates, reinitialise=reinitialise)
        self._learned_at[task] = self.updates
        self.updates += 1
        return LearnReport(self.updates, report.metrics)

    def snapshot(self, task: int = 0) -> dict[str, Tensor]:
        """See RunLearner."""
        tensors = self._learners[task].snapshot()
        if tensors or not self._is_carried:
            return tensors
        archives = [self._archive_of(learner) for learner in self._learners]
        archive = carried(archives, self._learned_at, self._section, max_tokens=self._max_tokens[task])
        return elites_to_tensors(archive.elites()) if len(archive) else {}

    def _archive_of(self, learner: Learner) -> Archive:
        tensors, _ = learner.state_dict()
        archive = Archive(self._section)
        archive.load({name: tensor.numpy() for name, tensor in under("archive.", tensors).items()})
        return archive

    def sha256(self) -> str:
        """See RunLearner."""
        hashes = [learner.sha256() for learner in self._learners]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See RunLearner."""
        states = [learner.state_dict() for learner in self._learners]
        tensors = {
            f"{task_prefix(position)}{name}": tensor
            for position, (own, _) in enumerate(states)
            for name, tensor in own.items()
        }
        metas = [meta for _, meta in states]
        if len(metas) == 1:
            return tensors, metas[0]
        return tensors, {"updates": self.updates, "learned_at": self._learned_at, "tasks": metas}

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """See RunLearner."""
        metas = meta.get("tasks", [meta])
        if len(metas) != len(self._learners):
            raise CheckpointError(f"trainer state has {len(metas)} tasks, the run {len(self._learners)}")
        for position, (learner, own) in enumerate(zip(self._learners, metas, strict=True)):
            learner.load_state(under(task_prefix(position), tensors), own)
        self.updates = int(meta["updates"])
        self._learned_at = list(meta.get("learned_at", [NEVER]))
