"""Copies of rows as machine code. Assigning arrays to slices does the same, and takes numba seconds longer to compile,
most of them for the texts of errors that cannot occur.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from altlas.core.compiling import compiled


@compiled
def copy_row(to: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
    """Set all of `to` [n] to the beginning of `source`, which may not overlap it."""
    for j in range(len(to)):
        to[j] = source[j]


@compiled
def move_within(row: npt.NDArray[Any], to: int, start: int, count: int) -> None:
    """Copy `count` numbers of a row from `start` on to the place `to`, right also where the two overlap."""
    if to < start:
        for j in range(count):
            row[to + j] = row[start + j]
    else:
        for j in range(count - 1, -1, -1):
            row[to + j] = row[start + j]
