"""Blind variation of programs: one-point crossover and random edits, compiled, on counter-based random numbers.

A child is a function of its parents and its own row of uniform numbers, so any process makes the same children.
Programs are token sequences without <EOS>; `alphabet` holds the ids that may be written.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from altlas.core.compiling import compiled
from altlas.core.rows import copy_row, move_within
from altlas.core.trajectory import FloatArray, IntArray

MOST_EDITS = 8
_PER_EDIT = 4
_HEAD = 4
UNIFORMS = _HEAD + MOST_EDITS * _PER_EDIT
"""Uniform numbers per child."""

# Shares of the kinds of edits. Inserting and replacing find new code, deleting makes room and shortens.
_INSERT, _REPLACE, _DELETE, _SWAP = 0.35, 0.65, 0.9, 0.95
_LONGEST_COPY = 8


@dataclass(frozen=True, slots=True)
class Children:
    """B programs without <EOS>: tokens int64 [B, T], 0 beyond each length; lengths int64 [B], 0 for an empty one."""

    tokens: IntArray
    lengths: IntArray


def mutate(
    parents: Children,
    partners: Children,
    uniforms: FloatArray,
    *,
    alphabet: IntArray,
    longest: int,
    crossover: float,
    mean_edits: float,
) -> Children:
    """Return a child for each parent [B].

    With probability `crossover` a child is the beginning of its parent and an end of its partner, then edited 0 to 2
    times; else it is its parent, edited 1 + Geometric times, `mean_edits` on the mean and at most MOST_EDITS. An edit
    inserts, replaces or deletes one token, swaps two, or copies up to 8 to another place.

    Args:
        parents, partners: B programs each, of at most `longest` tokens.
        uniforms: float32 [B, UNIFORMS] in (0, 1).
        alphabet: ids that may be written.
        longest: tokens of the longest child.
        crossover: in [0, 1].
        mean_edits: at least 1.
    """
    tokens = np.zeros((len(parents.lengths), longest), dtype=np.int64)
    lengths = np.zeros(len(parents.lengths), dtype=np.int64)
    _mutate(
        parents.tokens,
        parents.lengths,
        partners.tokens,
        partners.lengths,
        uniforms.astype(np.float64),
        alphabet,
        crossover,
        max(mean_edits, 1.0),
        tokens,
        lengths,
    )
    return Children(tokens, lengths)


_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@compiled
def _mutate(
    parents: _Ints,
    parent_lengths: _Ints,
    partners: _Ints,
    partner_lengths: _Ints,
    uniforms: _Floats,
    alphabet: _Ints,
    crossover: float,
    mean_edits: float,
    tokens: _Ints,
    lengths: _Ints,
) -> None:
    copied = np.zeros(_LONGEST_COPY, dtype=np.int64)
    for row in range(len(lengths)):
        child, draws = tokens[row], uniforms[row]
        size = min(parent_lengths[row], len(child))
        copy_row(child[:size], parents[row])
        if draws[0] < crossover:
            size = _cross(child, size, partners[row], partner_lengths[row], draws)
            edits = int(draws[1] * 3)
        elif mean_edits > 1.0:
            edits = 1 + int(np.log(draws[1]) / np.log(1.0 - 1.0 / mean_edits))
        else:
            edits = 1
        for edit in range(min(edits, MOST_EDITS)):
            first = _HEAD + edit * _PER_EDIT
            size = _edit(child, size, draws[first : first + _PER_EDIT], alphabet, copied)
        child[size:] = 0
        lengths[row] = size


@compiled
def _cross(child: _Ints, size: int, partner: _Ints, partner_size: int, draws: _Floats) -> int:
    """Replace the end of `child` by an end of `partner`, the cuts drawn apart; return the new size."""
    cut = int(draws[2] * (size + 1))
    start = int(draws[3] * (partner_size + 1))
    taken = min(partner_size - start, len(child) - cut)
    copy_row(child[cut : cut + taken], partner[start:])
    return cut + taken


@compiled
def _edit(child: _Ints, size: int, draws: _Floats, alphabet: _Ints, copied: _Ints) -> int:
    """Make one edit in place and return the new size; one that there is no room for changes nothing."""
    kind = draws[0]
    token = alphabet[int(draws[2] * len(alphabet))]
    place = int(draws[1] * size)
    if size == 0 or kind < _INSERT:
        if size < len(child):
            place = int(draws[1] * (size + 1))
            move_within(child, place + 1, place, size - place)
            child[place] = token
            size += 1
    elif kind < _REPLACE:
        child[place] = token
    elif kind < _DELETE:
        move_within(child, place, place + 1, size - place - 1)
        size -= 1
    elif kind < _SWAP:
        other = int(draws[3] * size)
        child[place], child[other] = child[other], child[place]
    else:
        taken = 1 + int(draws[2] * min(size, _LONGEST_COPY))
        if size + taken <= len(child):
            start = int(draws[1] * (size - taken + 1))
            target = int(draws[3] * (size + 1))
            copy_row(copied[:taken], child[start:])
            move_within(child, target + taken, target, size - target)
            copy_row(child[target : target + taken], copied)
            size += taken
    return size
