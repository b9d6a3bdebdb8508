"""The main job end to end: every role as a process, from the console script, on a real Redis."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

FIELDS = {
    *("task", "solved", "verified", "programs", "unique_programs", "evaluated_programs", "updates", "seconds"),
    *("programs_per_second", "best_reward", "best_program", "policy_sha256", "seed", "run_dir", "stop_reason"),
    *("programs_to_solve", "programs_to_verify", "controls", "restarts"),
    *("shrunk_program", "shrink_programs", "shrunk_is_minimal", "shrink_error", "tasks"),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("task", "stdin", "expected"),
    [("basics/hello_world", "", "hello world\n"), ("basics/add_two_numbers", "31\n11\n", "42\n")],
)
def test_a_task_is_solved_and_the_best_program_is_real(altlas, tmp_path: Path, task, stdin, expected) -> None:
    done = altlas("train", task, "--seed", "1", "--run-dir", tmp_path / "run", "--json", timeout=280)
    assert done.code == 0, done.stderr
    result = done.result
    assert set(result) == FIELDS
    assert (result["task"], result["solved"], result["verified"]) == (task, True, True)
    assert (result["stop_reason"], result["best_reward"], result["seed"]) == ("solved", 1.0, 1)
    assert result["evaluated_programs"] == result["unique_programs"] <= result["programs"] <= 60_000
    assert result["programs"] - 256 < result["programs_to_solve"] <= result["programs_to_verify"] <= result["programs"]
    assert (result["shrunk_is_minimal"], result["shrink_error"]) == (True, "")
    assert len(result["shrunk_program"]) <= len(result["best_program"])
    for program in ("best_program", "shrunk_program"):
        ran = subprocess.run(
            [sys.executable, "-c", result[program]], input=stdin, capture_output=True, text=True, check=True
        )
        assert ran.stdout.rstrip() == expected.rstrip()  # What is compared has no trailing white space.
    check_run_directory(tmp_path / "run", result)


def check_run_directory(run_dir: Path, result: dict) -> None:
    assert (run_dir / "best_program.py").read_text().rstrip("\n") == result["best_program"].rstrip("\n")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == list(range(1, result["updates"] + 1))
    assert lines[-1]["programs"] == result["programs"]
    assert sum(lines[-1]["statuses"].values()) == lines[-1]["programs"] - (lines[-2]["programs"] if lines[1:] else 0)
    assert f"update {result['updates']}:" in (run_dir / "training.log").read_text()
    with sqlite3.connect(run_dir / "attempts.sqlite") as attempts:
        kept = attempts.execute("SELECT source, reward FROM attempts WHERE verified").fetchall()
    assert (result["best_program"], 1.0) in kept
    assert (run_dir / "config.ini").is_file()
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir())


@pytest.mark.timeout(200)
def test_a_run_stopped_at_half_and_resumed_equals_the_undisturbed_one(altlas, tmp_path: Path) -> None:
    shared = ("train", "basics/add_two_numbers", "--seed", "7", "--json", "--quiet", "--set", "sampling.batch_size=128")
    whole = altlas(*shared, "--budget", "768", "--run-dir", tmp_path / "whole").result
    half = altlas(*shared, "--budget", "384", "--run-dir", tmp_path / "parts")
    assert half.code in (0, 3)
    resumed = altlas(
        *("train", "basics/add_two_numbers", "--resume", "--budget", "768", "--json", "--quiet"),
        *("--run-dir", tmp_path / "parts"),
    ).result
    for field in ("policy_sha256", "programs", "unique_programs", "updates", "best_program", "best_reward"):
        assert resumed[field] == whole[field], field


def test_without_the_grammar_it_runs_and_spends_its_budget(altlas, tmp_path: Path) -> None:
    done = altlas(
        *("train", "basics/hello_world", "--set", "sampling.grammar=none", "--budget", "300", "--json", "--quiet"),
        *("--run-dir", tmp_path / "run"),
    )
    assert done.code == 3, done.stderr
    assert (done.result["stop_reason"], done.result["programs"]) == ("budget", 300)


def test_a_server_of_the_users_own_is_used_and_nothing_is_left_behind(altlas, tmp_path: Path, redis_url: str) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = altlas(
        *("train", "basics/hello_world", "--budget", "64", "--json", "--quiet", "--redis-url", redis_url),
        *("--run-dir", tmp_path / "run"),
        env={"TMPDIR": str(temporary)},
    )
    assert done.code in (0, 3), done.stderr
    assert not (tmp_path / "run" / "redis").exists()
    assert [path.name for path in temporary.iterdir() if path.name.startswith("altlas")] == []
