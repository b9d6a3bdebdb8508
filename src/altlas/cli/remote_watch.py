"""`altlas watch`: the live view of a run that a coordinator elsewhere drives, over broken connections, to its end.

Invariant: watching changes nothing: neither Ctrl-C nor an error here touches the run.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from altlas.cli.coordinator_client import Coordinator, command, has_ended, open_coordinator, stop_reason
from altlas.cli.ending import print_outcome
from altlas.cli.live import RunView
from altlas.cli.train import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_SOLVED, EXIT_UNSOLVED, LocalRun, RunTask
from altlas.cli.watch import NOT_SHRUNK, task_summaries
from altlas.config.loader import config_from_json
from altlas.config.sections import Config
from altlas.errors import ProtocolError, TransientError
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas.rpc.tasks import parse_tasks, task_specs

# A stream is opened anew after this long: what broke silently is noticed, and a run asked about that sends nothing.
_STREAM_S = 30.0
_RETRY_S = 0.5


def run_watch(run_id: str, address: str, *, config: Config, is_quiet: bool, is_json: bool) -> int:
    """Watch a run to its end, print how it ended, return the exit code.

    Raises:
        ProtocolError: the coordinator has no such run.
        TransientError: no coordinator answers.
    """
    try:
        run = asyncio.run(_watch(run_id, address, config=config, is_quiet=is_quiet, is_json=is_json))
    except asyncio.CancelledError:
        _say_that_it_goes_on(run_id, address)
        return EXIT_INTERRUPTED
    summary = summarize(run)
    if is_json:
        print(json.dumps(summary), flush=True)
    else:
        print_outcome(summary)
        if not is_quiet:
            text = f"files on the coordinator's host: {summary['run_dir']}"
            Console().print(text, highlight=False, soft_wrap=True)
    return exit_code(run)


def exit_code(run: coordinator_pb2.Run) -> int:
    """Return the exit code for a run that has ended; a run that was stopped counts by what it had solved."""
    if run.state == coordinator_pb2.RUN_STATE_FAILED:
        return EXIT_FAILURE
    return EXIT_SOLVED if run.progress.verified else EXIT_UNSOLVED


def describe_tasks(spec: common_pb2.RunSpec) -> str:
    """Return a run's task, or the first of several and how many more there are."""
    further = len(spec.further_tasks)
    return f"{spec.task_name} and {further} more" if further else spec.task_name


def standing(run: coordinator_pb2.Run) -> dict[str, Any]:
    """Return what --json says of a run that may go on still; best program and reward only where it has one task."""
    progress, settings = run.progress, json.loads(run.spec.config_json)["run"]
    is_known = bool(progress.update) and not run.spec.further_tasks
    return {
        "run_id": run.spec.run_id,
        "task": describe_tasks(run.spec),
        "state": coordinator_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_").lower(),
        "stop_reason": stop_reason(run) or None,
        "error": run.error or None,
        "updates": progress.update,
        "programs": progress.programs,
        "budget": progress.budget or settings["budget"],
        "best_reward": progress.best_reward if is_known else None,
        "best_program": progress.best_program if is_known else "",
        "solved": progress.solved,
        "verified": progress.verified,
        "seconds": round(progress.seconds, 3),
        "seed": settings["seed"],
        "run_dir": run.spec.run_dir,
        "checkpoint": run.checkpoint or None,
        "policy_sha256": run.policy_sha256 or None,
        "tasks": [
            {
                "task": task.name,
                "solved": task.solved,
                "verified": task.verified,
                "programs": task.programs,
                "best_reward": task.best_reward if task.HasField("best_reward") else None,
                "best_program": task.best_program,
            }
            for task in list(progress.tasks)
            or [coordinator_pb2.TaskProgress(name=task.name) for task in task_specs(run.spec)]
        ],
    }


def summarize(run: coordinator_pb2.Run) -> dict[str, Any]:
    """Return what --json says of a run that has ended: what `altlas train` says, and its id.

    Programs to the first solution of all of several tasks stand only in the run's own files: None here.

    Raises:
        AltlasError: its tasks or configuration are of another version.
    """
    known = _as_local(run.spec)
    tasks = task_summaries(known, run.progress)
    is_alone = len(tasks) == 1
    progress = run.progress
    return {
        **standing(run),
        "unique_programs": progress.unique_programs,
        "evaluated_programs": progress.evaluated_programs,
        "programs_per_second": round(progress.programs / progress.seconds, 1) if progress.seconds else 0.0,
        "best_reward": progress.best_reward if is_alone else None,
        "programs_to_solve": tasks[0]["programs_to_solve"] if is_alone else None,
        "programs_to_verify": tasks[0]["programs_to_verify"] if is_alone else None,
        "controls": tasks[0]["controls"] if is_alone else {},
        **NOT_SHRUNK,
        "tasks": tasks,
    }


async def follow(coordinator: Coordinator, run: coordinator_pb2.Run, *, view: RunView | None) -> coordinator_pb2.Run:
    """Follow a run until it has ended and return it; waits for a coordinator that goes away meanwhile.

    Raises:
        ProtocolError: the coordinator came back without the run.
    """
    return await _Follower(coordinator, run, view).to_the_end()


class _Follower:
    def __init__(self, coordinator: Coordinator, run: coordinator_pb2.Run, view: RunView | None) -> None:
        self._coordinator = coordinator
        self._run = run
        self._view = view
        self._sequence = 0
        self._is_paused = False

    async def to_the_end(self) -> coordinator_pb2.Run:
        while not has_ended(self._run):
            self._show(coordinator_pb2.RunEvent(state=self._run.state, progress=self._run.progress))
            before, update = self._sequence, self._run.progress.update
            await self._stream(from_update=update)
            if self._sequence == before:
                await asyncio.sleep(_RETRY_S)
            await self._ask()
            if self._sequence == before and self._run.progress.update > update:
                # It goes on and nothing came: the events of a coordinator that was started anew have lower numbers.
                self._sequence = 0
        return self._run

    async def _stream(self, *, from_update: int) -> None:
        """Show what comes until the stream ends or breaks. Events from before are passed over."""
        is_old = True
        try:
            async for event in self._coordinator.events(
                self._run.spec.run_id, after_sequence=self._sequence, timeout_s=_STREAM_S
            ):
                self._sequence = event.sequence
                is_old = is_old and event.progress.update < from_update
                if not is_old:
                    self._show(event)
        except TransientError:
            return  # whether it is away, or only the stream broke, the next question shows

    async def _ask(self) -> None:
        lost_at = time.monotonic()
        is_waiting = False
        while True:
            try:
                self._run = await self._coordinator.run(self._run.spec.run_id)
                break
            except TransientError:
                if not is_waiting:
                    self._say(f"waiting for the coordinator at {self._coordinator.address} ...")
                is_waiting = True
                await asyncio.sleep(_RETRY_S)
            except ProtocolError as error:
                raise ProtocolError(f"the coordinator was started anew and has lost the run: {error}") from error
        if is_waiting:
            self._say(f"resumed after {time.monotonic() - lost_at:.0f} s")

    def _show(self, event: coordinator_pb2.RunEvent) -> None:
        if self._view is None:
            return
        is_paused = event.state == coordinator_pb2.RUN_STATE_PAUSED
        if is_paused and not self._is_paused:
            resume = command(f"runs resume {self._run.spec.run_id}", self._coordinator.address)
            self._say(f"paused; to let it go on: {resume}")
        elif self._is_paused and not is_paused:
            self._say("the run goes on")
        elif event.message and event.state == coordinator_pb2.RUN_STATE_RUNNING:
            self._say(event.message)  # that nothing moves, or that it went back to a checkpoint
        self._is_paused = is_paused
        self._view.show(event.progress)

    def _say(self, note: str) -> None:
        if self._view is not None:
            self._view.say(note)
        else:
            print(note, file=sys.stderr, flush=True)


async def _watch(run_id: str, address: str, *, config: Config, is_quiet: bool, is_json: bool) -> coordinator_pb2.Run:
    _cancel_when_interrupted(asyncio.current_task())
    async with open_coordinator(address, config) as coordinator:
        run = await coordinator.run(run_id)
        seed = config_from_json(run.spec.config_json).run.seed
        headline = f"watching {run_id} on {address}: {describe_tasks(run.spec)}, seed {seed}"
        with RunView(headline, is_quiet=is_quiet, is_json=is_json) as view:
            return await follow(coordinator, run, view=view)


def _cancel_when_interrupted(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _as_local(spec: common_pb2.RunSpec) -> LocalRun:
    """Return a spec's run as `altlas train` holds its own."""
    return LocalRun(
        run_id=spec.run_id,
        task_name=describe_tasks(spec),
        tasks=tuple(
            RunTask(name=item.name, text=item.toml, digest=item.digest, task=task)
            for item, task in zip(task_specs(spec), parse_tasks(spec), strict=True)
        ),
        vocabulary_text=spec.vocabulary_json,
        config=config_from_json(spec.config_json),
        run_dir=Path(spec.run_dir),
        resume=False,
    )


def _say_that_it_goes_on(run_id: str, address: str) -> None:
    print(
        f"stopped watching; the run goes on.\n"
        f"to watch it again: {command(f'watch {run_id}', address)}\n"
        f"to end it: {command(f'runs stop {run_id}', address)}",
        file=sys.stderr,
        flush=True,
    )
