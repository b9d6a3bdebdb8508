"""One learner: advantage, loss, gradient, step. Owns everything of a run that learning changes.

Its whole state is in `state_dict`: an instance that loads it goes on bit for bit. A loss or gradient that is not finite
ends the run before the weights move. `updates` is both the count of updates done and the policy's version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from altlas.config.sections import Config
from altlas.core.novelty import BehaviourCounts
from altlas.core.objective import build_objective, mean_entropy, queue_loss, reinforce_loss
from altlas.core.policy import AltlasRNN, build_policy, load_weights
from altlas.core.priority_queue import BEHAVIOUR_BYTES, PriorityQueue
from altlas.core.score import Score
from altlas.core.teacher_forcing import TeacherForcing
from altlas.core.trajectory import IntArray, TrajectoryBatch
from altlas.errors import CheckpointError, LearningError, ProtocolError

if TYPE_CHECKING:
    from altlas.core.grammar import TokenConstraint
    from altlas.core.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class LearnReport:
    """What one update did. `policy_version` is the version after it."""

    policy_version: int
    metrics: dict[str, float]


class Trainer:
    """Policy, optimizer, baseline, queue and counts of one run."""

    def __init__(
        self,
        config: Config,
        *,
        vocabulary: Vocabulary,
        constraint: TokenConstraint,
        device: torch.device,
        seed: int,
        inspection_dir: Path | None = None,
    ) -> None:
        torch.set_num_threads(config.model.threads)
        self._config = config
        self._vocabulary = vocabulary
        self._constraint = constraint
        self._device = device
        self._seed = seed
        self._inspection_dir = inspection_dir
        self.updates = 0
        self.restarts = 0
        self._counts = BehaviourCounts()
        self._start()

    def _start(self) -> None:
        """Draw the weights of start number `restarts`; optimizer, baseline and queue begin anew."""
        self.policy: AltlasRNN = build_policy(
            self._config.model, len(self._vocabulary), seed=self._seed, restart_index=self.restarts
        ).to(self._device)
        self._optimizer = torch.optim.Adam(self.policy.parameters(), lr=self._config.optimizer.learning_rate)
        self._objective = build_objective(self._config.objective)
        self._queue = PriorityQueue(self._config.objective.pqt_size)
        self._forcing = TeacherForcing(
            self.policy,
            constraint=self._constraint,
            vocabulary=self._vocabulary,
            max_tokens=self._config.sampling.max_tokens,
            temperature=self._config.sampling.temperature,
            device=self._device,
        )

    def learn(
        self, batch: TrajectoryBatch, scores: Sequence[Score], *, update: int, reinitialise: bool = False
    ) -> LearnReport:
        """Make one update from programs and their scores, in the same order.

        With `reinitialise` new weights are drawn, and the batch, which the old ones sampled, is not learned from.
        Behaviour counts outlive that, so that the new start is drawn to what the old one did not find.

        Raises:
            ProtocolError: `update` is not the next one, or batch and scores do not fit together.
            LearningError: loss or gradient is not finite. The weights have not moved, and the batch lies in
                inspection_dir; the run has to end.
        """
        self._check(batch, scores, update)
        rewards = torch.tensor([score.reward for score in scores], dtype=torch.float64)
        if reinitialise:
            self.restarts += 1
            self._start()
            self.updates += 1
            return LearnReport(self.updates, _reward_metrics(rewards))
        returns = rewards + self._bonuses(scores)
        self._queue.add(batch, scores)
        advantages = self._objective.advantages(returns)
        metrics = self._backpropagate(batch, advantages)
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self._config.optimizer.gradient_clip)
        metrics |= {"gradient_norm": float(gradient_norm), "advantage_std": float(advantages.std(correction=0))}
        if not all(math.isfinite(value) for value in metrics.values()):
            raise LearningError(self._report_failure(batch, rewards, metrics))
        self._optimizer.step()
        self.updates += 1
        return LearnReport(self.updates, metrics | _reward_metrics(rewards) | {"queue_best": self._queue.best_reward})

    def _backpropagate(self, batch: TrajectoryBatch, advantages: Tensor) -> dict[str, float]:
        """Set the gradients of the loss over the batch and, for priority-queue training, the queue."""
        section = self._config.objective
        queued = [item.tokens for item in self._queue.items] if section.pqt_weight else []
        tokens, lengths = self._append(batch, queued)
        lengths_tensor = torch.from_numpy(lengths)
        size = len(batch)
        values = self._forcing.evaluate(tokens, lengths)
        log_probs, entropies = values.log_probs.cpu().double(), values.entropies.cpu().double()
        policy_loss = reinforce_loss(log_probs[:size], advantages)
        entropy = mean_entropy(entropies[:size], lengths_tensor[:size])
        pqt_loss = queue_loss(log_probs[size:], lengths_tensor[size:]) if queued else torch.zeros_like(policy_loss)
        loss = policy_loss + section.pqt_weight * pqt_loss - section.entropy_weight * entropy
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        metrics = {"loss": loss, "policy_loss": policy_loss, "entropy": entropy, "pqt_loss": pqt_loss}
        return {name: float(value.detach()) for name, value in metrics.items()}

    def _append(self, batch: TrajectoryBatch, queued: Sequence[tuple[int, ...]]) -> tuple[IntArray, IntArray]:
        """Return tokens [N, T] and lengths [N] of the batch's programs followed by the queue's."""
        lengths = np.concatenate([batch.lengths, np.array([len(item) for item in queued], dtype=np.int64)])
        tokens = np.full((len(lengths), int(lengths.max())), self._vocabulary.pad_id, dtype=np.int64)
        longest = int(batch.lengths.max())
        tokens[: len(batch), :longest] = batch.tokens[:, :longest]
        for row, item in enumerate(queued, start=len(batch)):
            tokens[row, : len(item)] = item
        return tokens, lengths

    def _bonuses(self, scores: Sequence[Score]) -> Tensor:
        weight = self._config.objective.novelty_weight
        if not weight:
            return torch.zeros(len(scores), dtype=torch.float64)
        bonuses = self._counts.bonuses([score.behaviour for score in scores], weight)
        return torch.tensor(bonuses, dtype=torch.float64)

    def _check(self, batch: TrajectoryBatch, scores: Sequence[Score], update: int) -> None:
        where = f"learn, update {update}"
        if update != self.updates:
            raise ProtocolError(f"{where}: {self.updates} updates are done, so the next one is {self.updates}")
        if not len(batch) == len(scores) > 0:
            raise ProtocolError(f"{where}: {len(batch)} trajectories with {len(scores)} scores; send as many, and some")
        for index, score in zip(batch.indices.tolist(), scores, strict=True):
            if len(score.behaviour) != BEHAVIOUR_BYTES:
                size = len(score.behaviour)
                raise ProtocolError(f"{where}: score {index} has a behaviour of {size} bytes, not {BEHAVIOUR_BYTES}")

    def _report_failure(self, batch: TrajectoryBatch, rewards: Tensor, metrics: Mapping[str, float]) -> str:
        """Save the batch and return the message of the error."""
        found = ", ".join(f"{name} {value}" for name, value in metrics.items())
        message = f"update {self.updates}: the loss or its gradient is not finite ({found}); the weights are as before"
        if self._inspection_dir is None:
            return f"{message}; the batch was not saved, because this trainer was given no directory"
        path = self._inspection_dir / f"not_finite_update_{self.updates}.safetensors"
        self._inspection_dir.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(batch, name) for name in ("indices", "tokens", "lengths", "log_probs", "entropies")}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        tensors |= {f"policy.{name}": tensor.cpu().contiguous() for name, tensor in self.policy.state_dict().items()}
        save_file({**tensors, "rewards": rewards}, path, metadata={"problem": found})
        return f"{message}; batch, rewards and weights are in {path}; lower optimizer.learning_rate or resume earlier"

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return a copy of everything that learning changes: tensors on the CPU, and values fit for JSON."""
        tensors = {f"policy.{name}": tensor for name, tensor in self.policy.state_dict().items()}
        for name, parameter in self.policy.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
        tensors |= {f"queue.{name}": tensor for name, tensor in self._queue.tensors().items()}
        tensors |= {f"novelty.{name}": tensor for name, tensor in self._counts.tensors().items()}
        copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        return copies, {"updates": self.updates, "restarts": self.restarts, "baseline": self._objective.baseline}

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            CheckpointError: a part is missing, or the weights do not fit the configuration; nothing is half loaded
                that a later call would not overwrite.
        """
        missing = {"updates", "restarts", "baseline"} - meta.keys()
        missing |= {f"{group}.{name}" for group, names in _PARTS.items() for name in names} - tensors.keys()
        if missing:
            raise CheckpointError(f"trainer state lacks {', '.join(sorted(missing))}; take another checkpoint")
        self.updates, self.restarts = int(meta["updates"]), int(meta["restarts"])
        self._start()
        load_weights(self.policy, _under("policy.", tensors))
        self._load_optimizer(_under("optimizer.", tensors))
        self._objective.baseline = meta["baseline"]
        self._queue.load(_under("queue.", tensors))
        self._counts.load(_under("novelty.", tensors))

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        positions = {name: position for position, (name, _) in enumerate(self.policy.named_parameters())}
        for path, tensor in tensors.items():
            name, _, key = path.rpartition(".")
            state.setdefault(positions[name], {})[key] = tensor.clone()
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


_PARTS = {"queue": ("rewards", "lengths", "tokens", "behaviours"), "novelty": ("behaviours", "counts")}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _reward_metrics(rewards: Tensor) -> dict[str, float]:
    return {"mean_reward": float(rewards.mean()), "max_reward": float(rewards.max())}
