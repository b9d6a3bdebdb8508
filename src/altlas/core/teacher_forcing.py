"""Log-probabilities and entropies of given programs under a policy, and their gradients, over their prefix tree.

Masks and temperature are those of sampling. Gradients are those of the one padded batch up to float error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from altlas.core.distribution import entropy, masked_log_softmax
from altlas.core.policy import AltlasRNN
from altlas.core.prefix_tree import PrefixTree, build_prefix_tree, tree_logits
from altlas.core.sampling import masks_by_place
from altlas.core.trajectory import BoolArray, IntArray
from altlas.errors import ProtocolError

if TYPE_CHECKING:
    from altlas.core.grammar import TokenConstraint
    from altlas.core.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class ProgramValues:
    """Of N programs with S tokens in all, on the device and with gradient.

    log_probs, entropies: float32 [N], nats, summed over each program's tokens. token_log_probs: float32 [S], in no
    promised order; token s stands in program programs[s] at position positions[s], int64 [S].
    """

    log_probs: Tensor
    entropies: Tensor
    token_log_probs: Tensor
    programs: IntArray
    positions: IntArray


class Forcing(Protocol):
    """Whoever gives the values of programs under a policy."""

    def evaluate(self, tokens: IntArray, lengths: IntArray) -> ProgramValues:
        """Return the values of programs int64 [N, T] of lengths [N], on the device, with gradient.

        Raises:
            ProtocolError: a token was not legal where it stands.
        """


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

    def evaluate(self, tokens: IntArray, lengths: IntArray) -> ProgramValues:
        """Return the values of programs int64 [N, T] of lengths [N], on the device, with gradient.

        Raises:
            ProtocolError: a token was not legal where it stands.
        """
        tree = build_prefix_tree(tokens, lengths, sos_id=self._vocabulary.sos_id)
        legal = torch.from_numpy(self._masks(tree)).to(self._device)
        log_probs = masked_log_softmax(tree_logits(self._policy, tree), legal, self._temperature)
        nodes, chosen, programs = (
            torch.from_numpy(part).to(self._device) for part in (tree.step_nodes, tree.step_tokens, tree.step_programs)
        )
        zeros = log_probs.new_zeros(len(lengths))
        token_log_probs = log_probs[nodes, chosen]
        return ProgramValues(
            log_probs=zeros.index_add(0, programs, token_log_probs),
            entropies=zeros.index_add(0, programs, entropy(log_probs, legal).index_select(0, nodes)),
            token_log_probs=token_log_probs,
            programs=tree.step_programs,
            positions=np.searchsorted(tree.bounds, tree.step_nodes, side="right") - 1,
        )

    def _masks_by_state(self, tree: PrefixTree) -> BoolArray:
        states = np.array([self._constraint.start], dtype=np.int64)
        masks = [self._constraint.legal(states, remaining=self._max_tokens)]
        for level in range(1, len(tree.bounds) - 1):
            here = slice(tree.bounds[level], tree.bounds[level + 1])
            states = self._constraint.advance(states[tree.parents[here] - tree.bounds[level - 1]], tree.tokens[here])
            masks.append(self._constraint.legal(states, remaining=self._max_tokens - level))
        legal: BoolArray = np.concatenate(masks)
        return legal

    def _masks(self, tree: PrefixTree) -> BoolArray:
        """Return which tokens may follow each node, bool [M, V]."""
        by_place = masks_by_place(self._constraint, self._max_tokens)
        if by_place is None or len(tree.bounds) - 1 > len(by_place) or (tree.tokens == self._vocabulary.eos_id).any():
            legal = self._masks_by_state(tree)
        else:
            legal = np.repeat(by_place[: len(tree.bounds) - 1], np.diff(tree.bounds), axis=0)
        is_wrong = ~legal[tree.step_nodes, tree.step_tokens]
        if is_wrong.any():
            step = int(np.flatnonzero(is_wrong)[0])
            text = self._vocabulary.texts[int(tree.step_tokens[step])]
            raise ProtocolError(
                f"trajectory {int(tree.step_programs[step])}: {text!r} is not legal where it stands within "
                f"{self._max_tokens} tokens; sampler and learner differ in grammar, vocabulary or max_tokens"
            )
        return legal
