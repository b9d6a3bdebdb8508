"""Workers are killed with SIGKILL in the middle of jobs: ours loses nothing and doubles nothing, the others lose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def test_killed_workers_lose_and_double_nothing_of_ours_and_lose_jobs_of_the_usual_ways(redis_url: str) -> None:
    command = [sys.executable, "-m", "benchmarks.queue_drill", "--jobs", "600", "--kills", "12", "--repeats", "1"]
    command += ["--json", "--redis-url", redis_url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    drills: dict[str, Any] = {row["discipline"]: row for row in map(json.loads, done.stdout.splitlines())}
    ours = drills.pop("lua_commit")
    assert (ours["lost"], ours["doubled"]) == (0, 0)
    assert ours["taken_over"] > 0, "no kill hit a job in hand: the drill drilled nothing"
    assert set(drills) == {"list_brpop", "ack_on_receipt"}
    for name, row in drills.items():
        assert row["lost"] > 0, f"{name}: {row}"
