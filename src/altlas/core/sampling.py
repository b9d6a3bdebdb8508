"""Draws programs from a policy: Gumbel-argmax on counter-based noise, under the constraint's mask.

The same weights, seed, update and index range give the same bytes each time on one device. Noise belongs to (update,
index, step), so another split of the range draws the same tokens too, but for ties within float error: matrix products
over other numbers of lanes may differ in their last bits. Where the mask depends on the place alone and the policy is
an LSTM on the CPU, the whole loop is machine code (`altlas.core.lstm_kernel`): the same but for such ties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from altlas.config.sections import SamplingSection
from altlas.core.distribution import entropy, masked_log_softmax
from altlas.core.folded import FoldedPolicy, LstmArrays, StepPolicy, UniformPolicy
from altlas.core.grammar import FixedLength, Unconstrained
from altlas.core.lstm_kernel import sample as sample_compiled
from altlas.core.policy import AltlasRNN
from altlas.core.rng import stream_key, uniform
from altlas.core.trajectory import BoolArray, IntArray, TrajectoryBatch
from altlas.errors import ConfigError

if TYPE_CHECKING:
    from altlas.core.grammar import TokenConstraint
    from altlas.core.vocabulary import Vocabulary


class Sampler:
    """Samples from `policy` as it stands at each call; moving its weights needs no notice. None is uniform.

    Raises:
        ConfigError: sampling.max_tokens has not been resolved against the task.
    """

    def __init__(
        self,
        policy: AltlasRNN | None,
        *,
        constraint: TokenConstraint,
        vocabulary: Vocabulary,
        sampling: SamplingSection,
        device: torch.device,
    ) -> None:
        if sampling.max_tokens < 1:
            raise ConfigError(f"sampling.max_tokens: {sampling.max_tokens} stands for the task's own; resolve it first")
        self._policy = None if policy is None else policy.to(device)
        self._constraint = constraint
        self._vocabulary = vocabulary
        self._max_tokens = sampling.max_tokens
        self._temperature = sampling.temperature
        self._device = device
        self._masks = masks_by_place(constraint, self._max_tokens)

    @torch.inference_mode()
    def sample(
        self,
        *,
        seed: int,
        update: int,
        first_index: int,
        count: int,
        policy_version: int,
        only: IntArray | None = None,
    ) -> TrajectoryBatch:
        """Return programs first_index .. first_index + count - 1 of the update, at most max_tokens tokens each.

        Where `only` is given, int64 [n], programs are drawn for these rows; the others have length 0.
        """
        policy: StepPolicy = UniformPolicy(len(self._vocabulary), self._device)
        drawn = _Drawn(count, self._max_tokens, self._vocabulary.pad_id)
        lanes = np.arange(count) if only is None else only
        if self._policy is not None:
            policy = folded = FoldedPolicy(self._policy)
            arrays = folded.arrays()
            if arrays is not None and self._masks is not None:
                self._fill(drawn, arrays, self._masks, lanes, seed=seed, update=update, first_index=first_index)
                return drawn.batch(first_index=first_index, policy_version=policy_version)
        # Lanes with equal prefixes share one row of the network and of the constraint; finished lanes have none.
        row_of_lane = np.zeros(len(lanes), dtype=np.int64)
        previous = np.array([self._vocabulary.sos_id])
        nodes = np.array([self._constraint.start], dtype=np.int64)
        state = policy.initial(1)
        for step in range(self._max_tokens if len(lanes) else 0):
            logits, state = policy.step(self._to_device(previous), state)
            legal = self._to_device(self._constraint.legal(nodes, remaining=self._max_tokens - step))
            log_probs = masked_log_softmax(logits, legal, self._temperature)
            noise = uniform(
                seed,
                "sample",
                update=update,
                first_index=first_index,
                count=count,
                per_index=len(self._vocabulary),
                step=step,
            )
            row_index = self._to_device(row_of_lane)
            lane_log_probs = log_probs.index_select(0, row_index)
            chosen = (lane_log_probs + gumbel(self._to_device(noise[lanes]))).argmax(dim=-1)
            tokens = chosen.cpu().numpy()
            drawn.put(
                lanes,
                step,
                tokens=tokens,
                log_probs=lane_log_probs.gather(1, chosen[:, None])[:, 0],
                entropies=entropy(log_probs, legal).index_select(0, row_index),
            )
            unfinished = tokens != self._vocabulary.eos_id
            if not unfinished.any():
                break
            lanes = lanes[unfinished]
            edges = row_of_lane[unfinished] * len(self._vocabulary) + tokens[unfinished]
            edges, row_of_lane = np.unique(edges, return_inverse=True)
            parents, previous = np.divmod(edges, len(self._vocabulary))
            nodes = self._constraint.advance(nodes[parents], previous)
            state = policy.select(state, self._to_device(parents))
        return drawn.batch(first_index=first_index, policy_version=policy_version)

    def _fill(
        self,
        drawn: _Drawn,
        arrays: LstmArrays,
        masks: BoolArray,
        rows: IntArray,
        *,
        seed: int,
        update: int,
        first_index: int,
    ) -> None:
        """Draw programs into some rows, in machine code."""
        sample_compiled(
            arrays.table,
            arrays.weights,
            arrays.inputs,
            arrays.biases,
            arrays.output,
            arrays.output_bias,
            masks,
            self._vocabulary.sos_id,
            self._vocabulary.eos_id,
            np.float32(self._temperature),
            stream_key(seed, "sample"),
            update,
            first_index,
            rows,
            drawn.tokens,
            drawn.lengths,
            drawn.log_probs,
            drawn.entropies,
        )

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def masks_by_place(constraint: TokenConstraint, max_tokens: int) -> BoolArray | None:
    """Return which tokens may stand at each place of a program that goes on, bool [T, V].

    None where earlier tokens decide.
    """
    if type(constraint) not in (Unconstrained, FixedLength):  # one made of them may have masks of its own
        return None
    start = np.array([constraint.start], dtype=np.int64)
    masks = np.repeat(constraint.legal(start, remaining=2), max_tokens, axis=0)
    masks[-1] = constraint.legal(start, remaining=1)[0]
    return masks


def gumbel(uniform_draws: Tensor) -> Tensor:
    """Return standard Gumbel noise -log(-log u) for u in (0, 1), overwriting `uniform_draws`.

    argmax(log p + gumbel) is distributed as p (Gumbel 1954; Maddison et al. 2014, "A* Sampling", section 2).
    """
    return uniform_draws.log_().neg_().log_().neg_()


class _Drawn:
    """The batch under construction, lane by lane and step by step."""

    def __init__(self, count: int, max_tokens: int, pad_id: int) -> None:
        self.tokens = np.full((count, max_tokens), pad_id, dtype=np.int64)
        self.log_probs = np.zeros((count, max_tokens), dtype=np.float32)
        self.entropies = np.zeros((count, max_tokens), dtype=np.float32)
        self.lengths = np.zeros(count, dtype=np.int64)

    def put(self, lanes: IntArray, step: int, *, tokens: IntArray, log_probs: Tensor, entropies: Tensor) -> None:
        self.tokens[lanes, step] = tokens
        self.log_probs[lanes, step] = log_probs.cpu().numpy()
        self.entropies[lanes, step] = entropies.cpu().numpy()
        self.lengths[lanes] = step + 1

    def batch(self, *, first_index: int, policy_version: int) -> TrajectoryBatch:
        longest = int(self.lengths.max(initial=0))
        return TrajectoryBatch(
            indices=np.arange(first_index, first_index + len(self.lengths), dtype=np.int64),
            tokens=self.tokens[:, :longest],
            lengths=self.lengths,
            log_probs=self.log_probs[:, :longest],
            entropies=self.entropies[:, :longest],
            policy_version=policy_version,
        )
