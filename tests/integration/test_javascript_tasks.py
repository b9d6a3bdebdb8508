"""The built-in JavaScript tasks, checked through the sandbox as `altlas tasks check` does it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from altlas.config.sections import RewardSection, SandboxSection
from altlas.tasks import list_tasks, load_task, load_vocabulary_text
from altlas.tasks.check import check_task
from altlas_evaluator.engine import Executor
from altlas_evaluator.scoring import TaskScorer


@pytest.fixture(scope="module")
def scorer() -> Iterator[TaskScorer]:
    with Executor(SandboxSection(slots=1)) as executor:
        yield TaskScorer(executor, RewardSection())


@pytest.mark.parametrize("reference", [name for name in list_tasks() if name.startswith("javascript/")])
def test_a_javascript_task_is_sound(scorer: TaskScorer, reference: str) -> None:
    task, _ = load_task(reference)
    findings = check_task(
        task,
        vocabulary_text=load_vocabulary_text(""),
        max_tokens=task.max_tokens,
        score=lambda sources: scorer.score(task, [source.encode() for source in sources]),
    )
    assert [finding for finding in findings if not finding.ok] == []


@pytest.mark.parametrize(
    ("name", "shortcut"),
    [
        ("add_two_numbers", "print(readline() + readline())"),
        ("conditional_check", "print(Number(readline()) > 4 ? 'hello' : 'world')"),
        ("list_operations", "print([Number(readline()), Number(readline())])"),
        ("list_operations", "print([readline(), readline()].reverse())"),
        ("function_with_return", "var x = Number(readline());\nprint(x * x + 1)"),
        ("sum_loop", "var n = Number(readline());\nprint(n * n / 2)"),
    ],
)
def test_shortcuts_earn_something_and_do_not_solve(scorer: TaskScorer, name: str, shortcut: str) -> None:
    (score,) = scorer.score(load_task(f"javascript/{name}")[0], [shortcut.encode()])
    assert not score.solved
    assert 0 < score.reward < 1
