"""A run with elites that is killed goes on from its last checkpoint to the same end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def updates_done(run_dir: Path) -> int:
    try:
        return len((run_dir / "metrics.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0


def test_a_killed_run_ends_as_an_undisturbed_one(start_altlas, altlas, tmp_path: Path) -> None:
    """The killed one has two evaluators, the others have one."""
    budget = ["--budget", 24 * 128, "--json", "--quiet"]
    arguments = [
        *("train", "brainf/echo-second-seq", "--seed", 3, *budget),
        *("--set", "run.stop_on_solved=false", "--set", "run.checkpoint_every=2", "--set", "sampling.batch_size=128"),
    ]
    calm = altlas(*arguments, "--run-dir", tmp_path / "calm").result
    run_dir = tmp_path / "run"
    process = start_altlas([*map(str, arguments), "--run-dir", run_dir])
    deadline = time.monotonic() + 60
    while updates_done(run_dir) < 7:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = updates_done(run_dir)
    assert done < calm["updates"], "it was over before it could be killed"
    resumed = altlas("train", "brainf/echo-second-seq", "--resume", "--run-dir", run_dir, *budget)
    assert resumed.code in (0, 3), resumed.stderr
    for field in ("policy_sha256", "updates", "programs", "unique_programs", "best_program", "best_reward", "solved"):
        assert resumed.result[field] == calm[field], field
