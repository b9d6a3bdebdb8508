"""The genetic algorithm of the published comparison: fixed length, roulette selection, two elites.

Abolafia et al. 2018 ("Neural program synthesis with priority queue training", section 4.3 and its released code): the
children of a generation are drawn from the population in proportion to reward, crossed in pairs at one point, and each
token of a child is changed with a small probability, in one of four ways that keep the length.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from altlas.core.compiling import compiled
from altlas.core.mutation import Children
from altlas.core.trajectory import FloatArray, IntArray

ELITES = 2
_LEAST_FITNESS = 0.05


def uniforms_per_child(length: int) -> int:
    """Return how many uniform numbers a child of `length` tokens takes: 3, then 5 a token."""
    return 3 + 5 * length


def breed(
    population: Children,
    rewards: npt.NDArray[np.float64],
    uniforms: FloatArray,
    *,
    alphabet: IntArray,
    crossover: float,
    rate: float,
) -> Children:
    """Return as many children as there are rows of `uniforms`.

    Args:
        population: programs of one length.
        rewards: of each, [N]; a parent is drawn in proportion to max(reward, 0) + 0.05.
        uniforms: float32 [B, uniforms_per_child(length)] in (0, 1); children 2i and 2i + 1 are of one couple.
        alphabet: ids that may be written.
        crossover: probability that a couple is crossed.
        rate: probability of a change, per token.
    """
    fitness = np.cumsum(np.maximum(rewards, 0.0) + _LEAST_FITNESS)
    chosen = np.minimum(np.searchsorted(fitness, uniforms[:, 0] * fitness[-1], side="right"), len(fitness) - 1)
    tokens = population.tokens[chosen].copy()
    pairs = len(tokens) // 2
    is_crossed = uniforms[0 : 2 * pairs : 2, 1] < crossover
    cuts = (uniforms[0 : 2 * pairs : 2, 2] * tokens.shape[1]).astype(np.int64)
    is_swapped = is_crossed[:, None] & (np.arange(tokens.shape[1]) >= cuts[:, None])
    first, second = tokens[0 : 2 * pairs : 2].copy(), tokens[1 : 2 * pairs : 2].copy()
    tokens[0 : 2 * pairs : 2] = np.where(is_swapped, second, first)
    tokens[1 : 2 * pairs : 2] = np.where(is_swapped, first, second)
    _change(tokens, uniforms[:, 3:].astype(np.float64), alphabet, rate)
    return Children(tokens, population.lengths[chosen])


@compiled
def _change(
    tokens: npt.NDArray[np.int64], uniforms: npt.NDArray[np.float64], alphabet: npt.NDArray[np.int64], rate: float
) -> None:
    for row in range(len(tokens)):
        program = tokens[row]
        last = len(program) - 1
        for place in range(len(program)):
            draws = uniforms[row, 5 * place : 5 * place + 5]
            if draws[0] >= rate:
                continue
            token = alphabet[int(draws[1] * len(alphabet))]
            kind, goes_up = draws[2], draws[3] < 0.5
            if kind < 0.25 and 0 < place < last:
                if goes_up:  # what follows moves up, the last token is lost
                    program[place + 1 :] = program[place:last].copy()
                    program[place] = token
                else:  # what comes before moves down, the first token is lost
                    program[: place - 1] = program[1:place].copy()
                    program[place - 1] = token
            elif kind < 0.5:
                if goes_up:
                    program[place:last] = program[place + 1 :].copy()
                    program[last] = token
                else:
                    program[1 : place + 1] = program[:place].copy()
                    program[0] = token
            elif kind < 0.75:
                program[:] = np.roll(program, -1 if goes_up else 1)
            else:
                program[place] = token
