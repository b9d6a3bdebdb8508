"""Machine code from Python functions, kept beside them where that place can be written to.

Importing this needs numba; a function is compiled with its first call. What is kept is compiled anew when the processor
changes, the file of the function, or what its module imported before it: the file of a compiled function, as far as
that goes, or the value of a constant. (numba itself looks at the function's own file alone.) A function that is reached
as an attribute of a module is not seen.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher

Function = TypeVar("Function", bound=Callable[..., Any])

_stamps: dict[Dispatcher, str] = {}

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
    return _remember(function, njit(nogil=True, **_INSIDE)(function))


def compiled_loosely(function: Function) -> Function:
    """Return the function as machine code whose float operations may be reordered: the same each time on one machine.

    Not for functions that read a global generator or expect sums in the order in which they are written.
    """
    return _compile(function, fastmath=_VECTOR_MATHS)


def _compile(function: Function, **options: Any) -> Function:
    try:
        dispatcher = njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # no directory for the cache can be written: it is compiled anew in every process
        return _remember(function, njit(nogil=True, **options)(function))
    dispatcher._cache._cache_file._source_stamp = _stamp(function)
    return _remember(function, dispatcher)


def _remember(function: Function, dispatcher: Dispatcher) -> Function:
    _stamps[dispatcher] = _stamp(function)
    return cast(Function, dispatcher)


def _stamp(function: Callable[..., Any]) -> str:
    """Return a hash of what a function's machine code is made from."""
    known = [Path(inspect.getfile(function)).read_text(encoding="utf-8")]
    for name, value in sorted(function.__globals__.items()):
        if isinstance(value, Dispatcher):
            known.append(_stamps[value])
        elif isinstance(value, (int, float, tuple, np.generic)):
            known.append(f"{name} {value!r}")
    return hashlib.sha256("\n".join(known).encode()).hexdigest()
