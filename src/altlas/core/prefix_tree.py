"""The prefix tree of a batch of programs, and the recurrent layers over it with gradients by hand.

A recurrent state depends on the prefix alone, so each distinct prefix is computed once: no work on padding, none on
duplicates, none on common beginnings. Levels are time steps; a node's parent lies one level up. The backward passes are
those of PyTorch's cells (checked against nn.LSTM and nn.GRU), with the weight gradient as one product over all nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from altlas.core import tree_kernel
from altlas.core.policy import AltlasRNN
from altlas.core.trajectory import IntArray


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """M nodes, level by level; node m stands for a proper prefix of some program, and asks what token follows it.

    bounds: first node of each level, and M. parents: int64 [M], -1 for the root. tokens: int64 [M], the last token of
    the prefix, <SOS> for the root. The S program tokens, step by step: step_nodes, step_tokens, step_programs, [S].
    """

    bounds: tuple[int, ...]
    parents: IntArray
    tokens: IntArray
    step_nodes: IntArray
    step_tokens: IntArray
    step_programs: IntArray


def build_prefix_tree(tokens: IntArray, lengths: IntArray, *, sos_id: int) -> PrefixTree:
    """Return the tree of programs int64 [N, T] of lengths [N], each at least 1."""
    total, base = int(lengths.sum()), int(tokens.max()) + 1
    parents, node_tokens = np.empty(total + 1, dtype=np.int64), np.empty(total + 1, dtype=np.int64)
    parents[0], node_tokens[0] = -1, sos_id
    bounds = np.empty(tokens.shape[1] + 2, dtype=np.int64)
    steps = np.empty((3, total), dtype=np.int64)
    nodes, levels = tree_kernel.grow(tokens, lengths, base, parents, node_tokens, bounds, *steps)
    return PrefixTree(
        bounds=tuple(bounds[: levels + 1].tolist()),
        parents=parents[:nodes],
        tokens=node_tokens[:nodes],
        step_nodes=steps[0],
        step_tokens=steps[1],
        step_programs=steps[2],
    )


def tree_logits(policy: AltlasRNN, tree: PrefixTree) -> Tensor:
    """Return logits float32 [M, V] with gradient: the policy's after each node's prefix."""
    device = policy.output.weight.device
    levels = list(pairwise(tree.bounds))
    parents = torch.from_numpy(tree.parents).to(device)
    layers = _LstmOverTree if isinstance(policy.rnn, nn.LSTM) else _GruOverTree
    weights = dict(policy.rnn.named_parameters())
    # The first layer's input product depends on the token alone: V rows instead of M.
    table = torch.addmm(weights["bias_ih_l0"], policy.embedding.weight, weights["weight_ih_l0"].t())
    inputs = nn.functional.embedding(torch.from_numpy(tree.tokens).to(device), table)
    hidden = inputs
    for index in range(policy.rnn.num_layers):
        if index:
            inputs = torch.addmm(weights[f"bias_ih_l{index}"], hidden, weights[f"weight_ih_l{index}"].t())
        hidden = layers.apply(  # type: ignore[no-untyped-call]
            inputs, weights[f"weight_hh_l{index}"], weights[f"bias_hh_l{index}"], parents, levels
        )
    logits: Tensor = policy.output(hidden)
    return logits


Levels = list[tuple[int, int]]
# Above it torch's products over a level are worth its calls.
_WIDEST_COMPILED = 128


def _is_compiled(weight: Tensor) -> bool:
    """Return whether a layer of recurrent weights [4H, H] is run by `altlas.core.tree_kernel`."""
    return weight.device.type == "cpu" and weight.shape[1] <= _WIDEST_COMPILED


def _bounds(levels: Levels) -> IntArray:
    return np.array([0, *(end for _, end in levels)], dtype=np.int64)


class _LstmOverTree(torch.autograd.Function):
    """One LSTM layer; gates in PyTorch's order i, f, g, o."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, parents: Tensor, levels: Levels) -> Tensor:
        width = weight.shape[1]
        # tanh as 2 sigmoid(2x) - 1: one pass over all gates, and a third of torch.tanh's time on a CPU.
        scale = torch.ones_like(bias)
        scale[2 * width : 3 * width] = 2.0
        gates = (inputs + bias).mul_(scale)
        transposed = (weight.t() * scale).contiguous()
        cells = gates.new_empty(len(gates), width)
        cell_tanhs, hidden = torch.empty_like(cells), torch.empty_like(cells)
        ctx.levels, ctx.is_compiled = levels, _is_compiled(weight)
        if ctx.is_compiled:
            arrays = (part.numpy() for part in (cells, cell_tanhs, hidden))
            tree_kernel.forward(gates.numpy(), transposed.numpy(), parents.numpy(), _bounds(levels), *arrays)
        for first, end in () if ctx.is_compiled else levels:
            level, up = gates[first:end], parents[first:end]
            if first:
                level.addmm_(hidden.index_select(0, up), transposed)
            in_gate, forget_gate, candidate, out_gate = level.sigmoid_().chunk(4, dim=1)
            candidate.mul_(2.0).sub_(1.0)
            cell = torch.mul(in_gate, candidate, out=cells[first:end])
            if first:
                cell.addcmul_(forget_gate, cells.index_select(0, up))
            cell_tanh = torch.mul(cell, 2.0, out=cell_tanhs[first:end]).sigmoid_().mul_(2.0).sub_(1.0)
            torch.mul(out_gate, cell_tanh, out=hidden[first:end])
        ctx.save_for_backward(weight, parents, gates, cells, cell_tanhs, hidden)
        return hidden

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, parents, gates, cells, cell_tanhs, hidden = ctx.saved_tensors
        to_hidden, to_cells = gradients[0].clone(), torch.zeros_like(cells)
        to_gates = torch.empty_like(gates)
        if ctx.is_compiled:
            of_tree = parents.numpy(), _bounds(ctx.levels), cells.numpy(), cell_tanhs.numpy()
            tree_kernel.backward(gates.numpy(), weight.numpy(), *of_tree, to_hidden.numpy(), to_gates.numpy())
        for first, end in () if ctx.is_compiled else reversed(ctx.levels):
            up, cell_tanh, to_level = parents[first:end], cell_tanhs[first:end], to_hidden[first:end]
            in_gate, forget_gate, candidate, out_gate = gates[first:end].chunk(4, dim=1)
            to_in, to_forget, to_candidate, to_out = to_gates[first:end].chunk(4, dim=1)
            through = to_level * cell_tanh
            to_cell = to_cells[first:end].addcmul_(to_level - through * cell_tanh, out_gate)
            torch.mul(through, out_gate - out_gate * out_gate, out=to_out)
            torch.mul(to_cell * candidate, in_gate - in_gate * in_gate, out=to_in)
            torch.mul(to_cell * in_gate, 1.0 - candidate * candidate, out=to_candidate)
            if first:
                to_parent = to_cell * forget_gate
                torch.mul(to_parent * cells.index_select(0, up), 1.0 - forget_gate, out=to_forget)
                to_cells.index_add_(0, up, to_parent)
                to_hidden.index_add_(0, up, to_gates[first:end] @ weight)
            else:
                to_forget.zero_()
        to_weight = to_gates[1:].t() @ hidden.index_select(0, parents[1:])
        return to_gates, to_weight, to_gates.sum(dim=0), None, None


class _GruOverTree(torch.autograd.Function):
    """One GRU layer; gates in PyTorch's order r, z, n, the candidate's hidden bias inside the reset gate."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, parents: Tensor, levels: Levels) -> Tensor:
        width = weight.shape[1]
        gates, transposed = inputs.clone(), weight.t().contiguous()
        from_hidden = bias.expand_as(inputs).contiguous()
        hidden = gates.new_empty(len(gates), width)
        for first, end in levels:
            level, product, up = gates[first:end], from_hidden[first:end], parents[first:end]
            before = hidden.index_select(0, up) if first else torch.zeros_like(hidden[first:end])
            if first:
                product.addmm_(before, transposed)
            reset, update, candidate = level.chunk(3, dim=1)
            level[:, : 2 * width].add_(product[:, : 2 * width]).sigmoid_()
            candidate.addcmul_(reset, product[:, 2 * width :]).tanh_()
            torch.add(candidate, update * (before - candidate), out=hidden[first:end])
        ctx.save_for_backward(weight, parents, gates, from_hidden, hidden)
        ctx.levels = levels
        return hidden

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, parents, gates, from_hidden, hidden = ctx.saved_tensors
        width = weight.shape[1]
        to_hidden, to_gates = gradients[0].clone(), torch.empty_like(gates)
        to_products = torch.empty_like(gates)
        for first, end in reversed(ctx.levels):
            up, to_level = parents[first:end], to_hidden[first:end]
            before = hidden.index_select(0, up) if first else torch.zeros_like(to_level)
            reset, update, candidate = gates[first:end].chunk(3, dim=1)
            to_reset, to_update, to_candidate = to_gates[first:end].chunk(3, dim=1)
            torch.mul(to_level * (1.0 - update), 1.0 - candidate * candidate, out=to_candidate)
            torch.mul(to_level * (before - candidate), update - update * update, out=to_update)
            torch.mul(to_candidate * from_hidden[first:end, 2 * width :], reset - reset * reset, out=to_reset)
            to_product = to_products[first:end].copy_(to_gates[first:end])
            to_product[:, 2 * width :].mul_(reset)
            if first:
                to_hidden.index_add_(0, up, torch.addmm(to_level * update, to_product, weight))
        to_weight = to_products[1:].t() @ hidden.index_select(0, parents[1:])
        return to_gates, to_weight, to_products.sum(dim=0), None, None
