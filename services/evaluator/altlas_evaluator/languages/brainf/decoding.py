"""What a brainf program is to the machine code that runs it: operations as small integers, and where brackets lead.

Importing this needs numba; nothing is compiled before the first call.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from altlas.core.compiling import compiled_inside

ByteArray: TypeAlias = "npt.NDArray[np.uint8]"
IntArray: TypeAlias = "npt.NDArray[np.int64]"

RIGHT, LEFT, MORE, LESS, OPEN, CLOSE, END, WRITE, READ, SKIP = range(10)
OPEN_MORE, OPEN_LESS = 10, 11  # the bracket of [+] or [-], whose turns need not be taken one by one
_OPS = "><+-[].,"
_OP_OF = np.full(256, SKIP, dtype=np.uint8)
_OP_OF[np.frombuffer(_OPS.encode(), dtype=np.uint8)] = RIGHT, LEFT, MORE, LESS, OPEN, CLOSE, WRITE, READ


@compiled_inside
def decode(
    sources: ByteArray, begin: int, end: int, ops: ByteArray, jumps: IntArray, opened: IntArray, folds: bool
) -> bool:
    """Fill `ops`, and `jumps` where a bracket leads. Return whether all have a match; those without do nothing.

    Args:
        sources: uint8, of which `begin` to `end` is the program.
        begin: see `sources`.
        end: see `sources`.
        ops: uint8 [at least the length + 1]; END follows the last operation.
        jumps: int64 [at least the length], for a bracket the position of its match.
        opened: int64 [at least the length], room to work.
        folds: whether the opening brackets of [+] and [-] are operations of their own.
    """
    depth = 0
    is_balanced = True
    for position in range(end - begin):
        op = _OP_OF[sources[begin + position]]
        ops[position] = op
        if op == OPEN:
            opened[depth] = position
            depth += 1
        elif op == CLOSE:
            if depth:
                depth -= 1
                match = opened[depth]
                jumps[position] = match
                jumps[match] = position
                if folds and position - match == 2:
                    if ops[match + 1] == MORE:
                        ops[match] = OPEN_MORE
                    elif ops[match + 1] == LESS:
                        ops[match] = OPEN_LESS
            else:
                ops[position] = SKIP
                is_balanced = False
    ops[end - begin] = END
    for level in range(depth):
        ops[opened[level]] = SKIP
    return is_balanced and depth == 0


@compiled_inside
def turns_to_zero(value: int, op: int, base: int) -> int:
    """Return how often [+] or [-] is run from a value that is not 0; at least so often where that is past int64."""
    if op == OPEN_LESS:
        return value if value > 0 else base
    if value < 0:
        return -max(value, -(1 << 62))
    return base - value if value < base else 1
