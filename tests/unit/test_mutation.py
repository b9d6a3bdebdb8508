"""The compiled edits against the same in lists, on the same uniform numbers."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored import children_of, lists_of

from altlas.core.mutation import MOST_EDITS, UNIFORMS, mutate
from altlas.core.rng import uniform

ALPHABET = np.array([4, 6, 7, 9], dtype=np.int64)
LONGEST = 12
PROGRAM = st.lists(st.sampled_from(ALPHABET.tolist()), max_size=LONGEST)


def edit_literally(program, draws, longest):
    kind, place, what, other = draws
    size = len(program)
    if not program or kind < 0.35:
        if size < longest:
            program.insert(int(place * (size + 1)), int(ALPHABET[int(what * len(ALPHABET))]))
    elif kind < 0.65:
        program[int(place * size)] = int(ALPHABET[int(what * len(ALPHABET))])
    elif kind < 0.9:
        del program[int(place * size)]
    elif kind < 0.95:
        first, second = int(place * size), int(other * size)
        program[first], program[second] = program[second], program[first]
    else:
        taken = 1 + int(what * min(size, 8))
        if size + taken <= longest:
            start, target = int(place * (size - taken + 1)), int(other * (size + 1))
            program[target:target] = program[start : start + taken]


def mutate_literally(parent, partner, draws, *, longest, crossover, mean_edits):
    child = list(parent)[:longest]
    if draws[0] < crossover:
        cut, start = int(draws[2] * (len(child) + 1)), int(draws[3] * (len(partner) + 1))
        child = (child[:cut] + list(partner)[start:])[:longest]
        edits = int(draws[1] * 3)
    elif mean_edits > 1:
        edits = 1 + int(math.log(draws[1]) / math.log(1 - 1 / mean_edits))
    else:
        edits = 1
    for edit in range(min(edits, MOST_EDITS)):
        edit_literally(child, draws[4 + 4 * edit : 8 + 4 * edit], longest)
    return child


def draws_of(seed, count):
    return uniform(seed, "vary", update=0, first_index=0, count=count, per_index=UNIFORMS)


@given(
    couples=st.lists(st.tuples(PROGRAM, PROGRAM), min_size=1, max_size=30),
    seed=st.integers(0, 2**32),
    longest=st.integers(0, LONGEST),
    crossover=st.sampled_from([0.0, 0.3, 1.0]),
    mean_edits=st.sampled_from([1.0, 2.0, 8.0]),
)
def test_children_equal_the_literal_ones(couples, seed, longest, crossover, mean_edits):
    parents, partners = (children_of(programs) for programs in zip(*couples, strict=True))
    before = parents.tokens.copy(), partners.tokens.copy()
    draws = draws_of(seed, len(couples))
    settings = {"longest": longest, "crossover": crossover, "mean_edits": mean_edits}
    children = mutate(parents, partners, draws, alphabet=ALPHABET, **settings)
    expected = [
        mutate_literally(*couple, row, **settings) for couple, row in zip(couples, draws.astype(float), strict=True)
    ]
    assert lists_of(children.tokens, children.lengths) == expected
    assert children.tokens.shape == (len(couples), longest)
    assert not children.tokens[np.arange(longest) >= children.lengths[:, None]].any()
    assert np.array_equal(parents.tokens, before[0])
    assert np.array_equal(partners.tokens, before[1])


def test_every_place_is_edited_and_every_token_is_written():
    parent = [4, 6, 7, 9, 4]
    count = 5000
    parents = children_of([parent] * count)
    children = mutate(parents, parents, draws_of(1, count), alphabet=ALPHABET, longest=9, crossover=0.0, mean_edits=1.0)
    found = {tuple(child) for child in lists_of(children.tokens, children.lengths)}
    for place in range(5):
        assert (*parent[:place], *parent[place + 1 :]) in found
        for token in ALPHABET.tolist():
            assert (*parent[:place], token, *parent[place + 1 :]) in found
    for place in range(6):
        for token in ALPHABET.tolist():
            assert (*parent[:place], token, *parent[place:]) in found
    assert (4, 9, 7, 6, 4) in found
    assert (4, 6, 7, 4, 6, 7, 9, 4) in found


def test_edits_number_what_was_asked_for():
    """Insertions alone can be counted: an empty program with one edit grows by one."""
    draws = draws_of(1, 20_000)
    draws[:, 4::4] = 0.1
    empty = children_of([[]] * len(draws))
    edits = mutate(empty, empty, draws, alphabet=ALPHABET, longest=8, crossover=0.0, mean_edits=2.0).lengths
    counts = Counter(edits.tolist())
    assert set(counts) == set(range(1, MOST_EDITS + 1))
    assert counts[1] / len(draws) == pytest.approx(0.5, abs=0.02)
    assert edits.mean() == pytest.approx(2.0, abs=0.05)
    crossed = mutate(empty, empty, draws, alphabet=ALPHABET, longest=8, crossover=1.0, mean_edits=2.0).lengths
    assert Counter(crossed.tolist()).keys() == {0, 1, 2}
