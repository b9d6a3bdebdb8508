"""Programs, their limits, and what running one gave. Nothing here knows what output was expected."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields


class ProgramStatus(enum.StrEnum):
    """How a program ended. All but SANDBOX_ERROR are the program's own doing."""

    OK = "ok"
    SYNTAX_ERROR = "syntax_error"
    RUNTIME_ERROR = "runtime_error"
    TIMEOUT = "timeout"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    FORBIDDEN = "forbidden"
    SANDBOX_ERROR = "sandbox_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use.

    `processes` (beside its own) and `file_bytes` (in files that it writes) are 0 in every tier: more is refused.
    """

    cpu_s: float = 1.0
    wall_s: float = 2.0
    memory_bytes: int = 64 << 20
    output_bytes: int = 64 << 10
    open_files: int = 64
    processes: int = 0
    file_bytes: int = 0


FINGERPRINT_BYTES = 16
LIMIT_NAMES = tuple(field.name for field in fields(Limits))


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program to run once: `source` in `language`, with `stdin`."""

    source: bytes
    language: str = "python"
    stdin: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What one run of a program gave. `exit_code` is None unless the program ended by exiting.

    `has_read_stdin` is False only for a program that left every byte of a non-empty input unread: programs are run
    deterministically, so any other input would have given the same.
    """

    status: ProgramStatus
    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int | None = None
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_memory_bytes: int = 0
    has_read_stdin: bool = True


def fingerprint(task_digest: str, language: str, source: bytes) -> bytes:
    """Return 16 bytes that name a program within a task: equal fingerprints have equal scores."""
    return fingerprints(task_digest, language, [source])[0]


def fingerprints(task_digest: str, language: str, sources: Sequence[bytes]) -> list[bytes]:
    """Return the fingerprint of each program, in order."""
    start = hashlib.blake2b(digest_size=FINGERPRINT_BYTES)
    for part in (task_digest.encode(), language.encode()):
        start.update(len(part).to_bytes(8, "little"))
        start.update(part)
    named = []
    for source in sources:
        # What all programs have in common is digested once: it is longer than most of them.
        digest = start.copy()
        digest.update(source)
        named.append(digest.digest())
    return named


def is_sandboxed(language: str) -> bool:
    """Return whether a language's programs are run by the sandbox, in milliseconds, and not by the evaluator itself."""
    return language != "brainf"
