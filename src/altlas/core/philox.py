"""Philox 4x64 as machine code: the numbers of `altlas.core.rng` one at a time, for loops that need few of them.

The generator is that of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3", section 3.3) with ten
rounds; numpy's gives the block of counter + 1 first, and so does this.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from altlas.core.compiling import compiled
from altlas.core.rng import FLOATS_PER_BLOCK, WORDS_PER_BLOCK, stream_key
from altlas.core.trajectory import FloatArray, IntArray

Words = npt.NDArray[np.uint64]

_ROUNDS = 10
_MULTIPLIER_A, _MULTIPLIER_B = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_WEYL_A, _WEYL_B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_LOW, _HALF, _ONE = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(1)
_UNUSED_BITS = np.uint64(9)
_SCALE, _MIDDLE = np.float32(2.0**-23), np.float32(0.5)


def uniform_rows(
    seed: int, purpose: str, *, update: int, indices: IntArray, per_index: int, step: int = 0
) -> FloatArray:
    """Return the rows of `uniform` for some items int64 [n], float32 [n, per_index], without drawing the others."""
    uniforms = np.empty((len(indices), per_index), dtype=np.float32)
    _fill_rows(stream_key(seed, purpose), indices, step, update, uniforms)
    return uniforms


@compiled
def _high_product(a: np.uint64, b: np.uint64) -> np.uint64:
    """Return the upper 64 bits of a product."""
    a_low, a_high, b_low, b_high = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    middle = a_high * b_low + ((a_low * b_low) >> _HALF)
    other = a_low * b_high + (middle & _LOW)
    return a_high * b_high + (middle >> _HALF) + (other >> _HALF)


@compiled
def _fill_block(key: Words, block: int, step: int, update: int, words: Words) -> None:
    """Write the four words of a block: key uint64 [2], words uint64 [4]."""
    word_a, word_b, word_c, word_d = np.uint64(block) + _ONE, np.uint64(step), np.uint64(update), np.uint64(0)
    key_a, key_b = key[0], key[1]
    for _ in range(_ROUNDS):
        high_a, low_a = _high_product(_MULTIPLIER_A, word_a), _MULTIPLIER_A * word_a
        high_b, low_b = _high_product(_MULTIPLIER_B, word_c), _MULTIPLIER_B * word_c
        word_a, word_b, word_c, word_d = high_b ^ word_b ^ key_a, low_b, high_a ^ word_d ^ key_b, low_a
        key_a, key_b = key_a + _WEYL_A, key_b + _WEYL_B
    words[0], words[1], words[2], words[3] = word_a, word_b, word_c, word_d


@compiled
def fill_uniform(key: Words, item: int, step: int, update: int, words: Words, uniforms: FloatArray) -> None:
    """Write an item's numbers of one step, float32 [per_index]; `words` is room for a block, uint64 [4]."""
    blocks = (len(uniforms) + FLOATS_PER_BLOCK - 1) // FLOATS_PER_BLOCK
    place = 0
    for block in range(blocks):
        _fill_block(key, item * blocks + block, step, update, words)
        for word in words:
            for bits in (word & _LOW, word >> _HALF):
                if place < len(uniforms):
                    uniforms[place] = (np.float32(bits >> _UNUSED_BITS) + _MIDDLE) * _SCALE
                    place += 1


@compiled
def _fill_rows(key: Words, items: IntArray, step: int, update: int, uniforms: FloatArray) -> None:
    """Write the numbers of items [n], float32 [n, per_index]."""
    words = np.empty(WORDS_PER_BLOCK, dtype=np.uint64)
    for row in range(len(items)):
        fill_uniform(key, items[row], step, update, words, uniforms[row])
