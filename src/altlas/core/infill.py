"""The policy as a way to vary programs: it draws a part of an elite anew, given what stands before that part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from altlas.config.sections import ProposalsSection, SamplingSection
from altlas.core.distribution import masked_log_softmax
from altlas.core.folded import FoldedPolicy, LayerState, LstmArrays
from altlas.core.lstm_kernel import go_on, read
from altlas.core.mutation import Children
from altlas.core.philox import uniform_rows
from altlas.core.policy import AltlasRNN
from altlas.core.rng import stream_key
from altlas.core.sampling import gumbel, masks_by_place
from altlas.core.trajectory import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from altlas.core.grammar import TokenConstraint
    from altlas.core.vocabulary import Vocabulary

CUT_UNIFORMS = 3
"""Uniform numbers per child: where its new part begins, its length, how much it replaces."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """For each of B programs: the part of `removed` tokens from `start` on gives way to `inserted` new ones; int64."""

    start: IntArray
    removed: IntArray
    inserted: IntArray


def draw_cuts(lengths: IntArray, uniforms: FloatArray, *, longest: int, section: ProposalsSection) -> Cuts:
    """Return where programs of `lengths` [B] are cut; lengths of parts are geometric.

    Args:
        lengths: of the programs, without <EOS>.
        uniforms: float32 [B, CUT_UNIFORMS] in (0, 1).
        longest: tokens of the longest child.
        section: mean lengths of the parts.
    """
    start = (uniforms[:, 0] * (lengths + 1)).astype(np.int64)
    inserted = 1 + _geometric(uniforms[:, 1], section.infill_inserted - 1.0)
    removed = np.minimum(_geometric(uniforms[:, 2], section.infill_removed), lengths - start)
    return Cuts(start, removed, np.clip(inserted, 0, longest - lengths + removed))


def _geometric(uniforms: FloatArray, mean: float) -> IntArray:
    """Return numbers 0, 1, 2, ... of geometric distribution and this mean."""
    if mean <= 0.0:
        return np.zeros(len(uniforms), dtype=np.int64)
    drawn: IntArray = np.floor(np.log(uniforms) / np.log(mean / (1.0 + mean))).astype(np.int64)
    return drawn


class Infill:
    """Draws parts of elites from one policy's weights; the states after every prefix of an elite are kept.

    `longest` is of the children, in tokens without <EOS>.
    """

    def __init__(
        self,
        policy: AltlasRNN,
        elites: Children,
        *,
        constraint: TokenConstraint,
        vocabulary: Vocabulary,
        sampling: SamplingSection,
        longest: int,
        device: torch.device,
    ) -> None:
        self._longest = longest
        self._policy = FoldedPolicy(policy.to(device))
        self._elites = elites
        self._constraint = constraint
        self._vocabulary = vocabulary
        self._sampling = sampling
        self._device = device
        arrays = self._policy.arrays()
        self._arrays = arrays if masks_by_place(constraint, sampling.max_tokens) is not None else None
        if self._arrays is None:
            self._read()
        else:
            self._hidden, self._cell = self._read_compiled(self._arrays)

    def _read_compiled(self, arrays: LstmArrays) -> tuple[FloatArray, FloatArray]:
        """Return hidden and cell states after 0, 1, ... T tokens of every elite, [L, N, T + 1, H], in machine code."""
        count, longest = self._elites.tokens.shape
        layers, width, _ = arrays.weights.shape
        hidden, cell = (np.empty((layers, count, longest + 1, width), dtype=np.float32) for _ in range(2))
        read(
            arrays.table,
            arrays.weights,
            arrays.inputs,
            arrays.biases,
            self._elites.tokens,
            self._elites.lengths,
            self._vocabulary.sos_id,
            hidden,
            cell,
        )
        return hidden, cell

    @torch.inference_mode()
    def _read(self) -> None:
        """Run the policy over every elite: logits and states after 0, 1, ... T tokens."""
        count, longest = self._elites.tokens.shape
        state = self._policy.initial(count)
        before = np.full(count, self._vocabulary.sos_id, dtype=np.int64)
        logits: list[Tensor] = []
        states: list[list[LayerState]] = []
        for step in range(longest + 1):
            last, state = self._policy.step(torch.from_numpy(before).to(self._device), state)
            logits.append(last)
            states.append(state)
            if step < longest:
                before = self._elites.tokens[:, step].copy()
        self._logits = torch.stack(logits, dim=1)
        self._states = [
            tuple(torch.stack(parts, dim=1) for parts in zip(*layer, strict=True))
            for layer in zip(*states, strict=True)
        ]

    def _nodes(self) -> IntArray:
        """Return the constraint's nodes after 0, 1, ... T tokens of every elite, int64 [N, T + 1].

        They are not kept: a constraint may drop its tables, and its nodes with them, whenever a batch begins.
        """
        count, longest = self._elites.tokens.shape
        nodes = np.full((count, longest + 1), self._constraint.start, dtype=np.int64)
        for step in range(longest):
            rows = np.flatnonzero(self._elites.lengths > step)
            nodes[rows, step + 1] = self._constraint.advance(nodes[rows, step], self._elites.tokens[rows, step])
        return nodes

    @torch.inference_mode()
    def draw(
        self, parents: IntArray, cuts: Cuts, *, seed: int, purpose: str, update: int, indices: IntArray
    ) -> Children:
        """Return a child of each elite `parents` [B]; noise belongs to (update, index, step)."""
        inserted = np.zeros((len(parents), int(cuts.inserted.max(initial=0))), dtype=np.int64)
        if self._arrays is not None:
            drawn = self._draw_compiled(
                self._arrays, parents, cuts, inserted, key=stream_key(seed, purpose), update=update, indices=indices
            )
        else:
            drawn = self._draw(parents, cuts, inserted, seed=seed, purpose=purpose, update=update, indices=indices)
        return _splice(self._elites, parents, cuts, inserted, drawn, longest=self._longest)

    def _draw_compiled(
        self,
        arrays: LstmArrays,
        parents: IntArray,
        cuts: Cuts,
        inserted: IntArray,
        *,
        key: npt.NDArray[np.uint64],
        update: int,
        indices: IntArray,
    ) -> IntArray:
        """Fill `inserted` as `_draw` does, where masks do not depend on what was written, in machine code."""
        legal = np.flatnonzero(self._legal(np.array([self._constraint.start], dtype=np.int64))[0])
        if not len(legal):
            return np.zeros(len(parents), dtype=np.int64)
        go_on(
            arrays.table,
            arrays.weights,
            arrays.inputs,
            arrays.biases,
            arrays.output,
            arrays.output_bias,
            legal,
            np.float32(self._sampling.temperature),
            key,
            update,
            indices,
            cuts.inserted,
            np.ascontiguousarray(self._hidden[:, parents, cuts.start]),
            np.ascontiguousarray(self._cell[:, parents, cuts.start]),
            inserted,
        )
        return cuts.inserted

    def _draw(
        self,
        parents: IntArray,
        cuts: Cuts,
        inserted: IntArray,
        *,
        seed: int,
        purpose: str,
        update: int,
        indices: IntArray,
    ) -> IntArray:
        """Fill `inserted` [B, T] and return how many tokens were drawn of each, [B]."""
        rows, starts = torch.from_numpy(parents).to(self._device), torch.from_numpy(cuts.start).to(self._device)
        logits = self._logits[rows, starts]
        state = [tuple(part[rows, starts] for part in layer) for layer in self._states]
        nodes = self._nodes()[parents, cuts.start]
        drawn = np.zeros(len(parents), dtype=np.int64)
        lanes = np.arange(len(parents))
        for step in range(inserted.shape[1]):
            legal = self._legal(nodes)
            goes_on = (cuts.inserted[lanes] > step) & legal.any(axis=1)
            if not goes_on.any():
                break
            lanes, nodes, legal = lanes[goes_on], nodes[goes_on], legal[goes_on]
            kept = torch.from_numpy(np.flatnonzero(goes_on)).to(self._device)
            log_probs = masked_log_softmax(
                logits[kept], torch.from_numpy(legal).to(self._device), self._sampling.temperature
            )
            noise = uniform_rows(
                seed, purpose, update=update, indices=indices[lanes], per_index=len(self._vocabulary), step=step
            )
            chosen = (log_probs + gumbel(torch.from_numpy(noise).to(self._device))).argmax(dim=-1)
            inserted[lanes, step] = chosen.cpu().numpy()
            drawn[lanes] = step + 1
            nodes = self._constraint.advance(nodes, inserted[lanes, step])
            logits, state = self._policy.step(chosen, self._policy.select(state, kept))
        return drawn

    def _legal(self, nodes: IntArray) -> BoolArray:
        legal = self._constraint.legal(nodes, remaining=self._sampling.max_tokens)
        legal[:, [self._vocabulary.eos_id, self._vocabulary.pad_id]] = False
        return legal


def _splice(
    elites: Children, parents: IntArray, cuts: Cuts, inserted: IntArray, drawn: IntArray, *, longest: int
) -> Children:
    """Return beginning, new part and end of each program, [B]."""
    lengths = elites.lengths[parents] - cuts.removed + drawn
    place = np.arange(longest)[None, :]
    start, new_end = cuts.start[:, None], (cuts.start + drawn)[:, None]
    source = elites.tokens[parents]
    from_end = np.clip(place - new_end + start + cuts.removed[:, None], 0, max(source.shape[1] - 1, 0))
    from_new = np.clip(place - start, 0, max(inserted.shape[1] - 1, 0))
    tokens = np.where(
        place < start,
        _take(source, np.minimum(place, max(source.shape[1] - 1, 0))),
        np.where(place < new_end, _take(inserted, from_new), _take(source, from_end)),
    )
    tokens[place >= lengths[:, None]] = 0
    return Children(tokens, lengths)


def _take(rows: IntArray, places: IntArray) -> IntArray:
    if not rows.shape[1]:
        return np.zeros((len(rows), places.shape[1]), dtype=np.int64)
    taken: IntArray = np.take_along_axis(rows, np.broadcast_to(places, (len(rows), places.shape[1])), axis=1)
    return taken
