"""Programs until solved, by task and seed, through the whole system: `python benchmarks/solve_rates.py --help`."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ALTLAS = Path(sys.executable).with_name("altlas")
TASKS = ("hello_world", "add_two_numbers", "conditional_check", "concatenate_strings")


def train(task: str, seed: int, extra: Sequence[str], run_dir: Path) -> dict[str, Any]:
    """Train once and return the result object; a run that fails is an error."""
    command = [ALTLAS, "train", task, "--seed", str(seed), "--json", "--quiet", "--run-dir", run_dir, *extra]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{task} seed {seed}: exit code {done.returncode}\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print a table, one row a task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=[f"basics/{name}" for name in TASKS])
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1 to N")
    parser.add_argument("--budget", type=int, default=60_000)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    extra = ["--budget", str(arguments.budget), *(part for item in arguments.set for part in ("--set", item))]
    print(f"{'task':<30} {'solved':>7}  {'median':>7}  {'programs/s':>10}  programs until solved, by seed", flush=True)
    for task in arguments.tasks:
        results = []
        for seed in range(1, arguments.seeds + 1):
            with tempfile.TemporaryDirectory(prefix="altlas-bench-") as directory:
                results.append(train(task, seed, extra, Path(directory) / "run"))
        solved = [result["programs"] for result in results if result["verified"]]
        shown = ", ".join(f"{result['programs']:,}" if result["verified"] else "-" for result in results)
        median = f"{statistics.median(solved):,.0f}" if solved else "-"
        speed = statistics.median(result["programs_per_second"] for result in results)
        print(f"{task:<30} {len(solved)}/{len(results):<5}  {median:>7}  {speed:>10,.0f}  {shown}", flush=True)


if __name__ == "__main__":
    main()
