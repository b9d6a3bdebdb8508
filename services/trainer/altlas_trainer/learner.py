"""What a run's algorithm has to offer the trainer, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from altlas.config.sections import Config
from altlas.core.score_batch import ScoreBatch
from altlas.core.trajectory import TrajectoryBatch
from altlas.errors import ProtocolError

if TYPE_CHECKING:
    from altlas.core.grammar import TokenConstraint
    from altlas.core.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class LearnReport:
    """What one update did. `policy_version` is the version after it."""

    policy_version: int
    metrics: dict[str, float]


class Learner(Protocol):
    """Everything of one run that learning changes. `updates` counts the updates done, and is the policy's version."""

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


def build_learner(
    config: Config,
    *,
    vocabulary: Vocabulary,
    constraint: TokenConstraint,
    device: torch.device,
    seed: int,
    inspection_dir: Path | None = None,
) -> Learner:
    """Return the learner of the configured algorithm, at its beginning."""
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
