"""Ctrl-C, a killed command and killed roles."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from run_processes import children, updates_done, wait_for

# Small batches: many update boundaries in little time.
SMALL = ("--set", "sampling.batch_size=64", "--set", "run.stop_on_solved=false")
LONG = ("train", "stdin/echo", "--budget", "1000000", *SMALL, "--json", "--quiet")


def test_ctrl_c_ends_with_a_checkpoint_and_the_run_goes_on(start_altlas, altlas, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start_altlas([*LONG, "--run-dir", run_dir])
    wait_for(lambda: updates_done(run_dir) >= 3)
    family = children(process.pid)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "checkpoint" in stderr
    result = json.loads(stdout.splitlines()[-1])
    assert result["stop_reason"] == "requested"
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))
    more = result["programs"] + 128
    resumed = altlas("train", "stdin/echo", "--resume", "--run-dir", run_dir, "--budget", more, "--json", "--quiet")
    assert resumed.code in (0, 3), resumed.stderr
    assert resumed.result["programs"] == more
    assert resumed.result["updates"] > result["updates"]


def test_nothing_outlives_a_killed_command(start_altlas, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start_altlas([*LONG, "--run-dir", run_dir])
    wait_for(lambda: updates_done(run_dir) >= 1)
    family = children(process.pid)
    assert len(family) >= 6
    process.kill()
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), timeout_s=30)


@pytest.mark.parametrize("role", ["trainer", "redis"])
def test_a_role_that_dies_too_often_ends_the_run_with_its_name(start_altlas, tmp_path: Path, role: str) -> None:
    run_dir = tmp_path / "run"
    process = start_altlas([*LONG, "--run-dir", run_dir, "--set", "watchdog.restarts=0"])
    wait_for(lambda: updates_done(run_dir) >= 1)
    mark = "unixsocket" if role == "redis" else f"serve {role}"
    (victim,) = [pid for pid, command in children(process.pid).items() if mark in command]
    os.kill(victim, signal.SIGKILL)
    _, stderr = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "redis.log" in stderr if role == "redis" else f"{role} died (killed by SIGKILL)" in stderr


def test_a_run_that_fails_says_so_in_json(altlas, tmp_path: Path) -> None:
    done = altlas(
        *("train", "basics/hello_world", "--json", "--quiet", "--run-dir", tmp_path / "run"),
        *("--set", "model.device=mps"),
    )
    assert done.code == 1
    assert done.result["stop_reason"] == "failed"
    assert "mps" in done.result["error"]


def test_only_the_learning_roles_hold_torch(start_altlas, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start_altlas([*LONG, "--run-dir", run_dir])
    wait_for(lambda: updates_done(run_dir) >= 2)
    holds_torch = {}
    for pid, command in children(process.pid).items():
        if " serve " in command:
            role = command.partition(" serve ")[2].split()[0]
            holds_torch[role] = "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert holds_torch == {"trainer": True, "generator": True, "coordinator": False, "evaluator": False}
