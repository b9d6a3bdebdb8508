"""Makes this interpreter the one that programs find: the same for each, with nothing of ours in it.

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
import os
import random
import sys
from collections.abc import Sequence

_HIDDEN = ("site-packages", "dist-packages", "test", "idlelib", "ensurepip")
_THROUGH_CWD = "/proc/self/cwd"
_PACKAGE = os.path.dirname(os.path.dirname(__file__))


def standard_library() -> str:
    """Return the directory of the standard library."""
    return os.path.dirname(os.path.realpath(os.__file__))


def library_directories(hidden: Sequence[str] = ()) -> list[str]:
    """Return the directories of the shared libraries in this process, which extension modules may need more of.

    Our own package holds one too, and is left out: what is needed of it has been loaded.

    Args:
        hidden: directories that hold more than libraries; left out likewise, with all that is beneath them.
    """
    with open("/proc/self/maps", encoding="utf-8") as file:
        paths = {line.split(maxsplit=5)[5].strip() for line in file if ".so" in line and line.count("/")}
    ours = standard_library() + "/"
    left_out = (ours, *(os.path.realpath(path) + "/" for path in (_PACKAGE, *hidden)))
    found = {os.path.dirname(path) for path in paths if path.startswith("/")}
    return sorted(path for path in found if not ours.startswith(path + "/") and not (path + "/").startswith(left_out))


def hidden_directories() -> list[str]:
    """Return what lies in the standard library's directory and is no business of a program's."""
    return [f"{standard_library()}/{name}" for name in _HIDDEN]


def readable_entries() -> list[str]:
    """Return the entries of the standard library's directory that programs may read.

    Links that lead out of it are not among them, such as Debian's to /etc: a root of our own has nothing there.
    """
    root = standard_library()
    paths = [f"{root}/{name}" for name in os.listdir(root) if name not in _HIDDEN]
    return [path for path in paths if os.path.realpath(path).startswith(root + "/")]


def forget_origin() -> None:
    """Forget everything that tells one launcher from another, and where it was started from."""
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


def settle() -> None:
    """Leave the interpreter as every program will find it: the last thing before the first fork."""
    with contextlib.suppress(ImportError):
        importlib.import_module("altlas_no_such_module")  # fills the finders' directory listings
    for name in [name for name in sys.modules if name.partition(".")[0] == "altlas_evaluator"]:
        del sys.modules[name]
    random.seed(0)  # last: a fork on the way here has reseeded it
    gc.collect()
    gc.freeze()
