"""Counter-based streams: the same item whatever the split, other items for any other key."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altlas.core.rng import SplitMix, uniform

KEY = {"update": 3, "first_index": 0, "count": 32, "per_index": 13, "step": 2}


@given(first=st.integers(0, 31), data=st.data(), per_index=st.integers(1, 40))
def test_an_item_does_not_depend_on_the_range_it_is_drawn_in(first, data, per_index):
    count = data.draw(st.integers(1, 32 - first))
    whole = uniform(7, "sample", update=1, first_index=0, count=32, per_index=per_index, step=5)
    part = uniform(7, "sample", update=1, first_index=first, count=count, per_index=per_index, step=5)
    assert np.array_equal(part, whole[first : first + count])


@pytest.mark.parametrize(
    "other",
    [
        lambda: uniform(8, "sample", **KEY),
        lambda: uniform(7, "init", **KEY),
        lambda: uniform(7, "sample", **{**KEY, "update": 4}),
        lambda: uniform(7, "sample", **{**KEY, "step": 3}),
        lambda: uniform(7, "sample", **{**KEY, "first_index": 32}),
    ],
    ids=["seed", "purpose", "update", "step", "index"],
)
def test_every_part_of_the_key_gives_another_stream(other):
    assert not np.isin(other(), uniform(7, "sample", **KEY)).mean() > 0.01


def test_values_are_those_of_philox_by_its_definition():
    """A literal Philox 4x64-10 (Salmon et al. 2011, figure 2), so that no library upgrade moves a run unnoticed."""
    word = (1 << 64) - 1

    def philox(counter, key):
        for _ in range(10):
            first, second = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
            counter = [
                (second >> 64) ^ counter[1] ^ key[0],
                second & word,
                (first >> 64) ^ counter[3] ^ key[1],
                first & word,
            ]
            key = [(key[0] + 0x9E3779B97F4A7C15) & word, (key[1] + 0xBB67AE8584CAA73B) & word]
        return counter

    purpose = int.from_bytes(hashlib.sha256(b"sample").digest()[:8], "little")
    # One item of 8 floats is one block; numpy steps the counter before each block.
    words = philox([5 * 1 + 1, 2, 3, 0], [7, purpose])
    halves = [half for value in words for half in (value & 0xFFFFFFFF, value >> 32)]
    expected = np.array([((half >> 9) + 0.5) / 2**23 for half in halves], dtype=np.float32)
    drawn = uniform(7, "sample", update=3, first_index=5, count=1, per_index=8, step=2)
    assert np.array_equal(drawn[0], expected)


def test_values_are_uniform_on_the_open_interval():
    values = uniform(1, "sample", update=0, first_index=0, count=1000, per_index=100)
    assert values.dtype == np.float32
    assert 0 < values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1
    counts, _ = np.histogram(values, bins=50, range=(0, 1))
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 100  # 49 degrees of freedom: above 100 once in 50,000 keys, and this key is fixed


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()
    uniform(1, "sample", **KEY)
    assert np.array_equal(np.random.get_state()[1], before)


def splitmix_words(state):
    """A literal SplitMix64, as Vigna published it (splitmix64.c)."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        word = state
        word = (word ^ (word // 2**30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word // 2**27)) * 0x94D049BB133111EB % 2**64
        yield word ^ (word // 2**31)


def test_the_literal_splitmix_gives_the_published_words():
    assert list(itertools.islice(splitmix_words(1234567), 5)) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(st.binary(max_size=40))
def test_a_stream_of_its_own_is_splitmix_from_the_hash_of_its_key(key):
    words = splitmix_words(int.from_bytes(hashlib.sha256(key).digest()[:8], "little"))
    stream = SplitMix(key)
    for word in itertools.islice(words, 20):
        assert stream.random() == (word // 2**11) / 2**53


def test_streams_of_keys_that_are_alike_are_unlike_and_uniform():
    streams = [SplitMix(number.to_bytes(4, "little")) for number in range(100)]
    values = np.array([[stream.random() for _ in range(500)] for stream in streams])
    assert 0 <= values.min() < values.max() < 1
    assert len(np.unique(values)) == values.size
    counts, _ = np.histogram(values, bins=50, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 100
