"""The published genetic algorithm against a literal transcription on the same uniform numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored import children_of

from altlas.core.genetic import breed, uniforms_per_child
from altlas.core.rng import uniform

ALPHABET = np.array([4, 5, 6, 7, 8], dtype=np.int64)


def select_literally(rewards, u):
    fitness = [0.05 if reward <= 0 else reward + 0.05 for reward in rewards]
    aim, total = u * float(np.cumsum(fitness)[-1]), 0.0
    for row, value in enumerate(fitness):
        total += value
        if total > aim:
            return row
    return len(rewards) - 1


def change_literally(program, draws, rate):
    for place in range(len(program)):
        is_changed, what, kind, way, _ = draws[5 * place : 5 * place + 5]
        if is_changed >= rate:
            continue
        token = int(ALPHABET[int(what * len(ALPHABET))])
        if kind < 0.25 and place not in (0, len(program) - 1):
            if way < 0.5:
                program = [*program[:place], token, *program[place:-1]]
            else:
                program = [*program[1:place], token, *program[place:]]
        elif kind < 0.5:
            rest = program[:place] + program[place + 1 :]
            program = [*rest, token] if way < 0.5 else [token, *rest]
        elif kind < 0.75:
            program = program[1:] + program[:1] if way < 0.5 else program[-1:] + program[:-1]
        else:
            program = [*program[:place], token, *program[place + 1 :]]
    return program


def breed_literally(population, rewards, draws, *, crossover, rate):
    chosen = [population[select_literally(rewards, row[0])] for row in draws]
    for first in range(0, len(chosen) - 1, 2):
        if draws[first][1] < crossover:
            one, other = chosen[first : first + 2]
            cut = int(draws[first][2] * len(one))
            chosen[first : first + 2] = one[:cut] + other[cut:], other[:cut] + one[cut:]
    return [change_literally(program, row[3:], rate) for program, row in zip(chosen, draws, strict=True)]


@given(
    length=st.integers(1, 9),
    rewards=st.lists(st.sampled_from([-0.5, 0.0, 0.3, 1.0]), min_size=1, max_size=9),
    count=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    crossover=st.sampled_from([0.0, 0.95, 1.0]),
    rate=st.sampled_from([0.0, 0.15, 1.0]),
)
def test_children_equal_the_literal_ones(length, rewards, count, seed, crossover, rate):
    population = np.random.default_rng(seed).choice(ALPHABET, (len(rewards), length)).tolist()
    draws = uniform(seed, "breed", update=0, first_index=0, count=count, per_index=uniforms_per_child(length))
    children = breed(
        children_of(population), np.array(rewards), draws, alphabet=ALPHABET, crossover=crossover, rate=rate
    )
    expected = breed_literally(population, rewards, draws.astype(float).tolist(), crossover=crossover, rate=rate)
    assert children.tokens.tolist() == expected
    assert children.lengths.tolist() == [length] * count


def test_parents_are_drawn_in_proportion_to_reward():
    draws = uniform(1, "breed", update=0, first_index=0, count=20_000, per_index=uniforms_per_child(1))
    population = children_of([[4], [5], [6]])
    children = breed(
        population, np.array([-3.0, 0.25, 0.65]), draws, alphabet=ALPHABET, crossover=0.0, rate=0.0
    ).tokens[:, 0]
    shares = np.bincount(children, minlength=7)[4:] / len(draws)
    assert shares == pytest.approx([0.05, 0.3, 0.7] / np.float64(1.05), abs=0.015)
