"""`altlas runs`: what a coordinator has, and a word to one of its runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from altlas.cli.coordinator_client import Coordinator, command, has_ended, open_coordinator, stop_reason
from altlas.cli.remote_watch import follow, standing
from altlas.config.sections import Config
from altlas.errors import AltlasError
from altlas.rpc.coordinator.v1 import coordinator_pb2

T = TypeVar("T")
_COLOURS = {"running": "cyan", "paused": "yellow", "failed": "red", "solved": "green"}
# Of output that goes elsewhere: nothing is cut or folded that another program is to read.
_PIPE_COLUMNS = 300
# What a person reads for a run that has ended, by its stop reason.
_ENDINGS = {
    "solved": "solved",
    "budget": "budget spent",
    "wall_clock": "time is up",
    "stuck": "stuck",
    "requested": "stopped",
    "unspecified": "ended",
}


def list_runs(address: str, *, config: Config, is_json: bool) -> None:
    """Print every run of a coordinator: a table, or {"runs": [...]}."""
    runs = [standing(run) for run in _ask(address, config, lambda coordinator: coordinator.runs())]
    if is_json:
        print(json.dumps({"runs": runs}), flush=True)
    elif runs:
        _wide_console().print(_table(runs))
    else:
        print(f"no runs at {address} yet; to start one: {command('submit basics/hello_world', address)}")


def show_run(run_id: str, address: str, *, config: Config, is_json: bool) -> None:
    """Print one run."""
    facts = standing(_ask(address, config, lambda coordinator: coordinator.run(run_id)))
    if is_json:
        print(json.dumps(facts), flush=True)
        return
    console = _wide_console()
    console.print(_facts(facts))
    if len(facts["tasks"]) > 1:
        console.print(_tasks_table(facts))
    elif facts["best_program"]:
        console.print("[bold]best program[/bold]")
        console.print(Syntax(facts["best_program"], "python", background_color="default"))


def pause_run(run_id: str, address: str, *, config: Config) -> None:
    """Hold a run before its next update.

    Raises:
        AltlasError: it has ended.
    """

    async def pause(coordinator: Coordinator) -> None:
        await _require_under_way(coordinator, run_id, "pause")
        await coordinator.pause(run_id)

    _ask(address, config, pause)
    print(f"{run_id} is paused before its next update; to let it go on: {command(f'runs resume {run_id}', address)}")


def resume_run(run_id: str, address: str, *, config: Config) -> None:
    """Let a paused run go on.

    Raises:
        AltlasError: it has ended.
    """

    async def resume(coordinator: Coordinator) -> None:
        await _require_under_way(coordinator, run_id, "resume")
        await coordinator.resume(run_id)

    _ask(address, config, resume)
    print(f"{run_id} goes on; to watch it: {command(f'watch {run_id}', address)}")


def stop_run(run_id: str, address: str, *, config: Config, is_awaited: bool) -> None:
    """End a run after the update in progress; one that has ended is left as it is.

    Raises:
        AltlasError: it failed while it was waited for.
    """

    async def stop(coordinator: Coordinator) -> coordinator_pb2.Run | None:
        run = await coordinator.run(run_id)
        if has_ended(run):
            print(f"{run_id} has ended already ({stop_reason(run)})")
            return None
        await coordinator.stop(run_id)
        if not is_awaited:
            print(f"{run_id} ends after the update in progress")
            return None
        return await follow(coordinator, run, view=None)

    run = _ask(address, config, stop)
    if run is None:
        return
    if run.state == coordinator_pb2.RUN_STATE_FAILED:
        raise AltlasError(f"{run_id} failed before it could be stopped: {run.error}")
    print(f"{run_id} has ended ({stop_reason(run)}) after {run.progress.programs:,} programs")
    print(f"checkpoint on the coordinator's host: {run.checkpoint}")


async def _require_under_way(coordinator: Coordinator, run_id: str, verb: str) -> None:
    run = await coordinator.run(run_id)
    if has_ended(run):
        raise AltlasError(
            f"cannot {verb} {run_id}: it has ended ({stop_reason(run)}); "
            f"`{command(f'runs show {run_id}', coordinator.address)}` shows how"
        )


def _ask(address: str, config: Config, question: Callable[[Coordinator], Awaitable[T]]) -> T:
    async def ask() -> T:
        async with open_coordinator(address, config) as coordinator:
            return await question(coordinator)

    return asyncio.run(ask())


def _wide_console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    return console


def _table(runs: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("run", no_wrap=True)
    table.add_column("task", overflow="fold")
    table.add_column("state", no_wrap=True)
    for name in ("programs", "of", "best"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("solved", no_wrap=True)
    for run in runs:
        table.add_row(
            Text(run["run_id"]),
            Text(run["task"]),
            _state(run),
            f"{run['programs']:,}",
            f"{run['budget']:,}",
            _reward(run["best_reward"]),
            _solved(run),
        )
    return table


def _facts(run: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("run", Text(run["run_id"], style="bold"))
    table.add_row("task", Text(run["task"]))
    table.add_row("state", _state(run))
    if run["error"]:
        table.add_row("error", Text(run["error"]))
    table.add_row("programs", f"{run['programs']:,} of {run['budget']:,}, {run['updates']:,} updates")
    if len(run["tasks"]) == 1:
        table.add_row("best reward", _reward(run["best_reward"]))
    table.add_row("solved", _solved(run))
    table.add_row("time", f"{run['seconds']:.0f} s")
    table.add_row("seed", str(run["seed"]))
    for name, key in (("directory", "run_dir"), ("checkpoint", "checkpoint"), ("weights", "policy_sha256")):
        if run[key]:
            table.add_row(name, Text(run[key], overflow="fold"))
    return table


def _tasks_table(run: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("task", no_wrap=True)
    for name in ("programs", "best reward"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("solved", no_wrap=True)
    table.add_column("best program", overflow="fold")
    for task in run["tasks"]:
        solved = "verified" if task["verified"] else "yes" if task["solved"] else "no"
        table.add_row(
            Text(task["task"]),
            f"{task['programs']:,}",
            _reward(task["best_reward"]),
            solved,
            Text(task["best_program"]),
        )
    return table


def _state(run: dict[str, Any]) -> Text:
    text = _ENDINGS[run["stop_reason"]] if run["state"] == "finished" else run["state"]
    return Text(text, style=_COLOURS.get(text, ""))


def _reward(reward: float | None) -> str:
    return "-" if reward is None else f"{reward:.3f}"


def _solved(run: dict[str, Any]) -> str:
    if len(run["tasks"]) > 1:
        return f"{sum(task['verified'] for task in run['tasks'])} of {len(run['tasks'])}"
    return "verified" if run["verified"] else "cases only" if run["solved"] else "no"
