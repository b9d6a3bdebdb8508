"""What is printed for a person when a run has ended."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from altlas.cli.train import LocalRun
from altlas.report.statistics import Bound

_SHOWN_CHARACTERS = 60
# The control that has a column of its own in a table of tasks.
_CONTROL = "ga_archive"


def print_result(summary: Mapping[str, Any], run: LocalRun, *, is_quiet: bool) -> None:
    """Print how a local run ended, where its files are and how to go on."""
    print_outcome(summary)
    if not is_quiet:
        console = Console()
        console.print(f"run directory: {summary['run_dir']}", highlight=False)
        if summary["stop_reason"] not in ("solved", "failed"):
            console.print(f"to go on: altlas train {run.task_name} --resume --run-dir {run.run_dir}", highlight=False)
    sys.stdout.flush()


def print_outcome(summary: Mapping[str, Any]) -> None:
    """Print how a run ended: its program, or of several tasks a table."""
    console = Console()
    console.print(_headline(summary), highlight=False)
    if len(summary["tasks"]) > 1:
        console.print(_table(summary))
    else:
        _print_program(summary, console)
        if summary["stop_reason"] != "failed":
            for line in control_lines(summary["controls"]):
                console.print(line, highlight=False, soft_wrap=True)
    sys.stdout.flush()


def control_lines(controls: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what the controls of a task needed, a line for each budget that they are held to: one as a rule."""
    by_budget: dict[int, list[str]] = {}
    for algorithm, control in controls.items():
        texts = by_budget.setdefault(control["budget"], [])
        unit = "" if texts else " seeds"
        texts.append(f"{algorithm} {_median(control)} ({control['verified']} of {control['runs']}{unit})")
    return [f"controls at {budget:,} programs, median: {', '.join(texts)}" for budget, texts in by_budget.items()]


def _median(control: Mapping[str, Any]) -> str:
    return str(Bound(control["median"], is_least=control["is_least"]))


def _headline(summary: Mapping[str, Any]) -> str:
    speed = (
        f"{summary['programs']:,} programs in {summary['seconds']:.1f} s ({summary['programs_per_second']:.0f} per s)"
    )
    tasks = summary["tasks"]
    if summary["stop_reason"] == "failed":
        return f"[red]failed[/red] after {speed}: {summary['error']}"
    if summary["verified"]:
        reason = "" if summary["stop_reason"] == "solved" else f" ({summary['stop_reason']})"
        return f"[green]solved[/green] {summary['task']}{reason} after {speed}"
    if len(tasks) > 1:
        verified = sum(task["verified"] for task in tasks)
        return f"[yellow]{verified} of {len(tasks)} tasks solved[/yellow] ({summary['stop_reason']}), {speed}"
    return f"[yellow]not solved[/yellow] ({summary['stop_reason']}), {speed}, best reward {summary['best_reward']:.3f}"


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("task", "solved"):
        table.add_column(name, no_wrap=True)
    for name in ("programs", "reward"):
        table.add_column(name, justify="right", no_wrap=True)
    controls = [task["controls"].get(_CONTROL) for task in summary["tasks"]]
    if any(controls):
        table.add_column(_CONTROL, justify="right", no_wrap=True)
    table.add_column("best program", overflow="fold")
    for task, control in zip(summary["tasks"], controls, strict=True):
        to_verify = task["programs_to_verify"]
        table.add_row(
            task["task"],
            "verified" if task["verified"] else "yes" if task["solved"] else "no",
            f">{task['programs']:,}" if to_verify is None else f"{to_verify:,}",
            "-" if task["best_reward"] is None else f"{task['best_reward']:.3f}",
            *([_median(control) if control else ""] if any(controls) else []),
            Text(_best(task)),
        )
    return table


def _best(task: Mapping[str, Any]) -> str:
    """Return a task's program as the table shows it: shrunk where it was; one that is no solution in short."""
    if task["shrunk_program"] is not None:
        return str(task["shrunk_program"])
    program = str(task["best_program"])
    return program if task["verified"] or len(program) <= _SHOWN_CHARACTERS else f"{program[:_SHOWN_CHARACTERS]} ..."


def _print_program(summary: Mapping[str, Any], console: Console) -> None:
    if summary["best_program"]:
        console.print(Syntax(summary["best_program"], "python", background_color="default"))
    if summary["shrink_error"]:
        console.print(f"[yellow]not shrunk[/yellow]: {summary['shrink_error']}", highlight=False)
    elif summary["shrunk_program"] is not None:
        _print_shrunk(summary, console)


def _print_shrunk(summary: Mapping[str, Any], console: Console) -> None:
    tried = f"{summary['shrink_programs']:,} programs tried"
    limit = "" if summary["shrunk_is_minimal"] else "; as many as may be, more may still be left out"
    if summary["shrunk_program"] == summary["best_program"]:
        console.print(f"nothing can be left out of it ({tried}{limit})", highlight=False)
        return
    console.print(f"shrunk ({tried}{limit}):", highlight=False)
    console.print(Syntax(summary["shrunk_program"], "python", background_color="default"))
