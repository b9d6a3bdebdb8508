"""Runs of several tasks through the whole system: what they do and report, and that a killed one ends as a calm one."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

PYTHON = "basics/hello_world,basics/concatenate_strings"
BRAINF = "brainf/echo-second-seq,brainf/shift-left"


def updates_of(run_dir: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    except FileNotFoundError:
        return []


@pytest.mark.timeout(240)
def test_a_run_of_two_tasks_solves_and_reports_both(altlas, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    done = altlas("train", PYTHON, "--seed", 1, "--budget", 12_000, "--run-dir", run_dir, "--json", timeout=220)
    assert done.code == 0, done.stderr
    result = done.result
    first, second = result["tasks"]
    assert (result["task"], result["verified"], result["best_program"]) == (PYTHON, True, "")
    assert [task["task"] for task in result["tasks"]] == PYTHON.split(",")
    alone = altlas("train", first["task"], "--seed", 1, "--run-dir", tmp_path / "alone", "--json", timeout=120).result
    assert (first["programs"], first["programs_to_verify"]) == (alone["programs"], alone["programs_to_verify"])
    assert result["programs"] == first["programs"] + second["programs"]
    assert result["programs_to_verify"] == first["programs"] + second["programs_to_verify"]
    for task in result["tasks"]:
        assert task["solved"]
        assert task["verified"]
        stem = task["task"].partition("/")[2]
        assert (run_dir / f"best_program.{stem}.py").read_text().rstrip("\n") == task["best_program"].rstrip("\n")
        shrunk = (run_dir / f"best_program_shrunk.{stem}.py").read_text()
        assert shrunk.rstrip("\n") == task["shrunk_program"].rstrip("\n")
    lines = updates_of(run_dir)
    updates = first["programs"] // 256
    rest = ["basics/concatenate_strings"] * (len(lines) - updates)
    assert [line["task"] for line in lines] == ["basics/hello_world"] * updates + rest
    assert "update 1, basics/hello_world: 256 programs" in (run_dir / "training.log").read_text()
    with sqlite3.connect(run_dir / "attempts.sqlite") as attempts:
        verified = attempts.execute("SELECT DISTINCT task FROM attempts WHERE verified ORDER BY task").fetchall()
    assert verified == [("basics/concatenate_strings",), ("basics/hello_world",)]


@pytest.mark.parametrize("algorithm", ["policy", "ga_archive"])
@pytest.mark.parametrize("route", ["in_order", "round_robin"])
def test_brainf_in_order_and_in_turn(altlas, tmp_path: Path, algorithm: str, route: str) -> None:
    done = altlas(
        *("train", BRAINF, "--seed", 1, "--budget", 40_000, "--run-dir", tmp_path / "run", "--no-shrink"),
        *("--set", f"algorithm.name={algorithm}", "--set", f"curriculum.route={route}"),
        *("--set", "curriculum.task_budget=4000"),
    )
    assert done.code in (0, 3), done.stderr
    lines = updates_of(tmp_path / "run")
    tasks = [line["task"] for line in lines]
    assert set(tasks) == set(BRAINF.split(","))
    verified: set[str] = set()
    for before, line in zip([None, *lines], lines, strict=False):
        assert line["task"] not in verified
        if before is not None and route == "round_robin" and not verified:
            assert line["task"] != before["task"]
        if line["verified"]:
            verified.add(line["task"])
    assert (done.code == 0) == (len(verified) == 2)
    if route == "in_order" and lines[7]["task"] == tasks[0]:
        # 8 updates of 512 programs, the last of them cut to the task's budget
        assert lines[7]["task_programs"] == 4000
        assert tasks[8] != tasks[0]
    for word in ("task", "verified", "programs", "best program", *BRAINF.split(",")):
        assert word in done.stdout


def test_a_run_that_leaves_a_task_unsolved_says_which_and_how_to_go_on(altlas, tmp_path: Path) -> None:
    arguments = ("brainf/echo-second-seq,brainf/reverse", "--run-dir", tmp_path / "run", "--seed", 1)
    done = altlas("train", *arguments, "--budget", 1024, "--set", "curriculum.route=round_robin")
    assert done.code == 3
    assert "0 of 2 tasks solved (budget)" in done.stdout
    assert "to go on: altlas train brainf/echo-second-seq,brainf/reverse --resume" in done.stdout.replace("\n", " ")
    other = altlas(
        "train", "brainf/reverse,brainf/echo-second-seq", "--resume", "--run-dir", tmp_path / "run", "--json"
    )
    assert other.code != 0
    assert "task_digest" in other.result["error"]
    again = altlas("train", arguments[0], "--resume", "--run-dir", tmp_path / "run", "--json")
    assert (again.code, again.result["programs"]) == (3, 1024)
    assert [task["programs"] for task in again.result["tasks"]] == [512, 512]


def test_tasks_that_cannot_share_a_policy_are_refused_before_anything_runs(altlas, tmp_path: Path) -> None:
    done = altlas("train", "basics/hello_world,brainf/reverse", "--run-dir", tmp_path / "run")
    assert done.code == 2
    assert "language brainf, vocabulary brainf: brainf/reverse" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("algorithm", "route", "carry"),
    [
        ("policy", "learning_progress", "policy_and_archive"),
        ("policy", "in_order", "nothing"),
    ],
)
def test_a_killed_run_ends_as_an_undisturbed_one(
    start_altlas, altlas, tmp_path: Path, algorithm: str, route: str, carry: str
) -> None:
    budget = ["--budget", 24 * 128, "--json", "--quiet"]
    arguments = [
        *("train", BRAINF, "--seed", 3, *budget, "--no-shrink", "--set", f"algorithm.name={algorithm}"),
        *("--set", f"curriculum.route={route}", "--set", f"curriculum.carry={carry}"),
        *("--set", "curriculum.task_budget=1000", "--set", "sampling.batch_size=128"),
        *("--set", "run.stop_on_solved=false", "--set", "run.checkpoint_every=2"),
    ]
    calm = altlas(*arguments, "--run-dir", tmp_path / "calm").result
    run_dir = tmp_path / "run"
    process = start_altlas([*map(str, arguments), "--run-dir", run_dir])
    deadline = time.monotonic() + 60
    while len(updates_of(run_dir)) < 11:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(updates_of(run_dir)) < calm["updates"], "it was over before it could be killed"
    resumed = altlas("train", BRAINF, "--resume", "--run-dir", run_dir, *budget, "--no-shrink")
    assert resumed.code in (0, 3), resumed.stderr
    for field in ("policy_sha256", "updates", "programs", "unique_programs", "tasks"):
        assert resumed.result[field] == calm[field], field
    assert all(task["programs"] for task in calm["tasks"])


def test_a_task_that_shares_nothing_does_what_it_does_alone(altlas, tmp_path: Path) -> None:
    shared = ("--seed", 5, "--json", "--quiet", "--no-shrink", "--set", "run.stuck_after=1500")
    together = altlas(
        *("train", BRAINF, "--budget", 8192, *shared, "--run-dir", tmp_path / "together"),
        *("--set", "curriculum.carry=nothing", "--set", "curriculum.route=round_robin"),
        *("--set", "run.stop_on_solved=false"),
    ).result
    for task in together["tasks"]:
        alone = altlas(
            *("train", task["task"], "--budget", 4096, *shared, "--run-dir", tmp_path / task["task"].replace("/", "-")),
            *("--set", "run.stop_on_solved=false"),
        ).result
        for field in ("best_reward", "best_program", "solved", "programs", "programs_to_solve"):
            assert task[field] == alone[field], field
        assert task["restarts"] == alone["tasks"][0]["restarts"]
