"""The controls: algorithms without a network, behind the trainer's interface and at the same count of programs.

`random` keeps nothing, `ga_archive` the elites that the policy's algorithm would keep, `ga` the population of the
published genetic algorithm. Their programs come from `altlas.core.proposals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from altlas.config.sections import Config
from altlas.core.archive import Archive
from altlas.core.policy import tensors_sha256
from altlas.core.proposals import elites_to_tensors, next_population
from altlas.core.score_batch import ScoreBatch
from altlas.core.trajectory import TrajectoryBatch
from altlas.errors import CheckpointError, ConfigError
from altlas_trainer.learner import LearnReport, check_update, reward_metrics, under

_NOTHING = np.zeros((0, 0), dtype=np.int64)
_POPULATION = ("tokens", "rewards", "elites", "elite_rewards")


class Evolution:
    """Archive or population of one run, or neither."""

    def __init__(self, config: Config) -> None:
        if config.algorithm.name == "ga" and config.sampling.length != "fixed":
            raise ConfigError(
                "algorithm.name = ga breeds programs of one length: set sampling.length = fixed and "
                "sampling.grammar = none, or take --preset paper-ga"
            )
        self._name = config.algorithm.name
        self._section = config.archive
        self.updates = 0
        self.restarts = 0
        self._start()

    @property
    def parameters(self) -> int:
        """See Learner."""
        return 0

    def _start(self) -> None:
        self._archive = Archive(self._section)
        self._tokens, self._rewards = _NOTHING, np.zeros(0)
        self._elites, self._elite_rewards = _NOTHING, np.zeros(0)

    def learn(
        self, batch: TrajectoryBatch, scores: ScoreBatch, *, update: int, reinitialise: bool = False
    ) -> LearnReport:
        """See Learner."""
        check_update(batch, scores, update=update, due=self.updates)
        self.updates += 1
        metrics = reward_metrics(scores)
        if reinitialise:
            self.restarts += 1
            self._start()
        elif self._name == "ga_archive":
            entered = self._archive.offer(batch, scores)
            metrics |= {"archive_size": float(len(self._archive)), "archive_entered": float(len(entered))}
        elif self._name == "ga":
            elites = self._elites.reshape(-1, batch.tokens.shape[1])
            self._tokens, self._rewards, self._elites, self._elite_rewards = next_population(
                batch.tokens, scores.rewards, elites, self._elite_rewards
            )
        return LearnReport(self.updates, metrics)

    def snapshot(self) -> dict[str, Tensor]:
        """See Learner."""
        if self._name == "ga_archive" and len(self._archive):
            return elites_to_tensors(self._archive.elites())
        if self._name == "ga" and len(self._tokens):
            return {
                "population.tokens": torch.from_numpy(self._tokens.copy()),
                "population.rewards": torch.from_numpy(self._rewards.copy()),
            }
        return {}

    def sha256(self) -> str:
        """See Learner."""
        return tensors_sha256(self.state_dict()[0])

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See Learner."""
        tensors = {f"archive.{name}": torch.from_numpy(array) for name, array in self._archive.arrays().items()}
        for name in _POPULATION:
            tensors[f"population.{name}"] = torch.from_numpy(getattr(self, f"_{name}").copy())
        return tensors, {"updates": self.updates, "restarts": self.restarts}

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """See Learner."""
        population = under("population.", tensors)
        missing = {f"population.{name}" for name in _POPULATION if name not in population}
        missing |= {"updates", "restarts"} - meta.keys()
        if missing:
            raise CheckpointError(f"trainer state lacks {', '.join(sorted(missing))}; take another checkpoint")
        self.updates, self.restarts = int(meta["updates"]), int(meta["restarts"])
        self._start()
        self._archive.load({name: tensor.numpy() for name, tensor in under("archive.", tensors).items()})
        for name in _POPULATION:
            setattr(self, f"_{name}", population[name].numpy().copy())
