"""What every part of the test is made of: timed steps, commands with a time limit, and waiting with one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_LINES_SHOWN = 30


class DrillError(Exception):
    """Something is not as it must be, or did not come about in time."""


class Step:
    """A step under way; `found` is what it prints when it has passed."""

    def __init__(self) -> None:
        """Begin with nothing found."""
        self.found = ""


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Print how long a step took and what it found, or that it failed."""
    under_way, started = Step(), time.monotonic()
    if sys.stdout.isatty():
        print(f"           {name} ...", end="\r", flush=True)
    outcome = "FAILED"
    try:
        yield under_way
        outcome = under_way.found
    finally:
        print(f"[{time.monotonic() - started:7.1f} s] {name}{': ' if outcome else ''}{outcome}", flush=True)


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    stdin: str = "",
    expected: Sequence[int] = (0,),
) -> str:
    """Run a command and return what it printed.

    Raises:
        DrillError: it ended with another exit code than expected, or took longer than `timeout_s`.
    """
    line = " ".join(command)[:200]
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout_s, env=environment, cwd=directory
        )
    except subprocess.TimeoutExpired as late:
        raise DrillError(f"`{line}` took longer than {timeout_s:.0f} s\n{_end_of(late.stderr)}") from late
    if done.returncode not in expected:
        raise DrillError(f"`{line}` ended with exit code {done.returncode}\n{_end_of(done.stdout + done.stderr)}")
    return done.stdout


def wait_for(what: str, look: Callable[[], T | None], *, timeout_s: float, interval_s: float = 0.5) -> T:
    """Return the first answer of `look` that is neither None nor false.

    Raises:
        DrillError: there was none in time.
    """
    until, answer = time.monotonic() + timeout_s, look()
    while not answer:
        if time.monotonic() > until:
            raise DrillError(f"waited {timeout_s:.0f} s in vain for: {what}")
        time.sleep(interval_s)
        answer = look()
    return answer


def _end_of(output: str | bytes | None) -> str:
    text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    return "\n".join(text.splitlines()[-_LINES_SHOWN:])
