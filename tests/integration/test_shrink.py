"""A solution is shrunk by a real evaluator: what is left is verified, and no token of it can go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluator_process import EvaluatorProcess

from altlas.cli.shrink import shrink_into, shrink_program
from altlas.cli.train import LocalRun, TrainRequest, resolve
from altlas.client import Evaluator


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvaluatorProcess]:
    with EvaluatorProcess(tmp_path_factory.mktemp("evaluator")) as process:
        process.wait_until_ready()
        yield process


def make_run(task: str, directory: Path) -> LocalRun:
    run = resolve(
        TrainRequest(
            task=task,
            config_file=None,
            overrides=(),
            run_dir=directory / "run",
            resume=False,
            overwrite=False,
            as_json=True,
            quiet=True,
        )
    )
    (run.run_dir / "best_program.py").write_text("the whole")
    return run


@pytest.mark.parametrize(
    ("task", "program", "shrunk"),
    [
        ("basics/hello_world", "x = 1\nprint('hello', 'world')\ny = x + 2", "print('hello', 'world')"),
        (
            "basics/add_two_numbers",
            "x = int(input())\ny = int(input()) + 0\nif True:\n    print(x + y)\n",
            "x = int(input())\ny = int(input())\nprint(x + y)",
        ),
        ("brainf/reverse", "+->,[>,]+-<[.<]<<.", ">,[>,]<[.<]."),
    ],
)
def test_what_is_not_needed_goes(
    evaluator: EvaluatorProcess, tmp_path: Path, task: str, program: str, shrunk: str
) -> None:
    run = make_run(task, tmp_path)
    result = shrink_program(program, run, address=evaluator.address)
    assert result.is_minimal
    assert result.programs > 0
    with Evaluator(evaluator.address) as client:
        assert [score.verified for score in client.evaluate(task, [result.source, program])] == [True, True]
    assert len(result.source) <= len(shrunk)
    assert (run.run_dir / "best_program_shrunk.py").read_text() == result.source + "\n"
    assert (run.run_dir / "best_program.py").read_text() == "the whole"


def test_a_program_that_cannot_be_shrunk_leaves_the_run_solved(evaluator: EvaluatorProcess, tmp_path: Path) -> None:
    run = make_run("basics/hello_world", tmp_path)
    summary: dict[str, Any] = {
        "best_program": "print('hello', 'world')  # not of its vocabulary",
        "shrunk_program": None,
    }
    shrink_into(summary, run, address=evaluator.address)
    assert summary["shrunk_program"] is None
    assert "cannot be shrunk token by token" in summary["shrink_error"]
    assert not (run.run_dir / "best_program_shrunk.py").exists()
