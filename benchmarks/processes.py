"""What processes hold, as /proc says it, and how fast it grows: what the soaks share."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Whoever ends is a zombie for a moment.
_MOMENT_S = 0.5


@dataclass(frozen=True, slots=True)
class Process:
    """A process. started_s: since the machine's start, as CLOCK_BOOTTIME counts."""

    pid: int
    parent: int
    started_s: float
    is_zombie: bool

    @property
    def key(self) -> tuple[int, float]:
        """What names it even when its id is given again."""
        return self.pid, self.started_s


@dataclass(frozen=True, slots=True)
class Holding:
    """What a process holds."""

    resident_kib: int
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Growth:
    """A slope and its standard error, which takes the residuals for independent."""

    slope: float
    error: float


def scan() -> dict[int, Process]:
    """Return every process of this machine, by id."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid, started_s = int(entry.name), int(fields[19]) / _TICKS_PER_S
        found[pid] = Process(pid=pid, parent=int(fields[1]), started_s=started_s, is_zombie=fields[0] == "Z")
    return found


def descendants(pid: int, among: Mapping[int, Process]) -> list[Process]:
    """Return the children of a process and theirs, zombies too."""
    children: dict[int, list[Process]] = {}
    for process in among.values():
        children.setdefault(process.parent, []).append(process)
    found = list(children.get(pid, []))
    for process in found:
        found += children.get(process.pid, [])
    return found


def look_at(pid: int) -> Holding | None:
    """Return what a process holds, or None when it has ended."""
    entry = Path(f"/proc/{pid}")
    try:
        lines = (entry / "status").read_text().splitlines()
        descriptors = len(list((entry / "fd").iterdir()))
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last: it is about to be a zombie
        return None
    fields = dict(line.split(":", 1) for line in lines)
    if "VmRSS" not in fields:
        return None
    return Holding(int(fields["VmRSS"].split()[0]), descriptors, int(fields["Threads"]))


def command_line(pid: int) -> str:
    """Return a process's command line; empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def lasting_zombies() -> set[tuple[int, float]]:
    """Return the processes of this machine that stay zombies."""
    found = _zombies()
    if found:
        time.sleep(_MOMENT_S)
    return found & _zombies()


def _zombies() -> set[tuple[int, float]]:
    return {process.key for process in scan().values() if process.is_zombie}


def pooled_growth(lines: Iterable[Sequence[tuple[float, float]]]) -> Growth | None:
    """Return the slope that (x, y) points of several lines have in common: least squares, an intercept for each line.

    None where there are too few points.
    """
    centred: list[tuple[float, float]] = []
    freedom = -1
    for line in lines:
        if not line:
            continue
        middle = [sum(values) / len(line) for values in zip(*line, strict=True)]
        centred += [(x - middle[0], y - middle[1]) for x, y in line]
        freedom += len(line) - 1
    spread = sum(x * x for x, _ in centred)
    if freedom < 1 or spread == 0:
        return None
    slope = sum(x * y for x, y in centred) / spread
    left = sum((y - slope * x) ** 2 for x, y in centred)
    return Growth(slope, math.sqrt(left / freedom / spread))
