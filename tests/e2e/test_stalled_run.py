"""A role that stands still: the run says who is waited for, fails in the end, or goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from run_processes import children, updates_done, wait_for

RUN = (
    *("train", "stdin/echo", "--seed", "3", "--evaluators", "1", "--no-shrink", "--json", "--quiet"),
    *("--set", "sampling.batch_size=64", "--set", "run.stop_on_solved=false", "--set", "transport.lease_s=2"),
    *("--set", "watchdog.report_after=1", "--set", "watchdog.fail_after=1"),
    *("--set", "watchdog.least_report_s=1.5"),
)
STALLS = {
    "evaluator": r"no update for [\d.]+ s \(median [\d.]+ s\): evaluate, update \d+ for \d+ s, waiting for evaluators: "
    r"\d+ jobs waiting, [1-9]\d* in hand, \d+ reclaimed so far; 1 evaluators known; "
    r"[^\s;]+\.PID\.[0-9a-f]+ holds [1-9]\d*, last heard of \d+ s ago",
    "generator": r"no update for [\d.]+ s \(median [\d.]+ s\): sample, update \d+ for \d+ s, waiting for generator",
}


def stop_role(command: subprocess.Popen[str], role: str) -> int:
    """Stop a role's process, and not its programs; return its process id."""
    (victim,) = [pid for pid, line in children(command.pid).items() if f"serve {role}" in line]
    os.kill(victim, signal.SIGSTOP)
    return victim


def log_of(run_dir: Path) -> str:
    return (run_dir / "logs" / "coordinator.log").read_text()


@pytest.mark.parametrize("role", STALLS)
def test_a_run_whose_role_stands_still_says_so_and_fails(start_altlas, tmp_path: Path, role: str) -> None:
    run_dir = tmp_path / "run"
    limits = ("--set", "watchdog.least_fail_s=8", "--budget", "1000000")
    command = start_altlas([*RUN, *limits, "--run-dir", run_dir])
    wait_for(lambda: updates_done(run_dir) >= 3)
    family = children(command.pid)
    victim = stop_role(command, role)
    stdout, stderr = command.communicate(timeout=60)
    assert command.returncode == 1, stderr
    stall = STALLS[role].replace("PID", str(victim))
    assert re.search(stall, stderr)
    assert re.search(stall, log_of(run_dir))
    result = json.loads(stdout.splitlines()[-1])
    assert result["stop_reason"] == "failed"
    assert re.search(stall + r"\. Given up after watchdog\.fail_after medians; see to that", result["error"])
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)
    assert "does not end" not in stderr, "a role that was stopped was waited for in vain"


def test_a_run_whose_roles_go_on_in_time_ends_as_an_undisturbed_one(start_altlas, altlas, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    limits = ("--set", "watchdog.least_fail_s=60", "--budget", "1280")
    command = start_altlas([*RUN, *limits, "--run-dir", run_dir])
    for role, stall in STALLS.items():
        begun = updates_done(run_dir)
        wait_for(lambda begun=begun: updates_done(run_dir) >= begun + 2)
        said = len(log_of(run_dir))
        victim = stop_role(command, role)
        due = re.compile(stall.replace("PID", str(victim)))
        wait_for(lambda said=said, due=due: due.search(log_of(run_dir), said))
        os.kill(victim, signal.SIGCONT)
    stdout, stderr = command.communicate(timeout=60)
    calm = altlas(*RUN, *limits, "--run-dir", tmp_path / "calm")
    assert command.returncode == calm.code, stderr
    result = json.loads(stdout.splitlines()[-1])
    for field in ("policy_sha256", "programs", "unique_programs", "evaluated_programs", "updates", "best_program"):
        assert result[field] == calm.result[field], field
    assert (result["programs"], result["restarts"]) == (1280, {})
