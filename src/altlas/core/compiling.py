"""Machine code from Python functions, kept beside them where that place can be written to.

Importing this needs numba; a function is compiled with its first call. What is kept is compiled anew when the file of
the function changes, or the processor; not when the file of a function that it calls does, which numba does not look
at: change the text of the caller's too, since numba goes by what a file holds and not by its time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

# Sums may be reordered and products fused, which vectors need; what is not finite stays so.
_VECTOR_MATHS = {"reassoc", "contract", "nsz", "arcp"}
_INSIDE: dict[str, Any] = {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compiled(function: Function) -> Function:
    """Return the function as machine code that runs without the GIL, its arithmetic exactly as written."""
    return _compile(function)


def compiled_inside(function: Function) -> Function:
    """Return the function as machine code that only other machine code calls, and often; it is kept with theirs alone.

    References to its arrays are not counted, which would be most of what a short call costs: so it can make none.
    """
    return cast(Function, njit(nogil=True, **_INSIDE)(function))


def compiled_loosely(function: Function) -> Function:
    """Return the function as machine code whose float operations may be reordered: the same each time on one machine.

    Not for functions that read a global generator or expect sums in the order in which they are written.
    """
    return _compile(function, fastmath=_VECTOR_MATHS)


def _compile(function: Function, **options: Any) -> Function:
    try:
        return cast(Function, njit(cache=True, nogil=True, **options)(function))
    except RuntimeError:  # no directory for the cache can be written: it is compiled anew in every process
        return cast(Function, njit(nogil=True, **options)(function))
