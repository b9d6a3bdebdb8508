"""The controls that ship with altlas: taken from the results, held to a run's budget, named at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comparisons import make_row, unsolved

from altlas.cli.ending import control_lines, print_result
from altlas.cli.train import LocalRun, TrainRequest, resolve
from altlas.cli.watch import task_controls
from altlas.report import controls
from altlas.report.controls import Control, collect, is_outdated, parse, read_controls, render, render_results, standing
from altlas.report.results import COLUMNS, ResultsFile

ROOT = Path(__file__).parents[2]
TASK = "brainf/reverse"
# As `altlas bench learning` wrote them, with shorter programs; the last was not run.
RECORDED = r'''
brainf/reverse,ga_archive,ga_archive,3,500000,278016,1,1,277515,277515,1.0,260035,260035,28.344,24.296,""">,[>,]<[.<].""","""x""",0.1.0,dffbbf4,2026-11-25T23:51:48Z
brainf/reverse,ga_archive,ga_archive,1,500000,24576,1,1,24072,24072,1.0,23482,23482,30.049,28.299,""">,[>,]<[.<].""","""x""",0.1.0,dffbbf4,2026-11-25T23:47:15Z
brainf/reverse,policy,policy,1,500000,118784,1,1,118716,118716,1.0,111584,111584,56.329,49.922,""">,[>,]<[.<].""","""x""",0.1.0,dffbbf4,2026-11-25T23:47:15Z
brainf/reverse,ga_archive,ga_archive,2,500000,48640,1,1,48472,48472,1.0,46433,46433,15.686,14.282,""">,[>,]<[.<].""","""x""",0.1.0,dffbbf4,2026-11-25T23:49:49Z
brainf/echo-twice,ga_archive,ga_archive,1,500000,51712,1,1,50385,51625,1.0,49125,49125,15.667,14.896,"""[.>,].<""","""x""",0.1.0,dffbbf4,2026-11-25T23:49:07Z
brainf/reverse,random,random,1,500000,500000,0,0,,,0.4,490000,490000,60.0,55.0,"""<""","""""",0.1.0,dffbbf4,2026-11-25T23:52:00Z
'''.lstrip()
GA = Control(budget=500_000, needed=(24_072, 48_472, 277_515, 419_276, 27_455))
RANDOM = Control(budget=500_000, needed=(None,) * 5)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A directory with the recorded runs in one file."""
    directory = tmp_path / "results"
    directory.mkdir()
    (directory / "brainf.csv").write_text(",".join(COLUMNS) + "\n" + RECORDED, encoding="utf-8")
    return directory


def resolve_run(task: str, run_dir: Path, *overrides: str) -> LocalRun:
    return resolve(
        TrainRequest(
            task=task,
            config_file=None,
            overrides=overrides,
            run_dir=run_dir,
            resume=False,
            overwrite=False,
            as_json=False,
            quiet=True,
        )
    )


def test_the_packaged_controls_are_those_of_the_results() -> None:
    assert not is_outdated(ROOT / "docs" / "results"), "run `python -m altlas.report.controls --write`"
    assert render(read_controls()) == render_results(ROOT / "docs" / "results")


def test_controls_are_taken_from_the_rows_of_every_file(results: Path) -> None:
    with ResultsFile(results / "more.csv", say=print) as file:
        file.append(make_row(task="stdin/echo", algorithm="random", settings="random"))
        file.append(make_row(task="stdin/add", algorithm="random", settings="random;archive.per_case=0"))
    text = render_results(results)
    assert json.loads(text) == {
        "brainf/echo-twice": {"ga_archive": {"budget": 500_000, "needed": [51_625]}},
        "brainf/reverse": {
            "ga_archive": {"budget": 500_000, "needed": [24_072, 48_472, 277_515]},
            "random": {"budget": 500_000, "needed": [None]},
        },
        "stdin/echo": {"random": {"budget": 1_000, "needed": [100]}},
    }
    assert render(parse(text)) == text
    assert len(text.splitlines()) == 2 + 3


def test_without_results_there_are_no_controls(tmp_path: Path) -> None:
    assert render_results(tmp_path) == "{}\n"
    assert parse("{}\n") == {}


def test_of_several_budgets_the_largest_counts_and_of_one_seed_the_newest() -> None:
    shared = {"algorithm": "ga_archive", "settings": "ga_archive"}
    rows = [
        make_row(**shared, seed=2, budget=2_000, programs_to_verify=20, started_at="2026-01-02T00:00:00Z"),
        make_row(**shared, seed=2, budget=2_000, programs_to_verify=10, started_at="2026-01-01T00:00:00Z"),
        unsolved(**shared, seed=1, budget=2_000),
        make_row(**shared, seed=3, budget=1_000, programs_to_verify=30, started_at="2026-01-03T00:00:00Z"),
    ]
    assert collect(rows) == {"basics/hello_world": {"ga_archive": Control(budget=2_000, needed=(None, 20))}}


def test_a_result_that_changed_is_found(results: Path, tmp_path: Path) -> None:
    packaged = tmp_path / "controls.json"
    assert is_outdated(results, packaged)
    packaged.write_text(render_results(results), encoding="utf-8")
    assert not is_outdated(results, packaged)
    (results / "brainf.csv").write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    assert is_outdated(results, packaged)


def test_the_command_checks_the_checkout(capsys: pytest.CaptureFixture[str]) -> None:
    assert controls.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("control", "budget", "median", "verified"),
    [
        (GA, 500_000, "48,472", 5),
        (GA, 2_000_000, "48,472", 5),
        (GA, 277_514, "48,472", 3),
        (GA, 48_472, "48,472", 3),
        (GA, 48_471, "≥ 48,471", 2),
        (GA, 1_000, "≥ 1,000", 0),
        (RANDOM, 500_000, "≥ 500,000", 0),
        (RANDOM, 2_000_000, "≥ 500,000", 0),
        (Control(budget=100, needed=(40, 60)), 100, "50", 2),
        (Control(budget=100, needed=(40, 60)), 50, "≥ 45", 1),
    ],
)
def test_a_control_is_held_to_the_budget_of_the_run(control: Control, budget: int, median: str, verified: int) -> None:
    held = standing(control, budget)
    assert (str(held.median), held.verified, held.runs) == (median, verified, len(control.needed))
    assert held.budget == min(budget, control.budget)


@pytest.mark.parametrize(
    ("task", "overrides", "budgets"),
    [
        (TASK, ["run.budget=30000"], [30_000]),
        (TASK, [], [500_000]),
        ("brainf/echo-twice,brainf/reverse", ["curriculum.task_budget=40000"], [None, 40_000]),
        ("brainf/echo-twice,brainf/reverse", ["curriculum.task_budget=40000", "run.budget=9000"], [None, 9_000]),
    ],
)
def test_the_budget_is_the_tasks_in_this_run(
    tmp_path: Path, task: str, overrides: list[str], budgets: list[int | None]
) -> None:
    run = resolve_run(task, tmp_path / "run", *overrides)
    found = task_controls(run, {TASK: {"ga_archive": GA}})
    assert [entry["ga_archive"]["budget"] if entry else None for entry in found] == budgets


def test_the_end_of_a_run_names_the_controls_in_a_line() -> None:
    held = {name: standing(control, 500_000).to_json() for name, control in (("ga_archive", GA), ("random", RANDOM))}
    (line,) = control_lines(json.loads(json.dumps(held)))
    assert line == ("controls at 500,000 programs, median: ga_archive 48,472 (5 of 5 seeds), random ≥ 500,000 (0 of 5)")
    smaller = standing(Control(budget=1_000, needed=(7,)), 500_000).to_json()
    assert control_lines({"ga_archive": held["ga_archive"], "random": smaller}) == [
        "controls at 500,000 programs, median: ga_archive 48,472 (5 of 5 seeds)",
        "controls at 1,000 programs, median: random 7 (1 of 1 seeds)",
    ]
    assert control_lines({}) == []


@pytest.mark.parametrize("records", [{}, {TASK: {"ga_archive": GA}}])
def test_the_table_of_several_tasks_has_a_column_where_a_control_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], records: dict[str, dict[str, Control]]
) -> None:
    run = resolve_run("brainf/echo-twice,brainf/reverse", tmp_path / "run", "curriculum.task_budget=40000")
    facts = {"solved": False, "verified": False, "programs": 512, "programs_to_verify": None}
    task = {**facts, "best_reward": 0.5, "best_program": ",.", "shrunk_program": None}
    tasks = [
        {**task, "task": of.name, "controls": held}
        for of, held in zip(run.tasks, task_controls(run, records), strict=True)
    ]
    summary = {**facts, "seconds": 1.0, "programs_per_second": 512.0, "stop_reason": "budget", "tasks": tasks}
    print_result(summary, run, is_quiet=True)
    _, header, echo_twice, reverse = capsys.readouterr().out.splitlines()
    assert ("ga_archive" in header) == bool(records)
    assert ("≥ 40,000" in reverse) == bool(records)
    assert "≥" not in echo_twice
