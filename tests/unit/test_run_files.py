"""What a run leaves in its directory, and the log's two formats."""

from __future__ import annotations

import io
import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import pytest

from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.obs.logs import RUN_ID, UPDATE, make_handler
from altlas.obs.run_files import Attempt, RunFiles


def attempt(
    program: int,
    source: str = "print(1)",
    *,
    kept_for: Literal["best", "solved", "sampled"] = "sampled",
    task: str = "basics/t",
    reward: float = 0.25,
    verified: bool = False,
) -> Attempt:
    score = Score(
        status=ProgramStatus.RUNTIME_ERROR,
        reward=reward,
        cases=2,
        cases_passed=1,
        verified=verified,
        error="NameError: x",
    )
    return Attempt(program=program, task=task, update=3, kept_for=kept_for, score=score, source=source)


def test_attempts_survive_and_a_repeated_update_replaces_its_own(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, tasks=["basics/t"], language="python", log_format="text")
    files.keep_attempts([attempt(1), attempt(2)])
    files.close()
    files = RunFiles(tmp_path, tasks=["basics/t"], language="python", log_format="text")
    files.keep_attempts([attempt(2, "print(2)"), attempt(5)])
    files.close()
    with sqlite3.connect(tmp_path / "attempts.sqlite") as database:
        rows = database.execute("SELECT program, source, status, error FROM attempts ORDER BY program").fetchall()
    assert rows == [
        (1, "print(1)", "runtime_error", "NameError: x"),
        (2, "print(2)", "runtime_error", "NameError: x"),
        (5, "print(1)", "runtime_error", "NameError: x"),
    ]


def test_sampled_attempts_wait_for_the_disk_and_better_ones_do_not(tmp_path: Path) -> None:
    now = 0.0
    files = RunFiles(tmp_path, tasks=["basics/t"], language="python", log_format="text", clock=lambda: now)

    def on_disk() -> list[int]:
        with sqlite3.connect(tmp_path / "attempts.sqlite") as database:
            return [program for (program,) in database.execute("SELECT program FROM attempts ORDER BY program")]

    files.keep_attempts([attempt(1)])
    assert on_disk() == []
    files.keep_attempts([attempt(2, kept_for="best")])
    assert on_disk() == [1, 2]
    files.keep_attempts([attempt(3)])
    now = 1.0
    files.keep_attempts([])
    files.keep_attempts([attempt(4)])
    assert on_disk() == [1, 2, 3, 4]
    files.keep_attempts([attempt(5)])
    files.close()
    assert on_disk() == [1, 2, 3, 4, 5]


def test_attempts_from_when_a_run_had_one_task_are_named_after_it(tmp_path: Path) -> None:
    columns = "status, reward, cases_passed, cases, solved, verified, error, source"
    with sqlite3.connect(tmp_path / "attempts.sqlite") as old:
        old.execute(f"CREATE TABLE attempts (program INTEGER PRIMARY KEY, update_number, kept_for, {columns})")
        old.execute("INSERT INTO attempts VALUES (0, 0, 'best', 'ok', 0.5, 1, 2, 0, 0, '', 'print(0)')")
    files = RunFiles(tmp_path, tasks=["basics/t"], language="python", log_format="text")
    files.keep_attempts([attempt(7)])
    files.close()
    with sqlite3.connect(tmp_path / "attempts.sqlite") as database:
        rows = database.execute("SELECT program, source, task FROM attempts ORDER BY program").fetchall()
    assert rows == [(0, "print(0)", "basics/t"), (7, "print(1)", "basics/t")]


def test_each_of_several_tasks_has_a_file_for_its_best_program(tmp_path: Path) -> None:
    names = ["brainf/reverse", "brainf-64/reverse", "brainf/add", "./mine/sort.toml"]
    files = RunFiles(tmp_path, tasks=names, language="brainf", log_format="text")
    for name in names:
        files.write_best(name, task=name)
    files.close()
    found = {path.name: path.read_text() for path in tmp_path.glob("best_program*")}
    assert found == {
        "best_program.brainf-reverse.bf": "brainf/reverse\n",
        "best_program.brainf-64-reverse.bf": "brainf-64/reverse\n",
        "best_program.add.bf": "brainf/add\n",
        "best_program.sort.bf": "./mine/sort.toml\n",
    }


def test_metrics_are_one_object_a_line_and_are_appended_to(tmp_path: Path) -> None:
    for update in (1, 2):
        files = RunFiles(tmp_path, tasks=["basics/t"], language="python", log_format="text")
        files.record_update({"update": update, "mean_reward": 0.5})
        files.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["update"] for line in lines] == [1, 2]


@contextmanager
def opened(run_dir: Path, *tasks: str) -> Iterator[RunFiles]:
    with closing(RunFiles(run_dir, tasks=tasks or ["basics/t"], language="python", log_format="text")) as files:
        yield files


def recorded(run_dir: Path) -> tuple[list[int], list[int]]:
    """The updates in metrics.jsonl and the programs in attempts.sqlite."""
    updates = [json.loads(line)["update"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    with closing(sqlite3.connect(run_dir / "attempts.sqlite")) as database:
        programs = [program for (program,) in database.execute("SELECT program FROM attempts ORDER BY program")]
    return updates, programs


@pytest.mark.parametrize("torn", ['{"mean_rew', '{"update": 3}', "x" * 200_000], ids=["part", "no end", "long"])
def test_a_torn_last_line_is_dropped_and_said(tmp_path: Path, torn: str) -> None:
    with opened(tmp_path) as files:
        for update in (1, 2):
            files.record_update({"update": update})
    with (tmp_path / "metrics.jsonl").open("a") as metrics:
        metrics.write(torn)
    with opened(tmp_path) as files:
        files.record_update({"update": 3})
    assert recorded(tmp_path)[0] == [1, 2, 3]
    assert f"dropped a torn last line of {len(torn)} bytes" in (tmp_path / "training.log").read_text()


def test_a_first_line_may_be_torn_and_a_whole_file_is_left(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"upd')
    for _ in range(2):
        with opened(tmp_path) as files:
            files.record_update({"update": 1})
    assert recorded(tmp_path)[0] == [1, 1]
    assert (tmp_path / "training.log").read_text().count("dropped a torn") == 1


def test_a_run_that_goes_back_forgets_what_came_after(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        for update in range(1, 6):
            files.record_update({"update": update, "programs": 10 * update})
            files.keep_attempts([attempt(10 * update - 10), attempt(10 * update - 1)])
        files.rewind(3, 30)
        files.record_update({"update": 4})
        files.keep_attempts([attempt(30, kept_for="best")])
        assert recorded(tmp_path) == ([1, 2, 3, 4], [0, 9, 10, 19, 20, 29, 30])
    assert "back at update 3, program 30: took 2 lines" in (tmp_path / "training.log").read_text()
    assert not list(tmp_path.glob("*.tmp"))


def test_going_back_to_where_a_run_is_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        files.record_update({"update": 1})
        files.keep_attempts([attempt(7)])
        before = (tmp_path / "metrics.jsonl").stat()
        files.rewind(1, 8)
        assert (tmp_path / "metrics.jsonl").stat().st_ino == before.st_ino
    assert recorded(tmp_path) == ([1], [7])
    assert (tmp_path / "training.log").read_text() == ""


def test_what_is_glued_to_a_torn_line_goes_when_the_run_goes_back(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"update": 1}\n{"upd{"update": 2}\n{"update": 3}\n7\n')
    with opened(tmp_path) as files:
        files.rewind(3, 0)
    assert recorded(tmp_path)[0] == [1, 3]


def test_the_best_program_goes_back_to_the_best_that_is_left(tmp_path: Path) -> None:
    with opened(tmp_path, "basics/t", "basics/other", "basics/unseen") as files:
        files.keep_attempts([attempt(1, "print(1)", kept_for="best"), attempt(2, "print(2)", reward=0.5)])
        files.keep_attempts([attempt(3, "print(3)", reward=0.5), attempt(4, "print(4)", reward=0.4, verified=True)])
        files.keep_attempts([attempt(5, "print(5)", task="basics/other"), attempt(9, "print(9)", verified=True)])
        for task, source in (("basics/t", "print(9)"), ("basics/other", "print(5)"), ("basics/unseen", "print(0)")):
            files.write_best(source, task=task)
        for programs, best in ((9, "print(4)\n"), (4, "print(2)\n"), (2, "print(1)\n"), (1, "print(1)\n")):
            files.rewind(1, programs)
            assert (tmp_path / "best_program.t.py").read_text() == best
        (tmp_path / "best_program.t.py").unlink()
        files.keep_attempts([attempt(1, "print(1)", kept_for="best")])
        files.rewind(1, 2)
    assert (tmp_path / "best_program.t.py").read_text() == "print(1)\n"
    assert (tmp_path / "best_program.other.py").read_text() == "print(5)\n"
    assert (tmp_path / "best_program.unseen.py").read_text() == "print(0)\n"


def test_best_program_is_the_last_one_written_and_leaves_no_partial_file(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, tasks=["basics/t"], language="python", log_format="text")
    files.write_best("print(1)", task="basics/t")
    files.write_best("print(2)\n", task="basics/t")
    files.close()
    assert (tmp_path / "best_program.py").read_text() == "print(2)\n"
    assert not list(tmp_path.glob("*.tmp"))


def test_training_log_gets_the_coordinators_lines(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, tasks=["basics/t"], language="python", log_format="text")
    logging.getLogger("altlas_coordinator.loop").warning("stuck for %d programs", 7)
    files.close()
    logging.getLogger("altlas_coordinator.loop").warning("after the end")
    text = (tmp_path / "training.log").read_text()
    assert "stuck for 7 programs" in text
    assert "after the end" not in text


def test_json_log_line_holds_role_run_update_and_traceback() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("test_json_log")
    logger.propagate = False
    logger.addHandler(make_handler(stream, role="trainer", log_format="json"))
    run, update = RUN_ID.set("r1"), UPDATE.set(4)
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("failed: %s", "so")
    finally:
        RUN_ID.reset(run)
        UPDATE.reset(update)
    line = json.loads(stream.getvalue())
    assert (line["role"], line["run"], line["update"], line["message"]) == ("trainer", "r1", 4, "failed: so")
    assert "ValueError: why" in line["traceback"]
