"""The index against a dict, and its bytes on the way through a checkpoint."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from altlas.core.program import fingerprint, fingerprints
from altlas_coordinator.fingerprint_index import FingerprintIndex, Keys, keys_of

# Multiples of a power of two share their first slot in a table of any size that is met here.
KEYS = st.integers(0, 2**64 - 1) | st.integers(0, 40).map(lambda number: number << 40) | st.integers(0, 9)
BATCHES = st.lists(st.lists(KEYS, max_size=30), max_size=6)


def as_keys(numbers: list[int]) -> Keys:
    return np.array(numbers, dtype=np.uint64)


@given(BATCHES)
def test_index_equals_a_dict(batches: list[list[int]]) -> None:
    index, rows = FingerprintIndex(), dict[int, int]()
    for numbers in batches:
        expected = [rows.setdefault(number, len(rows)) for number in numbers]
        assert index.add(as_keys(numbers)).tolist() == expected
        assert len(index) == len(rows)
    assert index.keys.tolist() == list(rows)
    assert FingerprintIndex(index.keys).keys.tolist() == list(rows)


def test_index_grows() -> None:
    numbers = np.random.default_rng(1).integers(0, 2**63, 50_000).astype(np.uint64)
    index = FingerprintIndex()
    for start in range(0, len(numbers), 7_000):
        index.add(numbers[start : start + 7_000])
    assert np.array_equal(index.keys, numbers)
    assert np.array_equal(index.add(numbers[::-1]), np.arange(len(numbers))[::-1])


def test_keys_are_the_first_bytes_of_fingerprints() -> None:
    names = [bytes(range(16)), b"\xff" * 16]
    assert keys_of(names).tolist() == [int.from_bytes(name[:8], "little") for name in names]
    assert keys_of([]).tolist() == []


@given(st.lists(st.binary(max_size=40), max_size=9))
def test_fingerprints_name_task_language_and_source(sources: list[bytes]) -> None:
    names = fingerprints("digest", "brainf", sources)
    assert names == [fingerprint("digest", "brainf", source) for source in sources]
    assert {len(name) for name in names} <= {16}
    assert len(set(names)) == len(set(sources))
    others = fingerprints("digest", "python", sources) + fingerprints("digestb", "rainf", sources)
    assert not set(names) & set(others)
