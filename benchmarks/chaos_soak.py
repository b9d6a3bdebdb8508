"""A run that loses a process every 20 s for 20 minutes and is then left alone for 5: `python -m benchmarks.chaos_soak`.

It is a real `altlas train`, with every role as a process; trainer, generator, evaluator, coordinator and Redis are
killed in turn, in an order of chance, and SIGINT ends it. What its processes hold is looked at every few seconds.
Growth is that within the life of each process, after its first seconds, pooled over the lives of a role; `train` is the
command itself, which lives the whole time. The coordinator may grow with the programs that it remembers. Whatever loses
its parent becomes this process's child. Exits with 1 when something grows, is left behind, lost or doubled.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import signal
import stat
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from altlas.cli.drills import BATCH, ROLES, DrillRequest, find_pids, make_command, read_updates
from altlas.cli.train import EXIT_INTERRUPTED
from altlas.errors import AltlasError
from altlas.transport import die_with_parent
from benchmarks.processes import Process, command_line, descendants, look_at, pooled_growth, scan

COMMAND = "train"
MEASURES = ("resident_mib", "descriptors", "threads", "children")
_UNKNOWN = "unknown"
_PR_SET_CHILD_SUBREAPER = 36
_BUDGET = 100_000_000  # never reached
_SETTINGS = ("run.evaluators=2", "run.generators=2")
_POLL_S = 0.1
_START_S = 180.0
_STOP_S = 120.0
# After the command's end; a sandbox sees the end of its evaluator in its own time.
_GRACE_S = 3.0
# Looks in a row: whoever ends is a zombie for a moment, and whoever loses its parent an orphan.
_LOOKS = 3
# The median of so many samples is where a life starts or ends.
_EDGE = 3
# Less of the time after the warm-up shows how a process starts and not how it grows.
_JUDGED_MIN = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What is called growth: a slope over one of the first two and over so many of its standard errors.

    coordinator_bytes: per program, what a coordinator may grow by besides.
    """

    mib_per_min: float
    coordinator_bytes: float
    descriptors_per_min: float
    errors: float
    command_descriptors: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at a time; children: all its descendants that are alive."""

    minutes: float
    resident_mib: float
    descriptors: int
    threads: int
    children: int


@dataclass(slots=True)
class Life:
    """A process of a role and its samples after the warm-up."""

    role: str
    process: Process
    samples: list[Sample] = field(default_factory=list)


class Watcher:
    """Looks at a command and all that came from it, in a process that has adopted orphans.

    Whatever was seen keeps the role it came from. zombies and orphans: how many of a role stayed so, by role; lines: a
    line for each of them.
    """

    def __init__(self, command: int, *, warm_up_s: float) -> None:
        self._command = scan()[command]
        self._warm_up_s = warm_up_s
        self._since_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.lives = {self._command.key: Life(COMMAND, self._command)}
        self._owners = {self._command.key: COMMAND}
        self._streaks: Counter[tuple[str, tuple[int, float]]] = Counter()
        self.zombies: Counter[str] = Counter()
        self.orphans: Counter[str] = Counter()
        self.lines: list[str] = []

    def look(self) -> None:
        """Sample every role's processes, and count zombies and orphans."""
        found = self._reap()
        ours = descendants(self._command.pid, found)
        self._name(ours)
        for process in ours:
            self._owners.setdefault(process.key, self._owner(process, found))
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        for life in self.lives.values():
            process = life.process
            now = found.get(process.pid)
            if now is None or now.key != process.key or now.is_zombie:
                continue
            if now_s - max(process.started_s, self._since_s) < self._warm_up_s:
                continue
            if (holding := look_at(process.pid)) is not None:
                children = sum(not child.is_zombie for child in descendants(process.pid, found))
                life.samples.append(
                    Sample(now_s / 60, holding.resident_kib / 1024, holding.descriptors, holding.threads, children)
                )
        self._count(found)

    def left(self) -> list[Process]:
        """Return what is alive of the command and all that came from it."""
        return [process for process in descendants(os.getpid(), self._reap()) if not process.is_zombie]

    def _reap(self) -> dict[int, Process]:
        """Do for those that lost their parent what process 1 would do, and return the processes there are."""
        for process in descendants(os.getpid(), scan()):
            if process.parent == os.getpid() and process.pid != self._command.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
        return scan()

    def _name(self, ours: Sequence[Process]) -> None:
        children = {process.pid: process for process in ours if process.parent == self._command.pid}
        if all(process.key in self._owners or process.is_zombie for process in children.values()):
            return
        for role in ROLES:
            for pid in find_pids(self._command.pid, role):
                if pid in children and children[pid].key not in self.lives:
                    self.lives[children[pid].key] = Life(role, children[pid])
                    self._owners[children[pid].key] = role

    def _owner(self, process: Process, found: Mapping[int, Process]) -> str:
        while process.key not in self._owners:
            if process.parent not in found:
                return _UNKNOWN
            process = found[process.parent]
        return self._owners[process.key]

    def _count(self, found: Mapping[int, Process]) -> None:
        streaks: Counter[tuple[str, tuple[int, float]]] = Counter()
        for process in descendants(os.getpid(), found):
            if process.is_zombie and process.pid != self._command.pid:
                self._prolong(streaks, "zombie", process, self._owner(found[process.parent], found))
            elif process.parent == os.getpid() and process.pid != self._command.pid:
                self._prolong(streaks, "orphan", process, self._owners.get(process.key, _UNKNOWN))
        self._streaks = streaks

    def _prolong(self, streaks: Counter[Any], what: str, process: Process, role: str) -> None:
        streaks[what, process.key] = self._streaks[what, process.key] + 1
        if streaks[what, process.key] == _LOOKS:
            (self.zombies if what == "zombie" else self.orphans)[role] += 1
            self.lines.append(f"{what} of {role}: {process.pid} {command_line(process.pid)[:200]}")


class Soak:
    """A run under way: waits, kills and looks until the time is over."""

    def __init__(self, options: argparse.Namespace, process: subprocess.Popen[bytes], run_dir: Path) -> None:
        self._options = options
        self._process = process
        self._run_dir = run_dir
        self.killed: Counter[str] = Counter()
        self._wait_for_update()
        self.watcher = Watcher(process.pid, warm_up_s=options.warm_up_s)
        self._next_look = time.monotonic()

    def _wait_for_update(self) -> None:
        deadline = time.monotonic() + _START_S
        while not read_updates(self._run_dir):
            self._check()
            if time.monotonic() > deadline:
                raise AltlasError(f"no update within {_START_S:.0f} s: see the logs in {self._run_dir / 'logs'}")
            time.sleep(_POLL_S)

    def _check(self) -> None:
        if self._process.poll() is not None:
            raise AltlasError(f"the run ended too early, with code {self._process.returncode}")

    def drive(self) -> None:
        """Kill a process every so often, the last one early enough to be replaced, until the time is over."""
        luck = random.Random(self._options.seed)
        began = time.monotonic()
        deck: list[str] = []
        kills = count_kills(self._options)
        for number in range(1, kills + 1):
            self._look_until(began + number * self._options.every)
            deck = deck or luck.sample(ROLES, len(ROLES))
            role = deck.pop()
            while not (pids := find_pids(self._process.pid, role)):
                self._look_until(time.monotonic() + _POLL_S)
            os.kill(luck.choice(pids), signal.SIGKILL)
            self.killed[role] += 1
            updates = read_updates(self._run_dir)
            _say(self._options, f"kill {number} of {kills}: {role}, after update {updates[-1][0] if updates else 0}")
        self._look_until(began + (self._options.minutes + self._options.rest) * 60)

    def _look_until(self, end: float) -> None:
        while (now := time.monotonic()) < end:
            self._check()
            if now >= self._next_look:
                self.watcher.look()
                self._next_look = now + self._options.look_every
            time.sleep(min(_POLL_S, max(0.0, end - now)))

    def stop(self) -> int:
        """End the run as Ctrl-C does, and return its exit code."""
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired as error:
            raise AltlasError(f"the run did not end within {_STOP_S:.0f} s of SIGINT") from error


def count_kills(options: argparse.Namespace) -> int:
    """Return how many processes are killed."""
    return max(0, int(options.minutes * 60 / options.every) - 1)


def adopt_orphans() -> None:
    """Make this process the parent of each descendant that loses its own.

    Raises:
        OSError: the kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


@contextlib.contextmanager
def _training(request: DrillRequest, place: Path, run_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the run; nothing of it outlives the block."""
    adopt_orphans()
    launcher = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())]
    (place / "tmp").mkdir()
    with (place / "stdout").open("wb") as stdout, (place / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*launcher, *make_command(request, run_dir, resume=False)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "TMPDIR": str(place / "tmp")},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for left in descendants(os.getpid(), scan()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left.pid, signal.SIGKILL)


def soak(options: argparse.Namespace) -> int:
    """Run the soak, print what was found, return the exit code."""
    request = DrillRequest(
        task=options.task,
        kills=count_kills(options),
        seed=options.seed,
        budget=_BUDGET,
        overrides=(*_SETTINGS, *options.set),
        as_json=True,
    )
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="altlas-soak-") as name:
        place = Path(name)
        run_dir = options.run_dir.absolute() if options.run_dir else place / "run"
        try:
            with _training(request, place, run_dir) as process:
                run = Soak(options, process, run_dir)
                run.drive()
                code = run.stop()
                left = _left_processes(run.watcher)
            summary = json.loads((place / "stdout").read_text().splitlines()[-1])
        except (AltlasError, IndexError, ValueError) as error:
            raise AltlasError(f"{error}; it said:\n{(place / 'stderr').read_text()[-4000:]}") from error
        report = {
            "task": options.task,
            "seconds": round(time.monotonic() - began, 1),
            "exit_code": code,
            "stop_reason": summary["stop_reason"],
            "kills": sum(run.killed.values()),
            "roles_killed": dict(run.killed),
            "restarts": _by_role(summary["restarts"]),
            "updates": summary["updates"],
            "programs": summary["programs"],
            **check_updates([(number, programs) for number, programs, _, _ in read_updates(run_dir)], summary),
            "roles": {role: _describe(role, run.watcher) for role in (COMMAND, *ROLES)},
            "unknown_orphans": run.watcher.orphans[_UNKNOWN],
            "seen": run.watcher.lines,
            "left_processes": left,
            "left_temporary": sorted(str(path.relative_to(place)) for path in (place / "tmp").rglob("*")),
            "left_in_run_dir": _left_in(run_dir),
        }
    found = judge(report, _thresholds(options))
    _print(options, {**report, "found": found})
    return 1 if found else 0


def _left_processes(watcher: Watcher) -> list[str]:
    deadline = time.monotonic() + _GRACE_S
    while (left := watcher.left()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return [f"{process.pid} {command_line(process.pid)[:200]}" for process in left]


def _left_in(run_dir: Path) -> list[str]:
    """Return sockets, and files and directories that are still called temporary."""
    return sorted(
        str(path.relative_to(run_dir))
        for path in run_dir.rglob("*")
        if stat.S_ISSOCK(path.stat().st_mode) or path.name.startswith("temp-") or path.suffix == ".tmp"
    )


def _by_role(restarts: Mapping[str, int]) -> dict[str, int]:
    roles: Counter[str] = Counter()
    for name, count in restarts.items():
        roles[name.partition("-")[0]] += count
    return dict(roles)


def check_updates(updates: Sequence[tuple[int, int]], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many updates a run lost and doubled, and whether its lines are in order, a batch each.

    updates: number and programs so far of each line of metrics.jsonl.
    """
    wanted = [(number, number * BATCH) for number in range(1, summary["updates"] + 1)]
    numbers = Counter(number for number, _ in updates)
    return {
        "lost": sum(number not in numbers for number, _ in wanted),
        "doubled": sum(count - 1 for count in numbers.values()),
        "in_order": list(updates) == wanted and summary["programs"] == summary["updates"] * BATCH,
    }


def _describe(role: str, watcher: Watcher) -> dict[str, Any]:
    """Return how many lives a role had, and for each measure of them where they start and end, and how it grows."""
    lives = [life for life in watcher.lives.values() if life.role == role]
    lines = [life.samples for life in lives if len(life.samples) >= 2 * _EDGE]
    return {
        "lives": len(lives),
        "minutes": round(sum(line[-1].minutes - line[0].minutes for line in lines), 2),
        **{name: _measure(name, lines) for name in MEASURES},
        "zombies": watcher.zombies[role],
        "orphans": watcher.orphans[role],
    }


def _measure(name: str, lines: Sequence[Sequence[Sample]]) -> dict[str, float] | None:
    values = [[float(getattr(sample, name)) for sample in line] for line in lines]
    growth = pooled_growth(
        [(sample.minutes, value) for sample, value in zip(line, column, strict=True)]
        for line, column in zip(lines, values, strict=True)
    )
    if growth is None:
        return None
    figures = {
        "start": statistics.median(statistics.median(column[:_EDGE]) for column in values),
        "end": statistics.median(statistics.median(column[-_EDGE:]) for column in values),
        "min": min(map(min, values)),
        "max": max(map(max, values)),
        **{f"{key}_per_min": value for key, value in asdict(growth).items()},
    }
    return {key: round(value, 3) for key, value in figures.items()}


def judge(report: Mapping[str, Any], thresholds: Thresholds) -> list[str]:
    """Return what is wrong with a soak."""
    roles: Mapping[str, Mapping[str, Any]] = report["roles"]
    problems = {
        f"exit code {report['exit_code']}, stopped by {report['stop_reason']}": (
            report["exit_code"] != EXIT_INTERRUPTED or report["stop_reason"] != "requested"
        ),
        "no update is left": report["updates"] == 0,
        "updates lost": report["lost"] > 0,
        "updates doubled": report["doubled"] > 0,
        "updates out of order": not report["in_order"],
        "restarts are not the kills": report["restarts"] != report["roles_killed"],
        "zombies": any(role["zombies"] for role in roles.values()),
        "orphans": report["unknown_orphans"] > 0 or any(role["orphans"] for role in roles.values()),
        "processes left": bool(report["left_processes"]),
        "temporary files left": bool(report["left_temporary"]),
    }
    remembered = thresholds.coordinator_bytes * report["programs"] / (report["seconds"] / 60) / 2**20
    for name, role in roles.items():
        memory = thresholds.mib_per_min + (remembered if name == "coordinator" else 0.0)
        limits = {"resident_mib": memory, "descriptors": thresholds.descriptors_per_min}
        for measure, limit in limits.items():
            growth = role[measure]
            is_judged = growth is not None and role["minutes"] >= _JUDGED_MIN
            problems[f"{measure} of {name} grow"] = is_judged and (
                growth["slope_per_min"] > max(limit, thresholds.errors * growth["error_per_min"])
            )
    held = roles[COMMAND]["descriptors"]
    problems[f"descriptors of {COMMAND} at the end"] = (
        held is not None and held["end"] - held["start"] > thresholds.command_descriptors
    )
    return [what for what, holds in problems.items() if holds]


def _print(options: argparse.Namespace, report: Mapping[str, Any]) -> None:
    if options.json:
        print(json.dumps(report), flush=True)
        return
    print(
        f"{report['kills']} kills, {report['updates']} updates, {report['programs']:,} programs in "
        f"{report['seconds']:.0f} s: lost {report['lost']}, doubled {report['doubled']}, "
        f"exit code {report['exit_code']}"
    )
    print(
        f"{'role':<12}{'lives':>6}{'min':>7}{'RSS MiB':>16}{'MiB/min':>16}{'descriptors':>13}{'per min':>15}"
        f"{'threads':>9}{'children':>9}{'zombies':>9}{'orphans':>9}"
    )
    for name, role in report["roles"].items():
        print(_row(name, role))
    for key in ("seen", "left_processes", "left_temporary", "left_in_run_dir"):
        for line in report[key]:
            print(f"  {key.replace('_', ' ')}: {line}")
    print(f"found: {', '.join(report['found'])}" if report["found"] else "nothing found", flush=True)


def _row(name: str, role: Mapping[str, Any]) -> str:
    memory, descriptors, threads, children = (role[measure] for measure in MEASURES)
    figures = "  too few samples"
    if None not in (memory, descriptors, threads, children):
        figures = (
            f"{memory['start']:>8.1f}{memory['end']:>8.1f}{_slope(memory):>16}"
            f"{descriptors['min']:>7.0f}-{descriptors['max']:<5.0f}{_slope(descriptors):>15}"
            f"{threads['max']:>9.0f}{children['max']:>9.0f}"
        )
    return f"{name:<12}{role['lives']:>6}{role['minutes']:>7.1f}{figures:<84}{role['zombies']:>9}{role['orphans']:>9}"


def _slope(growth: Mapping[str, float]) -> str:
    return f"{growth['slope_per_min']:+.2f} ± {growth['error_per_min']:.2f}"


def _say(options: argparse.Namespace, text: str) -> None:
    print(text, file=sys.stderr if options.json else sys.stdout, flush=True)


def _thresholds(options: argparse.Namespace) -> Thresholds:
    return Thresholds(
        mib_per_min=options.max_mib_per_min,
        coordinator_bytes=options.max_coordinator_bytes,
        descriptors_per_min=options.max_descriptors_per_min,
        errors=options.errors,
        command_descriptors=options.max_command_descriptors,
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="of kills, from the first update on")
    parser.add_argument("--rest", type=float, default=5.0, help="minutes without kills after them")
    parser.add_argument("--every", type=float, default=20.0, help="seconds from kill to kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--task", default="stdin/echo")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of the run")
    parser.add_argument("--run-dir", type=Path, help="is kept; where none, a temporary one")
    parser.add_argument("--look-every", type=float, default=2.0, help="seconds")
    parser.add_argument("--warm-up-s", type=float, default=150.0, help="of each process's life, not looked at")
    judged = f"judged from {_JUDGED_MIN:g} minutes of samples of a role on"
    parser.add_argument("--max-mib-per-min", type=float, default=0.5, help=judged)
    parser.add_argument("--max-coordinator-bytes", type=float, default=160.0, help="per program, for the coordinator")
    parser.add_argument("--max-descriptors-per-min", type=float, default=1.0, help=judged)
    parser.add_argument("--errors", type=float, default=3.0, help="a slope is judged above so many standard errors")
    parser.add_argument("--max-command-descriptors", type=int, default=4, help="more at the end than at the start")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    try:
        sys.exit(soak(options))
    except AltlasError as error:
        sys.exit(f"chaos_soak: {error}")


if __name__ == "__main__":
    main()
