"""Random numbers as pure functions of (seed, purpose, update, step, index): Philox 4x64 in counter mode.

Item i is the same whatever range it is drawn in, in whatever order and by whichever process. Only Philox's raw words
are used, which are fixed by its definition, so a library upgrade does not change a run. No generator keeps state but
SplitMix, of which an item that needs an unknown number of draws has one of its own.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import numpy.typing as npt

from altlas.core.trajectory import FloatArray

WORDS_PER_BLOCK = 4
FLOATS_PER_BLOCK = 2 * WORDS_PER_BLOCK
_WORD = (1 << 64) - 1


def uniform(
    seed: int, purpose: str, *, update: int, first_index: int, count: int, per_index: int, step: int = 0
) -> FloatArray:
    """Return float32 [count, per_index], uniform on the open interval (0, 1), for items first_index and following.

    An item takes a whole number of Philox blocks, so items do not depend on `first_index` or `count`. They do depend
    on `per_index`: keep it fixed for a purpose.
    """
    blocks_per_item = -(-per_index // FLOATS_PER_BLOCK)
    words = _raw(seed, purpose, (first_index * blocks_per_item, step, update), count * blocks_per_item)
    halves = words.astype("<u8", copy=False).view("<u4").reshape(count, -1)[:, :per_index]
    # 23 bits and a half: every value is exact in float32, never 0 and never 1, so log and log(-log) stay finite.
    return ((halves >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)


def stream_key(seed: int, purpose: str) -> npt.NDArray[np.uint64]:
    """Return the key of a purpose's stream, uint64 [2], for `altlas.core.philox`."""
    return np.array([seed, _purpose_word(purpose)], dtype=np.uint64)


class SplitMix:
    """A stream of numbers from some bytes, SplitMix64 (Steele, Lea and Flood 2014), for few draws without arrays."""

    def __init__(self, seed: bytes) -> None:
        self._state = int.from_bytes(hashlib.sha256(seed).digest()[:8], "little")

    def random(self) -> float:
        """Return the next number, uniform on [0, 1) with 53 bits."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _WORD
        word = self._state
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
        return ((word ^ (word >> 31)) >> 11) * 2.0**-53


def _raw(seed: int, purpose: str, counter: tuple[int, int, int], blocks: int) -> npt.NDArray[np.uint64]:
    generator = np.random.Philox(key=stream_key(seed, purpose), counter=np.array([*counter, 0], dtype=np.uint64))
    return np.asarray(generator.random_raw(blocks * WORDS_PER_BLOCK), dtype=np.uint64)


@functools.lru_cache(maxsize=4096)
def _purpose_word(purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
