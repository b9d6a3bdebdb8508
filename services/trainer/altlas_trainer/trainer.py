"""The policy's learner: advantage, loss, gradient, step. Owns everything of a run that learning changes.

Its whole state is in `state_dict`: an instance that loads it goes on bit for bit. A loss or gradient that is not finite
ends the run before the weights move. `updates` is both the count of updates done and the policy's version.

Only programs that were sampled whole from the policy enter the policy gradient. All programs are offered to the queue
and to the archive, and what these hold is learned by imitation. Several tasks share the policy and the optimizer; the
rest each has for itself.
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
from altlas.core.objective import offered_rows, update_losses
from altlas.core.optimizers import build_optimizer
from altlas.core.policy import AltlasRNN, build_policy, load_weights, policy_sha256
from altlas.core.proposals import Origin, elites_to_tensors
from altlas.core.score_batch import ScoreBatch
from altlas.core.teacher_forcing import Forcing, TeacherForcing
from altlas.core.trajectory import IntArray, TrajectoryBatch
from altlas.errors import CheckpointError, LearningError
from altlas_trainer.carrying import NEVER, carried, task_prefix
from altlas_trainer.learner import LearnReport, check_update, reward_metrics, under
from altlas_trainer.metrics import phase
from altlas_trainer.task_memory import TaskMemory

if TYPE_CHECKING:
    from altlas.core.grammar import TokenConstraint
    from altlas.core.vocabulary import Vocabulary
    from altlas_trainer.group import Group


class Trainer:
    """Policy and optimizer of one run, and a memory for each of its tasks. `max_tokens`: of each task, by position.

    With a `group` each of its processes has one, all make the same calls, and all are in the same state after each.
    """

    def __init__(
        self,
        config: Config,
        *,
        vocabulary: Vocabulary,
        constraint: TokenConstraint,
        device: torch.device,
        seed: int,
        inspection_dir: Path | None = None,
        max_tokens: Sequence[int] = (),
        group: Group | None = None,
    ) -> None:
        torch.set_num_threads(config.model.threads)
        self._config = config
        self._vocabulary = vocabulary
        self._constraint = constraint
        self._device = device
        self._seed = seed
        self._inspection_dir = inspection_dir
        self._group = group
        self.updates = 0
        self.restarts = 0
        self._max_tokens = max_tokens or (config.sampling.max_tokens,)
        self._tasks = [TaskMemory(config) for _ in self._max_tokens]
        self._learned_at = [NEVER for _ in self._tasks]
        self._start()

    def _start(self) -> None:
        """Draw the weights of start number `restarts`; optimizer, baselines, queues and archives begin anew."""
        config = self._config
        self.policy: AltlasRNN = build_policy(
            config.model, len(self._vocabulary), seed=self._seed, restart_index=self.restarts
        ).to(self._device)
        self._optimizer = build_optimizer(self.policy, config.optimizer)
        for memory in self._tasks:
            memory.restart()
        self._forcing: list[Forcing] = [
            TeacherForcing(
                self.policy,
                constraint=self._constraint,
                vocabulary=self._vocabulary,
                max_tokens=max_tokens,
                temperature=config.sampling.temperature,
                device=self._device,
            )
            for max_tokens in self._max_tokens
        ]
        if self._group is not None:
            from altlas_trainer.sharing import share_forcings  # what only processes of several need

            self._forcing = share_forcings(self.policy, self._forcing, self._group)

    @property
    def parameters(self) -> int:
        """Weights that learning moves."""
        return sum(parameter.numel() for parameter in self.policy.parameters() if parameter.requires_grad)

    @property
    def _has_archive(self) -> bool:
        proposals = self._config.proposals
        return bool(proposals.mutation or proposals.infill) or self._config.objective.pqt_source == "archive"

    def learn(
        self, batch: TrajectoryBatch, scores: ScoreBatch, *, update: int, reinitialise: bool = False, task: int = 0
    ) -> LearnReport:
        """Make one update from programs of a task and their scores, in the same order.

        With `reinitialise` new weights are drawn, and the batch, which the old ones sampled, is not learned from.
        Behaviour counts outlive that, so that the new start is drawn to what the old one did not find. Where several
        tasks share the weights these stay, and the task's memory alone begins anew.

        Raises:
            ProtocolError: `update` is not the next one, or batch and scores do not fit together.
            LearningError: loss or gradient is not finite. The weights have not moved, and the batch lies in
                inspection_dir; the run has to end.
        """
        check_update(batch, scores, update=update, due=self.updates)
        memory = self._tasks[task]
        if reinitialise:
            self._restart(memory)
            self.updates += 1
            return LearnReport(self.updates, reward_metrics(scores))
        returns = torch.tensor(scores.rewards) + memory.bonuses(scores)
        metrics = self._remember(batch, scores, memory)
        metrics |= self._backpropagate(batch, returns, task=task)
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self._config.optimizer.gradient_clip)
        metrics["gradient_norm"] = float(gradient_norm)
        if not all(math.isfinite(value) for value in metrics.values()):
            raise LearningError(self._report_failure(batch, scores, metrics))
        self._optimizer.step()
        memory.entropy_weight.update(metrics["entropy"])
        if self._config.objective.pqt_offer == "batch_best":
            memory.offer(batch, scores, offered_rows(torch.tensor(scores.rewards), "batch_best"))
        self._learned_at[task] = self.updates
        self.updates += 1
        return LearnReport(self.updates, metrics | reward_metrics(scores) | {"queue_best": memory.queue.best_reward})

    def _restart(self, memory: TaskMemory) -> None:
        self.restarts += 1
        if len(self._tasks) == 1:
            self._start()
        else:
            memory.restart()

    @phase("remember")
    def _remember(self, batch: TrajectoryBatch, scores: ScoreBatch, memory: TaskMemory) -> dict[str, float]:
        """Offer the batch to the queue and to the archive, as far as the update is to learn from it."""
        if self._config.objective.pqt_offer == "all":
            memory.offer(batch, scores, np.arange(len(batch), dtype=np.int64))
        if not self._has_archive:
            return {}
        entered = memory.archive.offer(batch, scores)
        by_origin = np.bincount(batch.origins[entered], minlength=len(Origin))
        counts = {
            f"entered_{origin.name.lower()}": float(by_origin[origin]) for origin in Origin if origin != Origin.BRED
        }
        return {"archive_size": float(len(memory.archive)), **counts}

    @phase("backpropagate")
    def _backpropagate(self, batch: TrajectoryBatch, returns: Tensor, *, task: int) -> dict[str, float]:
        """Set the gradients of the loss over the batch's sampled programs and those that are imitated."""
        section, memory = self._config.objective, self._tasks[task]
        sampled = np.flatnonzero(batch.origins == Origin.SAMPLED)
        own = batch.take(sampled)
        advantages = memory.objective.advantages(returns[torch.from_numpy(sampled)]) if len(own) else returns[:0]
        tokens, lengths = self._append(own, memory.imitated(seed=self._seed, update=self.updates))
        self._optimizer.zero_grad(set_to_none=True)
        if not len(lengths):
            return {"entropy": 0.0}
        losses = update_losses(
            section,
            self._forcing[task].evaluate(tokens, lengths),
            lengths=lengths,
            advantages=advantages,
            behaviour_log_probs=own.log_probs,
            entropy_weight=memory.entropy_weight.weight,
            lag=self.updates - batch.policy_version if self._config.run.mode == "async" else 0,
        )
        losses.total.backward()  # type: ignore[no-untyped-call]
        return {
            "loss": float(losses.total.detach()),
            "policy_loss": float(losses.policy.detach()),
            "entropy": float(losses.entropy_per_token.detach()),
            "entropy_weight": memory.entropy_weight.weight,
            "pqt_loss": float(losses.queue.detach()),
            "advantage_std": float(advantages.std(correction=0)) if len(own) else 0.0,
        }

    def _append(self, batch: TrajectoryBatch, queued: Sequence[tuple[int, ...]]) -> tuple[IntArray, IntArray]:
        """Return tokens [N, T] and lengths [N] of the batch's programs followed by the queue's."""
        lengths = np.concatenate([batch.lengths, np.array([len(item) for item in queued], dtype=np.int64)])
        tokens = np.full((len(lengths), int(lengths.max(initial=0))), self._vocabulary.pad_id, dtype=np.int64)
        longest = int(batch.lengths.max(initial=0))
        tokens[: len(batch), :longest] = batch.tokens[:, :longest]
        for row, item in enumerate(queued, start=len(batch)):
            tokens[row, : len(item)] = item
        return tokens, lengths

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

    def snapshot(self, task: int = 0) -> dict[str, Tensor]:
        """Return the weights, and a task's elites where programs are proposed from them.

        A task without elites is given those of the task that learned last and has some, where the run carries them.
        """
        tensors = {f"policy.{name}": tensor.detach() for name, tensor in self.policy.state_dict().items()}
        proposals = self._config.proposals
        if not (proposals.mutation or proposals.infill):
            return tensors
        archive = self._tasks[task].archive
        if not len(archive) and self._config.curriculum.carry == "policy_and_archive":
            archives = [memory.archive for memory in self._tasks]
            archive = carried(archives, self._learned_at, self._config.archive, max_tokens=self._max_tokens[task])
        return tensors | elites_to_tensors(archive.elites()) if len(archive) else tensors

    def sha256(self) -> str:
        """Return the hash of the weights."""
        return policy_sha256(self.policy)

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return a copy of everything that learning changes: tensors on the CPU, and values fit for JSON."""
        tensors = {f"policy.{name}": tensor for name, tensor in self.policy.state_dict().items()}
        for name, parameter in self.policy.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
        for position, memory in enumerate(self._tasks):
            tensors |= {f"{task_prefix(position)}{name}": tensor for name, tensor in memory.tensors().items()}
        copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        meta: dict[str, Any] = {"updates": self.updates, "restarts": self.restarts, **self._tasks[0].meta()}
        if len(self._tasks) > 1:
            meta |= {"learned_at": self._learned_at, "further_tasks": [memory.meta() for memory in self._tasks[1:]]}
        return copies, meta

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            CheckpointError: a part is missing, or the weights do not fit the configuration; nothing is half loaded
                that a later call would not overwrite.
        """
        if missing := {"updates", "restarts"} - meta.keys():
            raise CheckpointError(f"trainer state lacks {', '.join(sorted(missing))}; take another checkpoint")
        metas = [meta, *meta.get("further_tasks", [])]
        if len(metas) != len(self._tasks):
            raise CheckpointError(f"trainer state has {len(metas)} tasks, the run {len(self._tasks)}")
        self.updates, self.restarts = int(meta["updates"]), int(meta["restarts"])
        self._start()
        for position, (memory, own) in enumerate(zip(self._tasks, metas, strict=True)):
            memory.load(under(task_prefix(position), tensors), own)
        self._learned_at = list(meta.get("learned_at", [NEVER]))
        load_weights(self.policy, under("policy.", tensors))
        self._load_optimizer(under("optimizer.", tensors))

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        positions = {name: position for position, (name, _) in enumerate(self.policy.named_parameters())}
        for path, tensor in tensors.items():
            name, _, key = path.rpartition(".")
            state.setdefault(positions[name], {})[key] = tensor.clone()
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})
