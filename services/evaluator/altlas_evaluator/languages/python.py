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
_main = types.ModuleType("__main__")


def prepare() -> None:
    """Import what programs import most."""
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
        traceback = error.__traceback__.tb_next if error.__traceback__ else None  # without our own frame
        sys.excepthook(type(error), error.with_traceback(traceback), traceback)
        return 1
    return 0


def _exit_code(request: SystemExit) -> int:
    """Return what the interpreter would exit with, after printing what it would print."""
    if request.code is None:
        return 0
    if isinstance(request.code, int):
        return int(request.code) & 0xFF
    print(request.code, file=sys.stderr)
    return 1


def _finish() -> int:
    """Do what an interpreter does at its end; return 120 as it does when output could not be written."""
    atexit._run_exitfuncs()
    _main.__dict__.clear()
    code = 0
    for stream in {id(item): item for item in (sys.stdout, sys.__stdout__, sys.stderr)}.values():
        try:
            if stream is not None:
                stream.flush()
        except Exception:
            code = 120
    return code
