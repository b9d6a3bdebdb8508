"""The checks of the probe, which run in an evaluator's container, and what they have in common.

The container is looked at as by a program that broke out of the sandbox. PROBE_FACTS holds what cannot be known from
within: where everybody else is, and what must not be found. probing.py hands these modules to the container's Python.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FACTS: dict[str, Any] = json.loads(os.environ["PROBE_FACTS"])
SERVICE = "127.0.0.1:50054"
CHECKS: list[tuple[str, Callable[[], str | None]]] = []


def check(name: str) -> Callable[[Callable[[], str | None]], None]:
    """Add a check: a function that returns what is wrong, or None."""

    def add(look: Callable[[], str | None]) -> None:
        CHECKS.append((name, look))

    return add


def processes() -> Iterator[tuple[int, dict[str, str]]]:
    """Yield every process that is seen from here, with the fields of its status."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines = (entry / "status").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield int(entry.name), {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def differing(field: str, expected: Callable[[str], bool]) -> str | None:
    """Return the processes whose field of /proc/PID/status is not as expected."""
    wrong = [f"{pid} ({status['Name']}): {status[field]}" for pid, status in processes() if not expected(status[field])]
    return f"{field} of " + ", ".join(wrong) if wrong else None


def having_capabilities(field: str) -> str | None:
    """Return the processes with a capability. What one has in a user namespace of its own counts for nothing here."""
    own = Path("/proc/self/uid_map").read_text()
    having = [pid for pid, status in processes() if int(status[field], 16) != 0]
    wrong = [pid for pid in having if Path(f"/proc/{pid}/uid_map").read_text() == own]
    return f"{field} of {wrong} is not empty" if wrong else None


def service_processes() -> set[int]:
    """Return the processes of the service: all but the sandbox's, and ours."""
    return {pid for pid, status in processes() if status["PPid"] == "1" or pid == 1}


def run_checks() -> int:
    """Run every check; print what failed, and how many there were."""
    failures = 0
    for name, look in CHECKS:
        started = time.monotonic()
        try:
            wrong = look()
        except Exception as error:
            wrong = f"the check itself failed: {type(error).__name__}: {error}"
        failures += wrong is not None
        outcome = "ok  " if wrong is None else "FAIL"
        print(f"  {outcome} {name}{'' if wrong is None else ': ' + wrong} ({time.monotonic() - started:.1f} s)")
    print(f"probe: {len(CHECKS)} checks, {failures} failures")
    return 1 if failures else 0
