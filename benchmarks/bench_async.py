"""Async mode beside lockstep: programs per second of the whole loop, in turn, and what limits them.

`make bench ARGS=async`. `limit` is what the cores would do if they were never idle: of lockstep's CPU time per program,
since overlapping takes none away.
"""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass

from benchmarks.bench_loop import LoopFigures, measure

ROUNDS = 3
TASKS = {"stdin/max_input": (1_280, 6_400), "brainf/dedup": (20_480, 102_400)}


@dataclass(frozen=True, slots=True)
class AsyncFigures:
    """One task. Lists have a figure of each round."""

    task: str
    lockstep: list[LoopFigures]
    overlapped: list[LoopFigures]

    @property
    def ratio(self) -> float:
        """Median over the rounds of async programs per second to lockstep's."""
        pairs = zip(self.lockstep, self.overlapped, strict=True)
        return statistics.median(_programs_per_s(theirs) / _programs_per_s(ours) for ours, theirs in pairs)


def compare(task: str, *, first: int, second: int, rounds: int = ROUNDS) -> AsyncFigures:
    """Run a task in both modes in turn, `rounds` times."""
    figures = AsyncFigures(task, [], [])
    for seed in range(1, rounds + 1):
        for mode, kept in (("lockstep", figures.lockstep), ("async", figures.overlapped)):
            settings = (f"run.mode={mode}",)
            kept.append(measure("policy", first=first, second=second, seed=seed, settings=settings, task=task))
    return figures


def _programs_per_s(figures: LoopFigures) -> float:
    return figures.programs / figures.wall_s


def report() -> None:
    """Print a line for each task, and below it each role's part of a core."""
    cores = len(os.sched_getaffinity(0))
    print(f"{'whole loop, programs/s':<28} {'lockstep':>9} {'async':>9} {'ratio':>6} {'limit':>9}  on {cores} cores")
    for task, (first, second) in TASKS.items():
        figures = compare(task, first=first, second=second)
        lockstep, overlapped = (
            statistics.median(map(_programs_per_s, runs)) for runs in (figures.lockstep, figures.overlapped)
        )
        limit = cores * statistics.median(run.programs_per_cpu_s for run in figures.lockstep)
        print(f"{task:<28} {lockstep:>9,.0f} {overlapped:>9,.0f} {figures.ratio:>6.2f} {limit:>9,.0f}", flush=True)
        for mode, runs in (("lockstep", figures.lockstep), ("async", figures.overlapped)):
            print(f"{'':<28} {mode}, cores used: {_shares(runs)}", flush=True)


def _shares(runs: list[LoopFigures]) -> str:
    """Return the mean number of cores that each role kept busy."""
    wall_s = sum(run.wall_s for run in runs)
    busy = {role: sum(run.cpu_s.get(role, 0.0) for run in runs) / wall_s for role in runs[0].cpu_s}
    return ", ".join(f"{role} {share:.2f}" for role, share in sorted(busy.items())) + f"; all {sum(busy.values()):.2f}"


if __name__ == "__main__":
    report()
