"""Makes this interpreter the one that programs find: preloaded, the same for each, with nothing of ours in it.

Part of the launcher: standard library only. Programs see empty arguments and environment, UTF-8, a fixed hash seed, the
global random generator seeded with 0, and the standard library alone on the path.
"""
# ruff: noqa: PTH120, PTH123, PTH208

from __future__ import annotations

import _sitebuiltins
import builtins
import contextlib
import gc
import importlib
import io
import os
import random
import sys

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
_HIDDEN = ("site-packages", "dist-packages", "test", "idlelib", "ensurepip")
_THROUGH_CWD = "/proc/self/cwd"

_WARM_UP = (
    "x = 0\nfor i in range(3):\n    x += i\nprint(x, 'a', [1], end='\\n')\n",
    "def f(n):\n    return 1 if n < 2 else n * f(n - 1)\nprint(f(5), str(2) + 'b', len('abc'), max(1, 2))\n",
    "while True:\n    break\nprint(int('3') // 2, f'{1}', {1: 2}, sorted([2, 1]))\n",
    "print(undefined)\n",
    "raise ValueError('x')\n",
    "x = (\n",
    "  x = 1\n",
)


def standard_library() -> str:
    """Return the directory of the standard library."""
    return os.path.dirname(os.path.realpath(os.__file__))


def library_directories() -> list[str]:
    """Return the directories of the shared libraries in this process, which extension modules may need more of."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        paths = {line.split(maxsplit=5)[5].strip() for line in file if ".so" in line and line.count("/")}
    ours = standard_library() + "/"
    found = {os.path.dirname(path) for path in paths if path.startswith("/")}
    return sorted(path for path in found if not ours.startswith(path + "/") and not (path + "/").startswith(ours))


def hidden_directories() -> list[str]:
    """Return what lies in the standard library's directory and is no business of a program's."""
    return [f"{standard_library()}/{name}" for name in _HIDDEN]


def readable_entries() -> list[str]:
    """Return the entries of the standard library's directory that programs may read."""
    root = standard_library()
    return [f"{root}/{name}" for name in os.listdir(root) if name not in _HIDDEN]


def preload() -> None:
    """Import what programs import most, and forget everything that tells one launcher from another."""
    for name in PRELOADED:
        importlib.import_module(name)
    sys.argv[:] = [""]
    sys.orig_argv[:] = [""]
    os.environ.clear()
    sys.dont_write_bytecode = True
    # What `site` adds and programs use; the rest of `site` is not for them.
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    root = standard_library()
    sys.path[:] = [root, f"{root}/lib-dynload"]
    sys.path_importer_cache.clear()


def reach_library() -> str:
    """Make sure that the standard library can be imported by the uid we have now, and say how.

    The working directory must be the standard library. An interpreter may live where a dropped uid cannot go, such as
    root's home; the working directory is reached all the same, without its parents.
    """
    root = standard_library()
    if os.access(f"{root}/os.py", os.R_OK):
        os.chdir("/")
        return "by its path"
    if not os.access(f"{_THROUGH_CWD}/os.py", os.R_OK):
        raise OSError(
            f"the standard library in {root} cannot be read by the uid that programs get; "
            "use an interpreter whose directories others may read"
        )
    sys.path[:] = [_THROUGH_CWD, f"{_THROUGH_CWD}/lib-dynload"]
    for module in list(sys.modules.values()):
        locations = getattr(module, "__path__", None)
        if isinstance(locations, list):
            locations[:] = [item.replace(root, _THROUGH_CWD, 1) for item in locations]
    sys.path_importer_cache.clear()
    return "through the working directory"


def warm_up() -> None:
    """Run a few programs of ours, so that no program pays for the first compile, print or traceback."""
    streams = sys.stdout, sys.stderr
    for _ in range(10):
        for source in _WARM_UP:
            sys.stdout = sys.stderr = io.StringIO()
            try:
                exec(compile(source.encode(), "<program>", "exec", dont_inherit=True), {"__name__": "__main__"})
            except Exception as error:
                sys.excepthook(type(error), error, error.__traceback__)
    sys.stdout, sys.stderr = streams
    with contextlib.suppress(ImportError):
        importlib.import_module("altlas_no_such_module")  # fills the finders' directory listings
    for name in [name for name in sys.modules if name.partition(".")[0] == "altlas_evaluator"]:
        del sys.modules[name]
    random.seed(0)  # last: a fork on the way here has reseeded it
    gc.collect()
    gc.freeze()
