"""`altlas submit`: resolve task and configuration here, have a coordinator elsewhere create the run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from altlas.cli.coordinator_client import Coordinator, NoAnswerError, command, open_coordinator
from altlas.cli.remote_watch import describe_tasks, run_watch, standing
from altlas.cli.train import LocalRun, load_named, make_local_run, run_label
from altlas.cli.watch import make_spec
from altlas.config.loader import load_config
from altlas.errors import ConfigError, TransientError
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas.tasks import pack_file
from altlas.transport.keys import RunKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitRequest:
    """What was asked on the command line."""

    task: str
    coordinator: str
    preset: str | None
    config_file: Path | None
    overrides: tuple[str, ...]
    name: str | None
    run_dir: str | None
    request_id: str | None
    is_watched: bool
    as_json: bool


def run_submit(request: SubmitRequest) -> int:
    """Create the run and print its name; with --watch, watch it to its end. Returns the exit code."""
    run = resolve_remote(request)
    request_id = request.request_id or uuid.uuid4().hex
    # Before the call: whoever interrupts it, or gets no answer, needs it to ask again.
    print(f"request id: {request_id}", file=sys.stderr, flush=True)
    created = asyncio.run(_create(request, run, request_id=request_id))
    run_id = created.spec.run_id
    if not request.as_json:
        _print_created(created, request, is_earlier=run_id != run.run_id)
    if request.is_watched:
        return run_watch(run_id, request.coordinator, config=run.config, is_quiet=False, is_json=request.as_json)
    if request.as_json:
        print(json.dumps({"request_id": request_id, **standing(created)}), flush=True)
    return 0


def resolve_remote(request: SubmitRequest) -> LocalRun:
    """Resolve task, configuration and vocabulary as `altlas train` does; no file or directory is made here.

    Raises:
        ConfigError: options, configuration or the run's name are wrong.
        TaskError: no such task, or it is wrong, or several cannot be learned in one run.
    """
    # The evaluators are elsewhere, and may run what this machine cannot.
    named = load_named(request.task, languages=None)
    config = load_config(
        preset=request.preset,
        pack_file=pack_file(named[0][0]),
        config_file=request.config_file,
        environ=os.environ,
        overrides=request.overrides,
    )
    run_id = request.name or f"{run_label(named)}-{uuid.uuid4().hex[:8]}"
    RunKeys(run_id)  # what no key of Redis may be called is refused here, before anything is sent
    # Not made absolute: it is the coordinator's host that knows from where.
    run_dir = Path(request.run_dir or f"{config.paths.runs}/{run_id}")
    return make_local_run(request.task, named, config, run_id=run_id, run_dir=run_dir, resume=False)


async def _create(request: SubmitRequest, run: LocalRun, *, request_id: str) -> coordinator_pb2.Run:
    async with open_coordinator(request.coordinator, run.config) as coordinator:
        if request.request_id is None and request.name is not None:
            await _refuse_taken_name(coordinator, request.name)
        spec = make_spec(run)
        try:
            created = await coordinator.create(spec, request_id=request_id)
        except NoAnswerError as error:
            if not error.is_sent:
                raise
            raise TransientError(
                f"{error}\nThe run may have been created all the same: the same command with --request-id {request_id} "
                "answers with it, or creates it once."
            ) from error
    _check_same_tasks(created.spec, spec, request_id=request_id)
    return created


async def _refuse_taken_name(coordinator: Coordinator, name: str) -> None:
    # A coordinator takes the name of an ended run again, and its files would go among those of the other.
    if name in [run.spec.run_id for run in await coordinator.runs()]:
        raise ConfigError(
            f"--name {name}: the coordinator at {coordinator.address} has a run of that name; choose another "
            "(or name the request with --request-id, if this repeats one)"
        )


def _check_same_tasks(made: common_pb2.RunSpec, asked: common_pb2.RunSpec, *, request_id: str) -> None:
    if (made.task_digest, [task.digest for task in made.further_tasks]) != (
        asked.task_digest,
        [task.digest for task in asked.further_tasks],
    ):
        raise ConfigError(
            f"--request-id {request_id} has made run {made.run_id} on {describe_tasks(made)}, not on what is asked "
            "for now: leave the option out to create another run"
        )


def _print_created(run: coordinator_pb2.Run, request: SubmitRequest, *, is_earlier: bool) -> None:
    facts = standing(run)
    console = Console(highlight=False, soft_wrap=True)
    verb = "was created by this request before" if is_earlier else "created"
    console.print(
        f"run [bold]{facts['run_id']}[/bold] {verb}: {facts['task']}, seed {facts['seed']}, "
        f"{facts['budget']:,} programs at most"
    )
    console.print(f"files on the coordinator's host: {facts['run_dir']}")
    if not request.is_watched:
        console.print(f"to watch it: {command(f'watch {run.spec.run_id}', request.coordinator)}")
