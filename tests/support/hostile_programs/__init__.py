"""Hostile programs by topic. In a source @PORT@, @UDP@, @UNIX@, @DGRAM@, @ABSTRACT@, @DIR@, @FILE@ and @PID@ stand for
what it must not reach: listeners, a directory, a file with a secret in it, and the process of the service.
"""

from __future__ import annotations

from typing import NamedTuple

from altlas.core.program import ProgramStatus

OK = ProgramStatus.OK
SYNTAX = ProgramStatus.SYNTAX_ERROR
RUNTIME = ProgramStatus.RUNTIME_ERROR
TIMEOUT = ProgramStatus.TIMEOUT
MEMORY = ProgramStatus.MEMORY_LIMIT
OUTPUT = ProgramStatus.OUTPUT_LIMIT
FORBIDDEN = ProgramStatus.FORBIDDEN

SECRET = "moth-lantern-47"
WAS_HERE = "altlas-was-here"  # in the name of every file that a program tries to make
LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"


class Hostile(NamedTuple):
    """A program, the statuses that are right for it, and its standard output; None for any."""

    source: str | bytes
    statuses: set[ProgramStatus]
    stdout: bytes | None = b""
    language: str = "python"


def which(items: str, attempt: str, setup: str = "") -> str:
    """Return a program that tries `attempt` for each `item` of `items` and prints those that did not raise OSError."""
    return f"{setup}\nfound = []\nfor item in {items}:\n    try:\n        {attempt}\n        found.append(item)\n" + (
        "    except OSError: pass\nprint(found)"
    )
