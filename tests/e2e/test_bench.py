"""`altlas bench learning` and the shrinking of a solution, through the whole system."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_a_comparison_end_to_end(altlas, tmp_path: Path) -> None:
    arguments = (
        *("bench", "learning", "--name", "demo", "--tasks", "basics/hello_world", "--algorithms", "policy"),
        *("--seeds", "2", "--budget", "1000", "--jobs", "2", "--set", "sampling.batch_size=128"),
    )
    done = altlas(*arguments, timeout=280)
    assert done.code == 0, done.stderr
    assert "ALTLAS_RUN__EVALUATORS do not reach the runs" in done.stderr
    out = tmp_path / "docs" / "results"
    with (out / "demo.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["seed"] for row in rows) == ["1", "2"]
    for row in rows:
        assert float(row["cpu_s"]) > 1
        assert int(row["programs"]) <= 1000 + 128
        assert (row["programs_to_solve"] != "") == (row["solved"] == "1")
        assert (row["shrunk_program"] != '""') == (row["verified"] == "1")
    solved = sum(row["solved"] == "1" for row in rows)
    assert f"| basics/hello_world | 1,000 | policy | {solved}/2 |" in (out / "demo.md").read_text()
    assert {path.name for path in out.iterdir()} == {"demo.csv", "demo.md", "demo.svg", "demo-basics-hello_world.svg"}
    again = altlas(*arguments)
    assert again.code == 0
    assert "2 runs, 2 of them in docs/results/demo.csv already" in again.stdout


def test_a_mistake_is_said_before_anything_runs(altlas, tmp_path: Path) -> None:
    done = altlas("bench", "learning", "--name", "demo", "--tasks", "basics/hello_world", "--algorithms", "polcy")
    assert done.code == 2
    assert "there is no 'polcy'" in done.stderr
    assert not (tmp_path / "docs").exists()


@pytest.mark.timeout(200)
def test_the_printed_result_has_the_shrunk_program(altlas, tmp_path: Path) -> None:
    done = altlas("train", "basics/hello_world", "--seed", "1", "--run-dir", tmp_path / "run", timeout=180)
    assert done.code == 0, done.stderr
    assert "programs tried" in done.stdout
    assert (tmp_path / "run" / "best_program_shrunk.py").is_file()
