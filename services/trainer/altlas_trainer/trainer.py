"""The policy's learner: advantage, loss, gradient, step. Owns everything of a run that learning changes.

Its whole state is in `state_dict`: an instance that loads it goes on bit for bit. A loss or gradient that is not finite
ends the run before the weights move. `updates` is both the count of updates done and the policy's version.

Only programs that were sampled whole from the policy enter the policy gradient. All programs are offered to the queue
and to the archive, and what these hold is learned by imitation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from altlas.config.sections import Config
from altlas.core.archive import Archive
from altlas.core.entropy_target import EntropyWeight
from altlas.core.novelty import BehaviourCounts
from altlas.core.objective import build_objective, drawn_items, offered_rows, token_identities, update_losses
from altlas.core.optimizers import build_optimizer
from altlas.core.policy import AltlasRNN, build_policy, load_weights, policy_sha256
from altlas.core.priority_queue import PriorityQueue
from altlas.core.proposals import Origin, elites_to_tensors
from altlas.core.score_batch import ScoreBatch
from altlas.core.teacher_forcing import TeacherForcing
from altlas.core.trajectory import IntArray, TrajectoryBatch
from altlas.errors import CheckpointError, LearningError
from altlas_trainer.learner import LearnReport, check_update, reward_metrics, under

if TYPE_CHECKING:
    from altlas.core.grammar import TokenConstraint
    from altlas.core.vocabulary import Vocabulary


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
        """Draw the weights of start number `restarts`; optimizer, baseline, queue and archive begin anew."""
        config = self._config
        self.policy: AltlasRNN = build_policy(
            config.model, len(self._vocabulary), seed=self._seed, restart_index=self.restarts
        ).to(self._device)
        self._optimizer = build_optimizer(self.policy, config.optimizer)
        self._objective = build_objective(config.objective)
        self._entropy_weight = EntropyWeight(config.objective)
        self._queue = PriorityQueue(config.objective.pqt_size)
        self._archive = Archive(config.archive)
        self._forcing = TeacherForcing(
            self.policy,
            constraint=self._constraint,
            vocabulary=self._vocabulary,
            max_tokens=config.sampling.max_tokens,
            temperature=config.sampling.temperature,
            device=self._device,
        )

    @property
    def parameters(self) -> int:
        """Weights that learning moves."""
        return sum(parameter.numel() for parameter in self.policy.parameters() if parameter.requires_grad)

    @property
    def _has_archive(self) -> bool:
        proposals = self._config.proposals
        return bool(proposals.mutation or proposals.infill) or self._config.objective.pqt_source == "archive"

    def learn(
        self, batch: TrajectoryBatch, scores: ScoreBatch, *, update: int, reinitialise: bool = False
    ) -> LearnReport:
        """Make one update from programs and their scores, in the same order.

        With `reinitialise` new weights are drawn, and the batch, which the old ones sampled, is not learned from.
        Behaviour counts outlive that, so that the new start is drawn to what the old one did not find.

        Raises:
            ProtocolError: `update` is not the next one, or batch and scores do not fit together.
            LearningError: loss or gradient is not finite. The weights have not moved, and the batch lies in
                inspection_dir; the run has to end.
        """
        check_update(batch, scores, update=update, due=self.updates)
        if reinitialise:
            self.restarts += 1
            self._start()
            self.updates += 1
            return LearnReport(self.updates, reward_metrics(scores))
        returns = torch.tensor(scores.rewards) + self._bonuses(scores)
        metrics = self._remember(batch, scores)
        metrics |= self._backpropagate(batch, returns)
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self._config.optimizer.gradient_clip)
        metrics["gradient_norm"] = float(gradient_norm)
        if not all(math.isfinite(value) for value in metrics.values()):
            raise LearningError(self._report_failure(batch, scores, metrics))
        self._optimizer.step()
        self._entropy_weight.update(metrics["entropy"])
        if self._config.objective.pqt_offer == "batch_best":
            self._offer(batch, scores, offered_rows(torch.tensor(scores.rewards), "batch_best"))
        self.updates += 1
        return LearnReport(self.updates, metrics | reward_metrics(scores) | {"queue_best": self._queue.best_reward})

    def _remember(self, batch: TrajectoryBatch, scores: ScoreBatch) -> dict[str, float]:
        """Offer the batch to the queue and to the archive, as far as the update is to learn from it."""
        if self._config.objective.pqt_offer == "all":
            self._offer(batch, scores, np.arange(len(batch), dtype=np.int64))
        if not self._has_archive:
            return {}
        entered = self._archive.offer(batch, scores)
        by_origin = np.bincount(batch.origins[entered], minlength=len(Origin))
        counts = {
            f"entered_{origin.name.lower()}": float(by_origin[origin]) for origin in Origin if origin != Origin.BRED
        }
        return {"archive_size": float(len(self._archive)), **counts}

    def _offer(self, batch: TrajectoryBatch, scores: ScoreBatch, rows: IntArray) -> None:
        offered = batch.take(rows)
        is_by_tokens = self._config.objective.pqt_unique == "tokens"
        identities = token_identities(offered.tokens, offered.lengths) if is_by_tokens else scores.behaviours[rows]
        self._queue.add(offered, scores.rewards[rows], identities)

    def _backpropagate(self, batch: TrajectoryBatch, returns: Tensor) -> dict[str, float]:
        """Set the gradients of the loss over the batch's sampled programs and those that are imitated."""
        section = self._config.objective
        sampled = np.flatnonzero(batch.origins == Origin.SAMPLED)
        own = batch.take(sampled)
        advantages = self._objective.advantages(returns[torch.from_numpy(sampled)]) if len(own) else returns[:0]
        tokens, lengths = self._append(own, self._imitated())
        self._optimizer.zero_grad(set_to_none=True)
        if not len(lengths):
            return {"entropy": 0.0}
        losses = update_losses(
            section,
            self._forcing.evaluate(tokens, lengths),
            lengths=lengths,
            advantages=advantages,
            behaviour_log_probs=own.log_probs,
            entropy_weight=self._entropy_weight.weight,
        )
        losses.total.backward()  # type: ignore[no-untyped-call]
        return {
            "loss": float(losses.total.detach()),
            "policy_loss": float(losses.policy.detach()),
            "entropy": float(losses.entropy_per_token.detach()),
            "entropy_weight": self._entropy_weight.weight,
            "pqt_loss": float(losses.queue.detach()),
            "advantage_std": float(advantages.std(correction=0)) if len(own) else 0.0,
        }

    def _imitated(self) -> list[tuple[int, ...]]:
        """Return the programs whose likelihood the update raises."""
        section = self._config.objective
        if not section.pqt_weight:
            return []
        if section.pqt_source == "archive":
            return [elite.tokens for elite in self._archive.members]
        items = self._queue.items
        return [
            items[row].tokens for row in drawn_items(len(items), section.pqt_draw, seed=self._seed, update=self.updates)
        ]

    def _append(self, batch: TrajectoryBatch, queued: Sequence[tuple[int, ...]]) -> tuple[IntArray, IntArray]:
        """Return tokens [N, T] and lengths [N] of the batch's programs followed by the queue's."""
        lengths = np.concatenate([batch.lengths, np.array([len(item) for item in queued], dtype=np.int64)])
        tokens = np.full((len(lengths), int(lengths.max(initial=0))), self._vocabulary.pad_id, dtype=np.int64)
        longest = int(batch.lengths.max(initial=0))
        tokens[: len(batch), :longest] = batch.tokens[:, :longest]
        for row, item in enumerate(queued, start=len(batch)):
            tokens[row, : len(item)] = item
        return tokens, lengths

    def _bonuses(self, scores: ScoreBatch) -> Tensor:
        weight = self._config.objective.novelty_weight
        if not weight:
            return torch.zeros(len(scores), dtype=torch.float64)
        return torch.from_numpy(self._counts.bonuses(scores.behaviours, weight))

    def _report_failure(self, batch: TrajectoryBatch, scores: ScoreBatch, metrics: Mapping[str, float]) -> str:
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
        save_file({**tensors, "rewards": torch.tensor(scores.rewards)}, path, metadata={"problem": found})
        return f"{message}; batch, rewards and weights are in {path}; lower optimizer.learning_rate or resume earlier"

    def snapshot(self) -> dict[str, Tensor]:
        """Return the weights, and the archive's elites where programs are proposed from them."""
        tensors = {f"policy.{name}": tensor.detach() for name, tensor in self.policy.state_dict().items()}
        proposals = self._config.proposals
        if (proposals.mutation or proposals.infill) and len(self._archive):
            tensors |= elites_to_tensors(self._archive.elites())
        return tensors

    def sha256(self) -> str:
        """Return the hash of the weights."""
        return policy_sha256(self.policy)

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return a copy of everything that learning changes: tensors on the CPU, and values fit for JSON."""
        tensors = {f"policy.{name}": tensor for name, tensor in self.policy.state_dict().items()}
        for name, parameter in self.policy.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
        tensors |= {f"queue.{name}": tensor for name, tensor in self._queue.tensors().items()}
        tensors |= {f"novelty.{name}": tensor for name, tensor in self._counts.tensors().items()}
        tensors |= {f"archive.{name}": torch.from_numpy(array) for name, array in self._archive.arrays().items()}
        copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        meta = {"updates": self.updates, "restarts": self.restarts, "baseline": self._objective.baseline}
        return copies, meta | self._entropy_weight.meta()

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
        load_weights(self.policy, under("policy.", tensors))
        self._load_optimizer(under("optimizer.", tensors))
        self._objective.baseline = meta["baseline"]
        self._queue.load(under("queue.", tensors))
        self._counts.load(under("novelty.", tensors))
        self._archive.load({name: tensor.numpy() for name, tensor in under("archive.", tensors).items()})
        self._entropy_weight.load(meta)

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        positions = {name: position for position, (name, _) in enumerate(self.policy.named_parameters())}
        for path, tensor in tensors.items():
            name, _, key = path.rpartition(".")
            state.setdefault(positions[name], {})[key] = tensor.clone()
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


_PARTS = {
    "queue": ("rewards", "lengths", "tokens", "behaviours"),
    "novelty": ("behaviours", "counts"),
    "archive": ("rewards", "lengths", "tokens", "behaviours", "case_rewards"),
}
