"""Python: the launcher's own interpreter, as a program would find it when started with empty arguments.

Part of the launcher: standard library only.
"""

from __future__ import annotations

import atexit
import builtins
import importlib
import io
import random
import sys
import types

# What programs import most; each is cheap to hold. The rest is imported by the program that wants it.
PRELOADED = (
    "atexit",
    "bisect",
    "collections.abc",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "re",
    "string",
    "warnings",
)
_WARM_UP = (
    "x = 0\nfor i in range(3):\n    x += i\nprint(x, 'a', [1], end='\\n')\n",
    "def f(n):\n    return 1 if n < 2 else n * f(n - 1)\nprint(f(5), str(2) + 'b', len('abc'), max(1, 2))\n",
    "while True:\n    break\nprint(int('3') // 2, f'{1}', {1: 2}, sorted([2, 1]))\n",
    "print(undefined)\n",
    "raise ValueError('x')\n",
    "x = (\n",
    "  x = 1\n",
)
# Address space that is given back before an uncaught exception is printed, since that takes memory too.
_SPARE_BYTES = 2 << 20
# What CPython makes of some allocations that fail.
_LOST_MEMORY_ERRORS = ("error return without exception set", "returned NULL without setting an exception")
_main = types.ModuleType("__main__")
_spare: list[bytes] = []
# As they were before a program could replace them.
_print_exception = sys.excepthook
_run_at_exit = atexit._run_exitfuncs


def prepare() -> None:
    """Import what programs import most, and keep some memory for their end."""
    _spare.append(bytes(_SPARE_BYTES))  # zeros that are never touched: address space alone
    for name in PRELOADED:
        importlib.import_module(name)


def warm_up() -> None:
    """Run a few programs, and make the module that a program's names live in."""
    streams = sys.stdout, sys.stderr
    for _ in range(10):
        for source in _WARM_UP:
            sys.stdout = sys.stderr = io.StringIO()
            try:
                exec(compile(source.encode()), {"__name__": "__main__"})
            except Exception as error:
                sys.excepthook(type(error), error, error.__traceback__)
    sys.stdout, sys.stderr = streams
    _main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = _main


def reset() -> None:
    """Make ready for another case of the program in this process: names, streams and random numbers are fresh."""
    global _main
    _main = types.ModuleType("__main__")
    _main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = _main
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = open(  # noqa: SIM115
            number,
            "r" if number == 0 else "w",
            encoding="utf-8",
            errors="surrogateescape" if number < 2 else "backslashreplace",
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    random.seed(0)


def compile(source: bytes) -> types.CodeType:
    """Return the program's code; raises what Python raises."""
    return builtins.compile(source, "<program>", "exec", dont_inherit=True)


def run(code: types.CodeType) -> int:
    """Run the program as __main__ and return what the interpreter would exit with."""
    exit_code = _execute(code)
    return _finish() or exit_code


def _execute(code: types.CodeType) -> int:
    try:
        exec(code, _main.__dict__)
    except SystemExit as request:
        return _exit_code(request)
    except BaseException as error:
        return _report(error)
    return 0


def _report(error: BaseException) -> int:
    """Do with an uncaught exception what the interpreter does, and return what it would exit with."""
    traceback = error.__traceback__.tb_next if error.__traceback__ else None  # without our own frame
    if type(error) is SystemError and str(error).endswith(_LOST_MEMORY_ERRORS):
        error = MemoryError()
    error.__traceback__ = traceback
    _spare.clear()
    try:
        sys.excepthook(type(error), error, traceback)
    except SystemExit as request:
        return _exit_code(request)
    except BaseException:
        _print_exception(type(error), error, traceback)
    return 1


def _exit_code(request: SystemExit) -> int:
    """Return what the interpreter would exit with, after printing what it would print."""
    try:
        if request.code is None:
            return 0
        if isinstance(request.code, int):
            code = int.__index__(request.code)
            return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 0xFF
        if sys.stderr is not None:
            print(request.code, file=sys.stderr)
    except BaseException:
        return 1
    return 1


def _finish() -> int:
    """Do what an interpreter does at its end; return 120 as it does when output could not be written."""
    _run_at_exit()
    _main.__dict__.clear()
    code = 0
    for stream in {id(item): item for item in (sys.stdout, sys.__stdout__, sys.stderr)}.values():
        try:
            if stream is not None and not _is_closed(stream):
                stream.flush()
        except BaseException:
            code = 120
    return code


def _is_closed(stream: object) -> bool:
    try:
        return bool(getattr(stream, "closed", False))
    except Exception:
        return False
