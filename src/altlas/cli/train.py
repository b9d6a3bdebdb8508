"""`altlas train`: resolve, start the local roles, create or resume the run, watch it, report how it ended."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altlas.checkpoint.run_directory import hold_run_dir, prepare_run_dir
from altlas.cli.local_stack import CONFIG_FILE, LocalStack
from altlas.config.loader import check_resumable, load_config, render_config_ini
from altlas.config.sections import Config
from altlas.core.curriculum import check_alike
from altlas.core.grading import make_grading
from altlas.core.task import Task
from altlas.core.vocabulary import parse_vocabulary
from altlas.errors import CheckpointError, ConfigError
from altlas.obs.logs import configure_logging
from altlas.obs.run_files import file_labels
from altlas.tasks import expand_references, load_task, load_vocabulary_text, pack_file, with_task_defaults
from altlas_evaluator.languages.registry import task_languages

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
class RunTask:
    """A task of a run, the TOML text it was parsed from, and its digest with the run's reward settings."""

    name: str
    text: str
    digest: str
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRun:
    """A run that is ready to be created: everything a RunSpec holds. `task_name` is as it was asked for."""

    run_id: str
    task_name: str
    tasks: tuple[RunTask, ...]
    vocabulary_text: str
    config: Config
    run_dir: Path
    resume: bool

    @property
    def file_labels(self) -> list[str]:
        """What the names of each task's files hold, by position."""
        return file_labels([task.name for task in self.tasks])


def run_training(request: TrainRequest) -> int:
    """Train, print the result, return the exit code."""
    run = resolve(request)
    configure_logging(role="train", level="warning", log_format=run.config.logging.format)
    with hold_run_dir(run.run_dir), LocalStack(run.config, run.run_dir) as stack:
        stack.start()
        # Only now: see local_stack on forks beside grpc's threads.
        from altlas.cli.ending import print_result
        from altlas.cli.watch import watch_run

        result = watch_run(run, stack, is_quiet=request.quiet, is_json=request.as_json)
        summary = result.summary
        if request.shrink and result.exit_code in (EXIT_SOLVED, EXIT_UNSOLVED):
            _shrink(summary, run, address=stack.addresses["evaluator-0"])
    if request.as_json:
        print(json.dumps(summary), flush=True)
    else:
        print_result(summary, run, is_quiet=request.quiet)
    return result.exit_code


def _shrink(summary: dict[str, Any], run: LocalRun, *, address: str) -> None:
    """Shrink the program of every verified task; a task alone has what is left in the summary itself too."""
    from altlas.cli.shrink import shrink_into

    for position, task in enumerate(summary["tasks"]):
        if task["verified"]:
            shrink_into(task, run, address=address, task=position)
    if len(run.tasks) == 1:
        summary |= {key: value for key, value in summary["tasks"][0].items() if key.startswith("shr")}


def resolve(request: TrainRequest) -> LocalRun:
    """Resolve task, configuration and run directory, and write down what identifies the run.

    Raises:
        ConfigError: options or configuration are wrong, or a resume differs from the run in what may not change.
        TaskError: no such task, or it is wrong, or several cannot be learned in one run.
        CheckpointError: the run directory is in the way, or there is nothing to resume.
    """
    if request.resume and request.overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: the one keeps the run, the other deletes it")
    if request.resume and request.run_dir is None:
        raise ConfigError("--resume needs --run-dir DIR: the directory of the run to go on with")
    named = load_named(request.task, languages=task_languages())
    label = run_label(named)
    if request.resume and request.run_dir is not None:
        run_dir = prepare_run_dir(request.run_dir.absolute(), resume=True, overwrite=False)
        run_id = _read_run_id(run_dir)
        config = _resumed_config(request, run_dir)
    else:
        config = load_config(
            preset=request.preset,
            pack_file=pack_file(named[0][0]),
            config_file=request.config_file,
            environ=os.environ,
            overrides=request.overrides,
        )
        run_dir = (request.run_dir or _fresh_directory(Path(config.paths.runs), label)).absolute()
        run_id = f"{label}-{uuid.uuid4().hex[:8]}"
    run = make_local_run(request.task, named, config, run_id=run_id, run_dir=run_dir, resume=request.resume)
    if not request.resume:
        prepare_run_dir(run_dir, resume=False, overwrite=request.overwrite)
    document = {
        "run_id": run.run_id,
        "task": run.task_name,
        "task_digest": run.tasks[0].digest,
        "further_task_digests": [task.digest for task in run.tasks[1:]],
    }
    (run_dir / _RUN_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (run_dir / CONFIG_FILE).write_text(render_config_ini(run.config), encoding="utf-8")
    return run


def load_named(task: str, *, languages: Collection[str] | None) -> list[tuple[str, Task, str]]:
    """Return name, task and TOML text of everything that was asked for.

    Args:
        task: as on the command line.
        languages: those that programs can be run in; None where that is not known here.

    Raises:
        TaskError: no such task, or it is wrong, or several cannot be learned in one run.
    """
    names = expand_references(task)
    loaded = [load_task(name, languages=languages) for name in names]
    check_alike(names, [found for found, _ in loaded])
    return [(name, found, text) for name, (found, text) in zip(names, loaded, strict=True)]


def run_label(named: Sequence[tuple[str, Task, str]]) -> str:
    """Return what a run's id begins with."""
    return named[0][1].name if len(named) == 1 else "curriculum"


def make_local_run(
    task: str, named: Sequence[tuple[str, Task, str]], config: Config, *, run_id: str, run_dir: Path, resume: bool
) -> LocalRun:
    """Return a run of these tasks, with what they leave to the configuration and the other way round resolved.

    Raises:
        ConfigError: the configuration does not fit the tasks.
        VocabularyError: the vocabulary is missing or wrong.
    """
    config = with_task_defaults(config, *(found for _, found, _ in named))
    vocabulary_text = load_vocabulary_text(config.paths.vocabulary)
    parse_vocabulary(
        vocabulary_text, name=named[0][1].vocabulary, where=config.paths.vocabulary or "the shipped vocabulary"
    )
    return LocalRun(
        run_id=run_id,
        task_name=task,
        tasks=tuple(
            RunTask(name=name, text=text, digest=make_grading(text, config.reward, where=name).digest, task=found)
            for name, found, text in named
        ),
        vocabulary_text=vocabulary_text,
        config=config,
        run_dir=run_dir,
        resume=resume,
    )


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
