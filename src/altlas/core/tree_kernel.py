"""The LSTM over a prefix tree and its gradients as machine code, for layers so small that torch's calls cost more.

Arrays are float32 and row-major, gates in PyTorch's order i, f, g, o. The formulas are those of
`altlas.core.prefix_tree`, level by level.
"""

from __future__ import annotations

import numpy as np

from altlas.core.compiling import compiled, compiled_loosely
from altlas.core.lstm_kernel import Floats, Ints, add_product, sigmoid
from altlas.core.rows import copy_row

_ONE, _TWO = np.float32(1.0), np.float32(2.0)


@compiled_loosely
def forward(
    gates: Floats, transposed: Floats, parents: Ints, bounds: Ints, cells: Floats, cell_tanhs: Floats, hidden: Floats
) -> None:
    """Turn the gates' inputs into the gates, in place, and fill the last three arguments, [M, H].

    Args:
        gates: [M, 4H], the input's and the biases' part, the candidate's doubled.
        transposed: [H, 4H], the recurrent weights, the candidate's doubled.
        parents: int64 [M].
        bounds: int64, first node of each level, and M.
        cells, cell_tanhs, hidden: filled.
    """
    width = hidden.shape[1]
    powers = np.empty(4 * width, dtype=np.int32)
    power_values = powers.view(np.float32)
    before = np.empty((len(parents), width), dtype=np.float32)
    for level in range(len(bounds) - 1):
        first, end = bounds[level], bounds[level + 1]
        if level:
            for node in range(first, end):
                copy_row(before[node - first], hidden[parents[node]])
            add_product(gates[first:end], before, transposed, end - first)
        for node in range(first, end):
            row, cell, cell_tanh, out = gates[node], cells[node], cell_tanhs[node], hidden[node]
            sigmoid(row, powers, power_values)
            for j in range(width):
                row[2 * width + j] = _TWO * row[2 * width + j] - _ONE
                cell[j] = row[j] * row[2 * width + j]
            if level:
                old = cells[parents[node]]
                for j in range(width):
                    cell[j] += row[width + j] * old[j]
            for j in range(width):
                cell_tanh[j] = _TWO * cell[j]
            sigmoid(cell_tanh, powers, power_values)
            for j in range(width):
                cell_tanh[j] = _TWO * cell_tanh[j] - _ONE
                out[j] = row[3 * width + j] * cell_tanh[j]


@compiled_loosely
def backward(
    gates: Floats,
    weight: Floats,
    parents: Ints,
    bounds: Ints,
    cells: Floats,
    cell_tanhs: Floats,
    to_hidden: Floats,
    to_gates: Floats,
) -> None:
    """Fill `to_gates` [M, 4H] from the gradients of the hidden states [M, H], which are overwritten.

    Args:
        gates: of `forward`.
        weight: [4H, H], the recurrent weights.
        parents, bounds, cells, cell_tanhs: of `forward`.
        to_hidden: see above.
        to_gates: filled.
    """
    width = to_hidden.shape[1]
    to_cells = np.zeros_like(cells)
    to_parents = np.empty_like(cells)
    for level in range(len(bounds) - 2, -1, -1):
        first, end = bounds[level], bounds[level + 1]
        for node in range(first, end):
            row, to_row, cell_tanh = gates[node], to_gates[node], cell_tanhs[node]
            to_out, to_cell = to_hidden[node], to_cells[node]
            for j in range(width):
                in_gate, candidate, out_gate = row[j], row[2 * width + j], row[3 * width + j]
                through = to_out[j] * cell_tanh[j]
                to_cell[j] += (to_out[j] - through * cell_tanh[j]) * out_gate
                to_row[3 * width + j] = through * (out_gate - out_gate * out_gate)
                to_row[j] = to_cell[j] * candidate * (in_gate - in_gate * in_gate)
                to_row[2 * width + j] = to_cell[j] * in_gate * (_ONE - candidate * candidate)
            if level:
                cell, to_old = cells[parents[node]], to_cells[parents[node]]
                for j in range(width):
                    forget_gate = row[width + j]
                    to_before = to_cell[j] * forget_gate
                    to_row[width + j] = to_before * cell[j] * (_ONE - forget_gate)
                    to_old[j] += to_before
            else:
                to_row[width : 2 * width] = 0.0
        if level:
            to_parents[: end - first] = 0.0
            add_product(to_parents, to_gates[first:end], weight, end - first)
            for node in range(first, end):
                to_row, row = to_hidden[parents[node]], to_parents[node - first]
                for j in range(width):
                    to_row[j] += row[j]


@compiled
def grow(
    tokens: Ints,
    lengths: Ints,
    base: int,
    parents: Ints,
    node_tokens: Ints,
    bounds: Ints,
    step_nodes: Ints,
    step_tokens: Ints,
    step_programs: Ints,
) -> tuple[int, int]:
    """Build the prefix tree of programs int64 [N, T] of lengths [N], tokens below `base`.

    Returns:
        The number of nodes and of levels; the arrays are filled so far. They have room for 1 + S nodes, T + 1 bounds
        and S steps, S being the sum of the lengths.
    """
    programs, at, edges = (
        np.arange(len(lengths)),
        np.zeros(len(lengths), dtype=np.int64),
        np.zeros(len(lengths), np.int64),
    )
    children = np.full((len(lengths), base), -1, dtype=np.int64)
    bounds[0], bounds[1] = 0, 1
    nodes, levels, steps, count = 1, 1, 0, len(lengths)
    step = 0
    while True:
        first, before = bounds[levels - 1], nodes
        unfinished = 0
        for place in range(count):
            program = programs[place]
            step_nodes[steps], step_tokens[steps], step_programs[steps] = at[place], tokens[program, step], program
            steps += 1
            if lengths[program] > step + 1:
                programs[unfinished], at[unfinished] = program, at[place]
                edges[unfinished] = (at[place] - first) * base + tokens[program, step]
                unfinished += 1
        count = unfinished
        if not count:
            return nodes, levels
        # Nodes of a level are in the order of their parents and then of their tokens.
        children[: before - first] = -1
        for place in range(count):
            children[edges[place] // base, edges[place] % base] = 0
        for parent in range(before - first):
            for token in range(base):
                if children[parent, token] == 0:
                    children[parent, token] = nodes
                    parents[nodes], node_tokens[nodes] = first + parent, token
                    nodes += 1
        for place in range(count):
            at[place] = children[edges[place] // base, edges[place] % base]
        levels += 1
        bounds[levels] = nodes
        step += 1
