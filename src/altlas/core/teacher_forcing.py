"""Log-probabilities and entropies of given programs under a policy, and their gradients, without work on padding.

Programs are computed once each, however often they occur, in buckets of near lengths. Gradients are those of the one
padded batch up to float error, since every loss here is a weighted sum over programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from altlas.core.distribution import entropy, masked_log_softmax
from altlas.core.policy import AltlasRNN
from altlas.core.trajectory import IntArray

if TYPE_CHECKING:
    from altlas.core.grammar import TokenConstraint
    from altlas.core.vocabulary import Vocabulary

# What a time step costs beside its programs, in programs; measured on one CPU core with the default model.
_STEP_OVERHEAD_PROGRAMS = 12


@dataclass(frozen=True, slots=True)
class ProgramValues:
    """For each of N programs, summed over its tokens: log-probability and entropy, float32 [N], nats, no gradient."""

    log_probs: Tensor
    entropies: Tensor


class TeacherForcing:
    """Runs programs through `policy` under the mask and temperature that they were sampled with."""

    def __init__(
        self,
        policy: AltlasRNN,
        *,
        constraint: TokenConstraint,
        vocabulary: Vocabulary,
        max_tokens: int,
        temperature: float,
        device: torch.device,
    ) -> None:
        self._policy = policy
        self._constraint = constraint
        self._vocabulary = vocabulary
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._device = device

    def accumulate_gradients(
        self, tokens: IntArray, lengths: IntArray, *, log_prob_weights: Tensor, entropy_weights: Tensor
    ) -> ProgramValues:
        """Add the gradient of -sum_i (w_i log p_i + v_i H_i) to the parameters' gradients.

        tokens: [N, T] padded, lengths: [N]. Weights w, v: float [N]; H_i is the sum over the program's tokens.
        """
        rows, row_of = distinct_programs(tokens, lengths)
        count, row_index = len(rows), torch.from_numpy(row_of)
        row_log_prob_weights = torch.zeros(count).index_add_(0, row_index, log_prob_weights.float())
        row_entropy_weights = torch.zeros(count).index_add_(0, row_index, entropy_weights.float())
        row_log_probs, row_entropies = torch.empty(count), torch.empty(count)
        for bucket in plan_buckets(lengths[rows]):
            where = torch.from_numpy(bucket)
            log_probs, entropies = self.evaluate(tokens[rows[bucket]], lengths[rows[bucket]])
            weighted = row_log_prob_weights[where].to(self._device) * log_probs
            weighted = weighted + row_entropy_weights[where].to(self._device) * entropies
            (-weighted.sum()).backward()  # type: ignore[no-untyped-call]
            row_log_probs[where] = log_probs.detach().cpu()
            row_entropies[where] = entropies.detach().cpu()
        return ProgramValues(row_log_probs[row_index], row_entropies[row_index])

    def evaluate(self, tokens: IntArray, lengths: IntArray) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy of each program, summed over tokens, float32 [N], with gradient."""
        longest = int(lengths.max())
        targets = torch.from_numpy(np.ascontiguousarray(tokens[:, :longest])).to(self._device)
        inside = torch.from_numpy(np.arange(longest) < lengths[:, None]).to(self._device)
        legal = torch.from_numpy(self._constraint.replay(tokens[:, :longest], lengths, max_tokens=self._max_tokens))
        # Beyond the end every token counts as legal: a row without any would give NaN, and NaN * 0 is NaN.
        legal = legal.to(self._device) | ~inside[:, :, None]
        inputs = torch.nn.functional.pad(targets[:, :-1], (1, 0), value=self._vocabulary.sos_id)
        logits, _ = self._policy(inputs)
        log_probs = masked_log_softmax(logits, legal, self._temperature)
        chosen = log_probs.gather(2, targets[:, :, None])[:, :, 0].masked_fill(~inside, 0.0)
        return chosen.sum(dim=1), entropy(log_probs, legal).masked_fill(~inside, 0.0).sum(dim=1)


def distinct_programs(tokens: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Return the positions of first occurrences [M], and for each of N programs which of those it equals [N]."""
    first: dict[bytes, int] = {}
    rows: list[int] = []
    row_of: list[int] = []
    for position, length in enumerate(lengths.tolist()):
        row = first.setdefault(tokens[position, :length].tobytes(), len(rows))
        if row == len(rows):
            rows.append(position)
        row_of.append(row)
    return np.array(rows, dtype=np.int64), np.array(row_of, dtype=np.int64)


def plan_buckets(lengths: IntArray, *, step_overhead: int = _STEP_OVERHEAD_PROGRAMS) -> list[IntArray]:
    """Return the partition of positions into buckets that costs least, shortest programs first.

    A bucket of n programs, the longest of T tokens, costs T (n + step_overhead). Exact, by dynamic programming over
    the distinct lengths.
    """
    order = np.argsort(lengths, kind="stable")
    distinct, starts = np.unique(lengths[order], return_index=True)
    bounds = [*starts.tolist(), len(lengths)]
    best = [0.0] + [float("inf")] * len(distinct)
    cut = [0] * (len(distinct) + 1)
    for end in range(1, len(distinct) + 1):
        for begin in range(end):
            cost = best[begin] + int(distinct[end - 1]) * (bounds[end] - bounds[begin] + step_overhead)
            if cost < best[end]:
                best[end], cut[end] = cost, begin
    buckets, end = [], len(distinct)
    while end:
        buckets.append(order[bounds[cut[end]] : bounds[end]])
        end = cut[end]
    return buckets[::-1]
