"""An LSTM of L layers as machine code, for policies so small that a call of torch costs more than its arithmetic.

Everything is float32 and row-major. A lane's numbers do not depend on which lanes are computed beside it, so any split
of a batch gives the same bytes. Weights are those of `FoldedPolicy`: transposed, the first layer's biases folded into
the table of tokens, the candidate's columns doubled, since tanh(x) is taken as 2 sigmoid(2x) - 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from altlas.core.compiling import compiled, compiled_loosely
from altlas.core.philox import Words, fill_uniform
from altlas.core.rng import WORDS_PER_BLOCK
from altlas.core.rows import copy_row

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_ONE, _HALF, _TWO = np.float32(1.0), np.float32(0.5), np.float32(2.0)
_LIMIT = np.float32(87.0)  # beyond it exp leaves float32, and the sigmoid is 0 or 1 to its last bit but one
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)
# exp(r) on |r| <= ln 2 / 2, from Cephes' expf (Moshier 1992), within an ulp or two.
_C0, _C1, _C2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_C3, _C4, _C5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)


@compiled_loosely
def add_product(out: Floats, rows: Floats, weight: Floats, count: int) -> None:
    """Add rows[:count] @ weight to out[:count], the rows one by one in the same order of operations."""
    inner, width = weight.shape
    whole = inner - inner % 4
    fours = count - count % 4
    for i in range(0, fours, 4):
        for k in range(0, whole, 4):
            a0, a1, a2, a3 = rows[i, k], rows[i, k + 1], rows[i, k + 2], rows[i, k + 3]
            b0, b1, b2, b3 = rows[i + 1, k], rows[i + 1, k + 1], rows[i + 1, k + 2], rows[i + 1, k + 3]
            c0, c1, c2, c3 = rows[i + 2, k], rows[i + 2, k + 1], rows[i + 2, k + 2], rows[i + 2, k + 3]
            d0, d1, d2, d3 = rows[i + 3, k], rows[i + 3, k + 1], rows[i + 3, k + 2], rows[i + 3, k + 3]
            for j in range(width):
                w0, w1, w2, w3 = weight[k, j], weight[k + 1, j], weight[k + 2, j], weight[k + 3, j]
                out[i, j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                out[i + 1, j] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                out[i + 2, j] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                out[i + 3, j] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
    for i in range(fours, count):
        for k in range(0, whole, 4):
            a0, a1, a2, a3 = rows[i, k], rows[i, k + 1], rows[i, k + 2], rows[i, k + 3]
            for j in range(width):
                w0, w1, w2, w3 = weight[k, j], weight[k + 1, j], weight[k + 2, j], weight[k + 3, j]
                out[i, j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
    for i in range(count):
        for k in range(whole, inner):
            a0 = rows[i, k]
            for j in range(width):
                out[i, j] += a0 * weight[k, j]


@compiled_loosely
def sigmoid(values: Floats, powers: npt.NDArray[np.int32], power_values: Floats) -> None:
    """Replace values [n] by 1 / (1 + exp(-x)); NaN stays NaN.

    `powers` is room for n, and `power_values` the same bytes as float32.
    """
    for j in range(len(values)):
        x = -values[j]
        x = _LIMIT if x > _LIMIT else x  # NaN passes both
        x = -_LIMIT if x < -_LIMIT else x
        whole = np.floor(x * _LOG2_E + _HALF)
        r = x - whole * _LN2_HIGH - whole * _LN2_LOW
        p = ((((_C0 * r + _C1) * r + _C2) * r + _C3) * r + _C4) * r + _C5
        values[j] = p * r * r + r + _ONE
        powers[j] = (np.int32(whole) + _BIAS) << _MANTISSA_BITS
    for j in range(len(values)):
        values[j] = _ONE / (_ONE + values[j] * power_values[j])


@compiled_loosely
def lstm_step(
    table: Floats,
    weights: Floats,
    inputs: Floats,
    biases: Floats,
    tokens: Ints,
    hidden: Floats,
    cell: Floats,
    gates: Floats,
    powers: npt.NDArray[np.int32],
    power_values: Floats,
    count: int,
) -> None:
    """Take `count` lanes one token further, in place.

    Args:
        table: [V, 4H], what each token adds to the first layer's gates i, f, g, o.
        weights: [L, H, 4H], recurrent.
        inputs, biases: [L - 1, H, 4H] and [L - 1, 4H], of the layers after the first.
        tokens: int64 [>= count].
        hidden, cell: [L, >= count, H].
        gates: [>= count, 4H], room.
        powers, power_values: [4H], room; the same bytes, see `sigmoid`.
        count: lanes.
    """
    width = hidden.shape[2]
    for layer in range(len(weights)):
        if layer:
            for lane in range(count):
                copy_row(gates[lane], biases[layer - 1])
            add_product(gates, hidden[layer - 1], inputs[layer - 1], count)
        else:
            for lane in range(count):
                copy_row(gates[lane], table[tokens[lane]])
        add_product(gates, hidden[layer], weights[layer], count)
        for lane in range(count):
            row, lane_cell, lane_hidden = gates[lane], cell[layer, lane], hidden[layer, lane]
            sigmoid(row, powers, power_values)
            for j in range(width):
                in_gate = row[j]
                lane_cell[j] = row[width + j] * lane_cell[j] + in_gate * (_TWO * row[2 * width + j] - _ONE)
                lane_hidden[j] = _TWO * lane_cell[j]
            sigmoid(lane_hidden, powers, power_values)
            for j in range(width):
                lane_hidden[j] = row[3 * width + j] * (_TWO * lane_hidden[j] - _ONE)


@compiled
def _move(hidden: Floats, cell: Floats, to: int, lane: int) -> None:
    """Give one lane of [L, n, H] the state of another."""
    for layer in range(len(hidden)):
        copy_row(hidden[layer, to], hidden[layer, lane])
        copy_row(cell[layer, to], cell[layer, lane])


@compiled
def _choose(
    logits: Floats, legal: Ints, temperature: np.float32, uniforms: Floats
) -> tuple[int, np.float32, np.float32]:
    """Return the token of the largest log p + Gumbel noise, its log-probability, and the entropy, over legal [L]."""
    largest = logits[legal[0]]
    for token in legal:
        largest = max(largest, logits[token])
    total = np.float32(0.0)
    for token in legal:
        logits[token] = (logits[token] - largest) / temperature
        total += np.exp(logits[token])
    log_total = np.log(total)
    chosen, best, log_prob, entropy = -1, np.float32(-np.inf), np.float32(0.0), np.float32(0.0)
    for token in legal:
        value = logits[token] - log_total
        entropy -= np.exp(value) * value
        noisy = value - np.log(-np.log(uniforms[token]))
        if chosen < 0 or noisy > best:
            chosen, best, log_prob = token, noisy, value
    return chosen, log_prob, entropy


@compiled
def sample(
    table: Floats,
    weights: Floats,
    inputs: Floats,
    biases: Floats,
    output: Floats,
    output_bias: Floats,
    masks: npt.NDArray[np.bool_],
    start: int,
    end: int,
    temperature: np.float32,
    key: Words,
    update: int,
    first_index: int,
    rows: Ints,
    tokens: Ints,
    lengths: Ints,
    log_probs: Floats,
    entropies: Floats,
) -> None:
    """Draw programs for some rows of a batch, filling the last four arguments there.

    Args:
        table, weights, inputs, biases: see `lstm_step`.
        output: [H, V], with its bias [V].
        output_bias: see `output`.
        masks: bool [T, V], what may stand at each place, at least one token.
        start: token before the first.
        end: token after which a program ends; none where it is not in the masks.
        temperature: logits are divided by it.
        key: of the noise, uint64 [2].
        update: counter of the noise.
        first_index: of row 0.
        rows: int64 [n].
        tokens: int64 [B, T].
        lengths: int64 [B].
        log_probs, entropies: float32 [B, T].
    """
    count, layers, (width, vocabulary) = len(rows), len(weights), output.shape
    lanes, previous = rows.copy(), np.full(count, start, dtype=np.int64)
    hidden = np.zeros((layers, count, width), dtype=np.float32)
    cell = np.zeros_like(hidden)
    gates = np.empty((count, 4 * width), dtype=np.float32)
    powers = np.empty(4 * width, dtype=np.int32)
    power_values = powers.view(np.float32)
    logits = np.empty((count, vocabulary), dtype=np.float32)
    uniforms, words = np.empty(vocabulary, dtype=np.float32), np.empty(WORDS_PER_BLOCK, dtype=np.uint64)
    for step in range(len(masks)):
        lstm_step(table, weights, inputs, biases, previous, hidden, cell, gates, powers, power_values, count)
        for lane in range(count):
            copy_row(logits[lane], output_bias)
        add_product(logits, hidden[layers - 1], output, count)
        legal = np.flatnonzero(masks[step])
        unfinished = 0
        for lane in range(count):
            row = lanes[lane]
            fill_uniform(key, first_index + row, step, update, words, uniforms)
            chosen, log_probs[row, step], entropies[row, step] = _choose(logits[lane], legal, temperature, uniforms)
            tokens[row, step] = chosen
            lengths[row] = step + 1
            if chosen != end:
                lanes[unfinished], previous[unfinished] = row, chosen
                _move(hidden, cell, unfinished, lane)
                unfinished += 1
        count = unfinished
        if not count:
            break


@compiled
def read(
    table: Floats,
    weights: Floats,
    inputs: Floats,
    biases: Floats,
    tokens: Ints,
    lengths: Ints,
    start: int,
    hidden: Floats,
    cell: Floats,
) -> None:
    """Write the states after 0, 1, ... tokens of programs int64 [N, T], each read to its length [N].

    Args:
        table, weights, inputs, biases: see `lstm_step`.
        tokens, lengths: the programs.
        start: token before the first.
        hidden, cell: float32 [L, N, T + 1, H], filled; places beyond a program's length are left alone.
    """
    programs, (layers, width, _) = len(lengths), weights.shape
    lanes, previous = np.arange(programs), np.full(programs, start, dtype=np.int64)
    now = np.zeros((layers, programs, width), dtype=np.float32)
    cells = np.zeros_like(now)
    gates = np.empty((programs, 4 * width), dtype=np.float32)
    powers = np.empty(4 * width, dtype=np.int32)
    power_values = powers.view(np.float32)
    count = programs
    for step in range(hidden.shape[2]):
        lstm_step(table, weights, inputs, biases, previous, now, cells, gates, powers, power_values, count)
        unfinished = 0
        for lane in range(count):
            program = lanes[lane]
            for layer in range(layers):
                copy_row(hidden[layer, program, step], now[layer, lane])
                copy_row(cell[layer, program, step], cells[layer, lane])
            if lengths[program] > step:
                lanes[unfinished], previous[unfinished] = program, tokens[program, step]
                _move(now, cells, unfinished, lane)
                unfinished += 1
        count = unfinished


@compiled
def go_on(
    table: Floats,
    weights: Floats,
    inputs: Floats,
    biases: Floats,
    output: Floats,
    output_bias: Floats,
    legal: Ints,
    temperature: np.float32,
    key: Words,
    update: int,
    indices: Ints,
    sizes: Ints,
    hidden: Floats,
    cell: Floats,
    tokens: Ints,
) -> None:
    """Draw sizes [B] tokens each from states [L, B, H] on, into tokens int64 [B, T]. States are overwritten.

    Args:
        table, weights, inputs, biases: see `lstm_step`.
        output, output_bias: see `sample`.
        legal: ids that may be drawn, int64 [L], at least one.
        temperature, key, update: see `sample`.
        indices: int64 [B], of the noise.
        sizes: int64 [B].
        hidden, cell: float32 [L, B, H].
        tokens: filled.
    """
    count, layers, (width, vocabulary) = len(sizes), len(weights), output.shape
    lanes, previous = np.arange(count), np.zeros(count, dtype=np.int64)
    gates = np.empty((count, 4 * width), dtype=np.float32)
    powers = np.empty(4 * width, dtype=np.int32)
    power_values = powers.view(np.float32)
    logits = np.empty((count, vocabulary), dtype=np.float32)
    uniforms, words = np.empty(vocabulary, dtype=np.float32), np.empty(WORDS_PER_BLOCK, dtype=np.uint64)
    for step in range(tokens.shape[1]):
        unfinished = 0
        for lane in range(count):
            if sizes[lanes[lane]] > step:
                lanes[unfinished], previous[unfinished] = lanes[lane], previous[lane]
                _move(hidden, cell, unfinished, lane)
                unfinished += 1
        count = unfinished
        if not count:
            break
        if step:
            lstm_step(table, weights, inputs, biases, previous, hidden, cell, gates, powers, power_values, count)
        for lane in range(count):
            copy_row(logits[lane], output_bias)
        add_product(logits, hidden[layers - 1], output, count)
        for lane in range(count):
            row = lanes[lane]
            fill_uniform(key, indices[row], step, update, words, uniforms)
            chosen, _, _ = _choose(logits[lane], legal, temperature, uniforms)
            tokens[row, step] = chosen
            previous[lane] = chosen
