"""Learning as a user gets it: a brainf task is solved within a budget of programs that drawing at random does not.

The counts are of fixed seeds, so they hold exactly on one machine; the budget leaves room for another's floats.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ALTLAS = Path(sys.executable).with_name("altlas")
TASK = "brainf/echo-second-seq"
BUDGET = 20_480
SEED = 1


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trains with an algorithm and a number of evaluators, once each; returns the result."""

    @functools.cache
    def run(algorithm: str, *, evaluators: int) -> dict[str, Any]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ALTLAS_")}
        arguments = ["train", TASK, "--seed", str(SEED), "--budget", str(BUDGET), "--json", "--quiet"]
        settings = [f"algorithm.name={algorithm}", f"run.evaluators={evaluators}"]
        done = subprocess.run(
            [ALTLAS, *arguments, *(part for setting in settings for part in ("--set", setting))],
            capture_output=True,
            text=True,
            timeout=100,
            cwd=tmp_path_factory.mktemp("run"),
            env=environment,
            check=False,
        )
        assert done.returncode in (0, 3), done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    return run


@pytest.mark.parametrize("algorithm", ["policy", "ga_archive"])
def test_it_is_solved_within_the_budget(train: Any, algorithm: str) -> None:
    result = train(algorithm, evaluators=2)
    assert result["verified"], result
    assert result["stop_reason"] == "solved"
    assert result["programs_to_solve"] <= result["programs"] <= BUDGET


def test_drawing_at_random_does_not_solve_it(train: Any) -> None:
    result = train("random", evaluators=1)
    assert not result["solved"], result["best_program"]
    assert result["programs"] == BUDGET


def test_the_number_of_evaluators_changes_nothing(train: Any) -> None:
    one, two = (train("policy", evaluators=evaluators) for evaluators in (1, 2))
    for field in ("policy_sha256", "programs", "programs_to_solve", "unique_programs", "best_program", "best_reward"):
        assert two[field] == one[field], field
