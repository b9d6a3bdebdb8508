"""`altlas train`: resolve, start the local roles, create or resume the run, watch it, report how it ended."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from altlas.checkpoint.run_directory import hold_run_dir, prepare_run_dir
from altlas.cli.local_stack import CONFIG_FILE, LocalStack
from altlas.config.loader import check_resumable, load_config, render_config_ini
from altlas.config.sections import Config
from altlas.core.grading import make_grading
from altlas.core.vocabulary import parse_vocabulary
from altlas.errors import CheckpointError, ConfigError
from altlas.obs.logs import configure_logging
from altlas.tasks import load_task, load_vocabulary_text, pack_file, with_task_defaults
from altlas_evaluator.languages.registry import task_languages

if TYPE_CHECKING:
    from rich.console import Console

EXIT_SOLVED, EXIT_FAILURE, EXIT_UNSOLVED, EXIT_INTERRUPTED = 0, 1, 3, 130
_RUN_FILE = "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What was asked on the command line."""

    task: str
    preset: str | None = None
    config_file: Path | None
    overrides: tuple[str, ...]
    run_dir: Path | None
    resume: bool
    overwrite: bool
    as_json: bool
    quiet: bool
    shrink: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRun:
    """A run that is ready to be created: everything a RunSpec holds."""

    run_id: str
    task_name: str
    task_text: str
    task_digest: str
    vocabulary_text: str
    config: Config
    run_dir: Path
    resume: bool


def run_training(request: TrainRequest) -> int:
    """Train, print the result, return the exit code."""
    run = resolve(request)
    configure_logging(role="train", level="warning", log_format=run.config.logging.format)
    with hold_run_dir(run.run_dir), LocalStack(run.config, run.run_dir) as stack:
        stack.start()
        # Only now: see local_stack on forks beside grpc's threads.
        from altlas.cli.watch import watch_run

        result = watch_run(run, stack, is_quiet=request.quiet, is_json=request.as_json)
        summary = result.summary
        if request.shrink and summary["verified"] and result.exit_code == EXIT_SOLVED:
            from altlas.cli.shrink import shrink_into

            shrink_into(summary, run, address=stack.addresses["evaluator-0"])
    if request.as_json:
        print(json.dumps(summary), flush=True)
    else:
        print_result(summary, run, is_quiet=request.quiet)
    return result.exit_code


def resolve(request: TrainRequest) -> LocalRun:
    """Resolve task, configuration and run directory, and write down what identifies the run.

    Raises:
        ConfigError: options or configuration are wrong, or a resume differs from the run in what may not change.
        TaskError: no such task, or it is wrong.
        CheckpointError: the run directory is in the way, or there is nothing to resume.
    """
    if request.resume and request.overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: the one keeps the run, the other deletes it")
    if request.resume and request.run_dir is None:
        raise ConfigError("--resume needs --run-dir DIR: the directory of the run to go on with")
    task, task_text = load_task(request.task, languages=task_languages())
    if request.resume and request.run_dir is not None:
        run_dir = prepare_run_dir(request.run_dir.absolute(), resume=True, overwrite=False)
        run_id = _read_run_id(run_dir)
        config = _resumed_config(request, run_dir)
    else:
        config = load_config(
            preset=request.preset,
            pack_file=pack_file(request.task),
            config_file=request.config_file,
            environ=os.environ,
            overrides=request.overrides,
        )
        run_dir = (request.run_dir or _fresh_directory(Path(config.paths.runs), task.name)).absolute()
        run_id = f"{task.name}-{uuid.uuid4().hex[:8]}"
    config = with_task_defaults(config, task)
    vocabulary_text = load_vocabulary_text(config.paths.vocabulary)
    parse_vocabulary(vocabulary_text, name=task.vocabulary, where=config.paths.vocabulary or "the shipped vocabulary")
    if not request.resume:
        prepare_run_dir(run_dir, resume=False, overwrite=request.overwrite)
    run = LocalRun(
        run_id=run_id,
        task_name=request.task,
        task_text=task_text,
        task_digest=make_grading(task_text, config.reward, where=request.task).digest,
        vocabulary_text=vocabulary_text,
        config=config,
        run_dir=run_dir,
        resume=request.resume,
    )
    document = {"run_id": run.run_id, "task": run.task_name, "task_digest": run.task_digest}
    (run_dir / _RUN_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (run_dir / CONFIG_FILE).write_text(render_config_ini(config), encoding="utf-8")
    return run


def print_result(summary: dict[str, Any], run: LocalRun, *, is_quiet: bool) -> None:
    """Print how a run ended, for a person."""
    from rich.console import Console
    from rich.syntax import Syntax

    console = Console()
    speed = (
        f"{summary['programs']:,} programs in {summary['seconds']:.1f} s ({summary['programs_per_second']:.0f} per s)"
    )
    if summary["stop_reason"] == "failed":
        console.print(f"[red]failed[/red] after {speed}: {summary['error']}", highlight=False)
    elif summary["verified"] and summary["stop_reason"] == "solved":
        console.print(f"[green]solved[/green] {summary['task']} after {speed}", highlight=False)
    else:
        console.print(
            f"[yellow]not solved[/yellow] ({summary['stop_reason']}), {speed}, "
            f"best reward {summary['best_reward']:.3f}",
            highlight=False,
        )
    if summary["best_program"]:
        console.print(Syntax(summary["best_program"], "python", background_color="default"))
    if summary["shrink_error"]:
        console.print(f"[yellow]not shrunk[/yellow]: {summary['shrink_error']}", highlight=False)
    elif summary["shrunk_program"] is not None:
        _print_shrunk(summary, console)
    if not is_quiet:
        console.print(f"run directory: {summary['run_dir']}", highlight=False)
        if summary["stop_reason"] not in ("solved", "failed"):
            console.print(f"to go on: altlas train {run.task_name} --resume --run-dir {run.run_dir}", highlight=False)
    sys.stdout.flush()


def _print_shrunk(summary: dict[str, Any], console: Console) -> None:
    from rich.syntax import Syntax

    tried = f"{summary['shrink_programs']:,} programs tried"
    limit = "" if summary["shrunk_is_minimal"] else "; as many as may be, more may still be left out"
    if summary["shrunk_program"] == summary["best_program"]:
        console.print(f"nothing can be left out of it ({tried}{limit})", highlight=False)
        return
    console.print(f"shrunk ({tried}{limit}):", highlight=False)
    console.print(Syntax(summary["shrunk_program"], "python", background_color="default"))


def _fresh_directory(root: Path, name: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    candidate, number = root / f"{name}-{stamp}", 1
    while candidate.exists():
        number += 1
        candidate = root / f"{name}-{stamp}-{number}"
    return candidate


def _resumed_config(request: TrainRequest, run_dir: Path) -> Config:
    # The run's own configuration is the base: config.ini and the environment may have changed since it started.
    stored = load_config(config_file=run_dir / CONFIG_FILE, environ={}, overrides=[])
    for option, given in (("--config", request.config_file), ("--preset", request.preset)):
        if given is not None:
            raise ConfigError(f"{option} cannot be given with --resume: the run goes on with {run_dir / CONFIG_FILE}")
    config = load_config(config_file=run_dir / CONFIG_FILE, environ={}, overrides=request.overrides)
    check_resumable(stored, config)
    return config


def _read_run_id(run_dir: Path) -> str:
    path = run_dir / _RUN_FILE
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["run_id"])
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{run_dir} holds no run to resume ({_RUN_FILE} is not there): check --run-dir"
        ) from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}: the run cannot be resumed from here") from error
