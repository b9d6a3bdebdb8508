"""The benchmarks run: what they measure is real, and how fast it was is not asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_evaluators_table_has_its_rows() -> None:
    command = [sys.executable, "-m", "benchmarks", "evaluation", "--programs", "24"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for row in (
        "floor",
        "landlock tier",
        "unsafe tier",
        "python -I -S -c",
        "human-eval's method",
        "all cores",
        "isolated",
        "shared",
        "altlas execute",
        "brainf, random, 30 long",
        "redis and scoring",
    ):
        assert f"\n{row} " in done.stdout, row
