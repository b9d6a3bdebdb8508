"""The whole loop through the real services: programs per CPU second of every process together.

`make bench ARGS=brainf` and `ARGS=transport` run `altlas train` with two evaluators and read the CPU time of its
processes at two points of one run, so that no start-up is in the difference. CPU time, not wall time: the figure is the
machine's whatever else runs on it.

What counts as what: `sample` is the generator's process, fetching the weights included; `learn` the trainer's, with
decoding what it learns from and with its checkpoints; `evaluate` those of the evaluators, with taking and committing
jobs; `transport` all the others: the coordinator, which fingerprints, looks up, shards, joins and records, Redis, and
the command that watches.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

TASK = "brainf/dedup"
EVALUATORS = 2
BUDGETS = {"policy": (20_480, 102_400), "ga_archive": (51_200, 256_000)}
STAGES = {"generator": "sample", "evaluator": "evaluate", "trainer": "learn"}
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.05
_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class LoopFigures:
    """One run between two points. wall_s: from one to the other.

    cpu_s: of each role between them. start_s: of each when the first update had ended. evaluated: of each update, how
    many of its programs were run and not looked up.
    """

    algorithm: str
    programs: int
    evaluated: Sequence[int]
    wall_s: float
    cpu_s: Mapping[str, float]
    start_s: Mapping[str, float]

    @property
    def programs_per_cpu_s(self) -> float:
        """Programs per CPU second of all processes together."""
        return self.programs / sum(self.cpu_s.values())

    def microseconds(self, role: str) -> float:
        """Return a role's CPU time per program."""
        return 1e6 * self.cpu_s.get(role, 0.0) / self.programs

    def jobs(self, shard_size: int) -> int:
        """Return how many jobs the programs went in."""
        return sum(-(-programs // shard_size) for programs in self.evaluated)

    def by_stage(self) -> Mapping[str, float]:
        """Return CPU microseconds per program by stage."""
        stages: Counter[str] = Counter()
        for role in self.cpu_s:
            stages[STAGES.get(role, "transport")] += self.microseconds(role)  # type: ignore[assignment]
        return stages


def measure(
    algorithm: str, *, first: int, second: int, seed: int = 1, settings: tuple[str, ...] = (), task: str = TASK
) -> LoopFigures:
    """Run `altlas train` past `second` programs and return what its processes spent between `first` and there.

    Raises:
        RuntimeError: the run ended or stood still before.
    """
    with tempfile.TemporaryDirectory(prefix="altlas-bench-") as directory:
        run_dir = Path(directory) / "run"
        overrides = [
            f"algorithm.name={algorithm}",
            f"run.evaluators={EVALUATORS}",
            f"run.seed={seed}",
            f"run.budget={10 * second}",
            "run.stop_on_solved=false",
            *settings,
        ]
        command = [sys.executable, "-m", "altlas.cli.main", "train", task, "--run-dir", str(run_dir), "-q"]
        process = subprocess.Popen(
            [*command, *(word for setting in overrides for word in ("--set", setting))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _, started = _at(process, run_dir, programs=1)
            done_before, before = _at(process, run_dir, programs=first)
            done_after, after = _at(process, run_dir, programs=second)
            updates = _updates(run_dir / "metrics.jsonl", first=done_before, last=done_after)
        finally:
            process.terminate()
            process.wait()
    return LoopFigures(
        algorithm,
        done_after - done_before,
        [now["evaluated_programs"] - before["evaluated_programs"] for before, now in pairwise(updates)],
        updates[-1]["seconds"] - updates[0]["seconds"],
        {role: after[role] - before[role] for role in after},
        started,
    )


def _at(process: subprocess.Popen[bytes], run_dir: Path, *, programs: int) -> tuple[int, Counter[str]]:
    """Wait until so many programs are done; return how many they are and the CPU seconds by role."""
    deadline = time.monotonic() + _LIMIT_S
    while (done := _programs_done(run_dir / "metrics.jsonl")) < programs:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"altlas train is at {done} programs and not at {programs}: exit code {process.poll()}")
        time.sleep(_POLL_S)
    return done, cpu_by_role(process.pid)


def _programs_done(path: Path) -> int:
    try:
        with path.open("rb") as lines:
            lines.seek(-min(4096, path.stat().st_size), os.SEEK_END)
            whole = lines.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
    except FileNotFoundError:
        return 0
    return int(json.loads(whole)["programs"]) if whole else 0


def _updates(path: Path, *, first: int, last: int) -> list[dict[str, Any]]:
    """Return the record of each update from one number of programs done to another, both included."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [record for record in records if first <= record["programs"] <= last]


def cpu_by_role(root: int) -> Counter[str]:
    """Return the CPU seconds of a process and all below it, by role; what has no role belongs to who started it."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            parents[int(entry.name)] = int(fields[1])
            ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    seconds: Counter[str] = Counter()
    for pid in ticks:
        line, above = [pid], parents.get(pid, 0)
        while line[-1] != root and above:
            line.append(above)
            above = parents.get(above, 0)
        if line[-1] == root:
            role = next((role for step in line if (role := _role(step))), "command")
            seconds[role] += ticks[pid] / _TICKS_PER_S  # type: ignore[assignment]
    return seconds


def _role(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
    except OSError:
        return ""
    if "serve" in words:
        return words[words.index("serve") + 1]
    return "redis" if words and words[0].endswith(("redis-server", "valkey-server")) else ""


def report() -> None:
    """Print a line for each algorithm, and below it where the time goes."""
    stages = ("sample", "evaluate", "transport", "learn")
    print(f"{'brainf, whole loop':<28} {'per CPU s':>10}  CPU us per program: all = {' + '.join(stages)}; start-up")
    for algorithm, (first, second) in BUDGETS.items():
        figures = measure(algorithm, first=first, second=second)
        by_stage = figures.by_stage()
        parts = " + ".join(f"{by_stage[stage]:.1f}" for stage in stages)
        print(
            f"{algorithm:<28} {figures.programs_per_cpu_s:>10,.0f}  {sum(by_stage.values()):.1f} = {parts}; "
            f"{sum(figures.start_s.values()):.1f} s",
            flush=True,
        )
        roles = ", ".join(f"{role} {figures.microseconds(role):.1f}" for role in sorted(figures.cpu_s))
        start = ", ".join(f"{role} {figures.start_s[role]:.1f}" for role in sorted(figures.start_s))
        print(f"{'':<28} {'':>10}  {roles}; start-up: {start}", flush=True)


if __name__ == "__main__":
    report()
