"""What an algorithm has to offer the trainer, whichever it is, for one task and for a run of one or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from altlas.config.sections import Config
from altlas.core.curriculum import with_max_tokens
from altlas.core.score_batch import ScoreBatch
from altlas.core.trajectory import TrajectoryBatch
from altlas.errors import ProtocolError

if TYPE_CHECKING:
    from altlas.core.grammar import TokenConstraint
    from altlas.core.vocabulary import Vocabulary
    from altlas_trainer.group import Group


@dataclass(frozen=True, slots=True)
class LearnReport:
    """What one update did. `policy_version` is the version after it."""

    policy_version: int
    metrics: dict[str, float]


class Learner(Protocol):
    """Everything of one task that learning changes. `updates` counts the updates done."""

    updates: int

    @property
    def parameters(self) -> int:
        """Weights that learning moves."""

    def learn(
        self, batch: TrajectoryBatch, scores: ScoreBatch, *, update: int, reinitialise: bool = False
    ) -> LearnReport:
        """Make one update from programs and their scores, in the same order; with `reinitialise` start anew instead.

        Raises:
            ProtocolError: `update` is not the next one, or batch and scores do not fit together.
            LearningError: the update cannot be made; nothing has changed, and the run has to end.
        """

    def snapshot(self) -> dict[str, Tensor]:
        """Return what `altlas.core.proposals.build_proposer` takes."""

    def sha256(self) -> str:
        """Return a hash by which equal states of learning are known."""

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return a copy of everything that learning changes: tensors on the CPU, and values fit for JSON."""

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            CheckpointError: a part is missing or does not fit the configuration.
        """


class RunLearner(Protocol):
    """Everything of one run that learning changes: a Learner of one task or several, each known by its position.

    `updates` counts the updates done of all tasks, and is the policy's version.
    """

    updates: int

    @property
    def parameters(self) -> int:
        """Weights that learning moves."""

    def learn(
        self, batch: TrajectoryBatch, scores: ScoreBatch, *, update: int, reinitialise: bool = False, task: int = 0
    ) -> LearnReport:
        """See Learner; where tasks share weights, `reinitialise` starts the task anew and leaves these."""

    def snapshot(self, task: int = 0) -> dict[str, Tensor]:
        """Return what `altlas.core.proposals.build_proposer` takes for a task."""

    def sha256(self) -> str:
        """See Learner."""

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See Learner."""

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """See Learner."""


def build_run_learner(
    config: Config,
    *,
    max_tokens: Sequence[int],
    vocabulary: Vocabulary,
    constraint: TokenConstraint,
    device: torch.device,
    seed: int,
    inspection_dir: Path | None = None,
    group: Group | None = None,
) -> RunLearner:
    """Return the learner of a run's tasks at its beginning, or this process's in a group.

    `max_tokens`: of each task, by position.
    """
    from altlas_trainer.carrying import SeparateLearners
    from altlas_trainer.trainer import Trainer

    if config.algorithm.name == "policy" and (config.curriculum.carry != "nothing" or len(max_tokens) == 1):
        return Trainer(
            config,
            vocabulary=vocabulary,
            constraint=constraint,
            device=device,
            seed=seed,
            inspection_dir=inspection_dir,
            max_tokens=max_tokens,
            group=group,
        )
    learners = [
        build_learner(
            with_max_tokens(config, limit),
            vocabulary=vocabulary,
            constraint=constraint,
            device=device,
            seed=seed,
            inspection_dir=inspection_dir,
            group=group,
        )
        for limit in max_tokens
    ]
    return SeparateLearners(config, learners, max_tokens=max_tokens)


def build_learner(
    config: Config,
    *,
    vocabulary: Vocabulary,
    constraint: TokenConstraint,
    device: torch.device,
    seed: int,
    inspection_dir: Path | None = None,
    group: Group | None = None,
) -> Learner:
    """Return the learner of one task by the configured algorithm, at its beginning."""
    from altlas_trainer.evolution import Evolution
    from altlas_trainer.trainer import Trainer

    if config.algorithm.name == "policy":
        return Trainer(
            config,
            vocabulary=vocabulary,
            constraint=constraint,
            device=device,
            seed=seed,
            inspection_dir=inspection_dir,
            group=group,
        )
    return Evolution(config)


def check_update(batch: TrajectoryBatch, scores: ScoreBatch, *, update: int, due: int) -> None:
    """Raise ProtocolError unless `update` is the one that is due and there is a score for each of some programs."""
    where = f"learn, update {update}"
    if update != due:
        raise ProtocolError(f"{where}: {due} updates are done, so the next one is {due}")
    if not len(batch) == len(scores) > 0:
        raise ProtocolError(f"{where}: {len(batch)} trajectories with {len(scores)} scores; send as many, and some")


def reward_metrics(scores: ScoreBatch) -> dict[str, float]:
    """Return the batch's mean and largest reward."""
    return {"mean_reward": float(scores.rewards.mean()), "max_reward": float(scores.rewards.max())}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
