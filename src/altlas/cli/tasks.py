"""`altlas tasks`."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from altlas.config.loader import load_config
from altlas.core.task import BRAINF, Case, Task
from altlas.tasks import list_tasks, load_task, with_task_defaults

if TYPE_CHECKING:
    from altlas.core.score import Score
    from altlas_evaluator.scoring import TaskScorer


def list_all() -> None:
    """Print a table of the built-in tasks."""
    table = Table("task", "language", "cases", "held out", "what is asked", box=None, pad_edge=False)
    for name in list_tasks():
        task, _ = load_task(name)
        table.add_row(name, task.language, str(len(task.cases)), str(len(task.held_out)), task.description)
    Console().print(table)


def show(reference: str) -> None:
    """Print one task."""
    task, _ = load_task(reference)
    console = Console()
    console.print(
        f"[bold]{reference}[/bold]  {task.language}, vocabulary {task.vocabulary}, budget {task.budget:,}, "
        f"at most {task.max_tokens} tokens"
    )
    console.print(task.description)
    if task.language == BRAINF:
        settings = task.brainf
        length = ", a part of the reward for short programs" if settings.length_reward else ""
        console.print(f"base {settings.base}, at most {settings.max_steps:,} steps{length}")
        table = Table("case", "input", "expected", box=None, pad_edge=False)
    else:
        table = Table("case", "stdin", "expected stdout", box=None, pad_edge=False)
    for kind, cases in (("reward", task.cases), ("held out", task.held_out)):
        for case in cases:
            table.add_row(kind, *_columns(case))
    console.print(table)
    if task.reference:
        console.print("reference solution:")
        console.print(Syntax(task.reference, task.language, background_color="default"))
    else:
        console.print("no reference solution is given")


def _columns(case: Case) -> tuple[str, str]:
    """Return a case's input and output as shown; integers as text that rich does not take for markup."""
    if case.expected is None:
        return repr(case.stdin), repr(case.expected_stdout)
    return " ".join(map(str, case.input or ())), " ".join(map(str, case.expected))


def check(references: Sequence[str], *, config_file: Path | None, overrides: Sequence[str]) -> int:
    """Check tasks, the built-in ones when none is named; returns 0 when all hold, else 1."""
    config = load_config(config_file=config_file, environ=os.environ, overrides=overrides)
    from altlas.tasks import load_vocabulary_text
    from altlas.tasks.check import check_task
    from altlas_evaluator.engine import Executor
    from altlas_evaluator.languages.registry import task_languages
    from altlas_evaluator.scoring import TaskScorer

    console = Console()
    vocabulary_text = load_vocabulary_text(config.paths.vocabulary)
    executor = Executor(config.sandbox)
    is_sound = True
    try:
        scorer = TaskScorer(executor, config.reward)
        for reference in references or list_tasks():
            task, _ = load_task(reference, languages=task_languages())
            findings = check_task(
                task,
                vocabulary_text=vocabulary_text,
                max_tokens=with_task_defaults(config, task).sampling.max_tokens,
                score=functools.partial(_score, scorer, task),
            )
            for finding in findings:
                is_sound &= finding.ok
                mark = "[green]ok[/green]  " if finding.ok else "[red]FAIL[/red]"
                console.print(f"{mark} {reference}: {finding.name}" + ("" if finding.ok else f": {finding.detail}"))
    finally:
        executor.close()
    return 0 if is_sound else 1


def _score(scorer: TaskScorer, task: Task, sources: Sequence[str]) -> Sequence[Score]:
    return scorer.score(task, [source.encode() for source in sources])
