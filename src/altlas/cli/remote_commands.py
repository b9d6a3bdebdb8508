"""`altlas submit`, `altlas watch` and `altlas runs`: arguments only. What they do is imported when one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from altlas.config.sections import Config

DEFAULT_COORDINATOR = "127.0.0.1:50051"

runs_app = typer.Typer(help="The runs of a coordinator: list, show, pause, resume, stop.", no_args_is_help=True)

CoordinatorOption = Annotated[
    str,
    typer.Option("--coordinator", metavar="HOST:PORT", envvar="ALTLAS_COORDINATOR", help="Or unix:PATH."),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, as altlas runs list shows it.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="A configuration file over the shipped config.ini.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one key; may be given often.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


def submit(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK", help="A task, a pack such as basics, or several of them with commas between, for one run."
        ),
    ],
    coordinator: CoordinatorOption = DEFAULT_COORDINATOR,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.", show_default=False)] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="PROGRAMS", help="Stop after this many programs.", show_default=False)
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="What the run is called; default: the task's name and some letters.", show_default=False),
    ] = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Where coordinator and trainer leave the run's files, on their host; default: paths.runs/NAME.",
            show_default=False,
        ),
    ] = None,
    request_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Of an earlier try whose answer was lost: answers with the run that it made, if it made one.",
            show_default=False,
        ),
    ] = None,
    is_watched: Annotated[bool, typer.Option("--watch", help="Go on as altlas watch does.")] = False,
    as_json: JsonOption = False,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Published settings, such as paper-pqt, under --config.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Start a run on a coordinator that is up already, here or elsewhere.

    Task and configuration are resolved here, as altlas train does, and sent along: the coordinator needs no copy of
    either. Exit codes: 0 the run was created, 2 usage or configuration, 1 failure; with --watch those of altlas watch.
    """
    from altlas.cli.submit import SubmitRequest, run_submit

    given = {"run.seed": seed, "run.budget": budget}
    request = SubmitRequest(
        task=task,
        coordinator=coordinator,
        preset=preset,
        config_file=config,
        overrides=(*(set_ or []), *(f"{key}={value}" for key, value in given.items() if value is not None)),
        name=name,
        run_dir=run_dir,
        request_id=request_id,
        is_watched=is_watched,
        as_json=as_json,
    )
    raise typer.Exit(run_submit(request))


def watch(
    run: RunArgument,
    coordinator: CoordinatorOption = DEFAULT_COORDINATOR,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Watch a run until it ends. Ctrl-C ends the watching, not the run.

    When the connection breaks it waits for the coordinator and goes on after the last update that it showed.
    Exit codes: 0 all solved, 3 ended unsolved, 1 failure, 2 usage or configuration, 130 interrupted.
    """
    from altlas.cli.remote_watch import run_watch

    settings = _load(config, set_)
    raise typer.Exit(run_watch(run, coordinator, config=settings, is_quiet=quiet, is_json=as_json))


@runs_app.command("list")
def runs_list(
    coordinator: CoordinatorOption = DEFAULT_COORDINATOR,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """List the runs that the coordinator knows."""
    from altlas.cli.remote_runs import list_runs

    list_runs(coordinator, config=_load(config, set_), is_json=as_json)


@runs_app.command("show")
def runs_show(
    run: RunArgument,
    coordinator: CoordinatorOption = DEFAULT_COORDINATOR,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Show where one run stands: its tasks, best program, directory and how it ended."""
    from altlas.cli.remote_runs import show_run

    show_run(run, coordinator, config=_load(config, set_), is_json=as_json)


@runs_app.command("pause")
def runs_pause(
    run: RunArgument,
    coordinator: CoordinatorOption = DEFAULT_COORDINATOR,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Hold a run before its next update."""
    from altlas.cli.remote_runs import pause_run

    pause_run(run, coordinator, config=_load(config, set_))


@runs_app.command("resume")
def runs_resume(
    run: RunArgument,
    coordinator: CoordinatorOption = DEFAULT_COORDINATOR,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Let a paused run go on."""
    from altlas.cli.remote_runs import resume_run

    resume_run(run, coordinator, config=_load(config, set_))


@runs_app.command("stop")
def runs_stop(
    run: RunArgument,
    coordinator: CoordinatorOption = DEFAULT_COORDINATOR,
    is_awaited: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return when the run has ended and its checkpoint is written.")
    ] = True,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """End a run after the update in progress, with a checkpoint."""
    from altlas.cli.remote_runs import stop_run

    stop_run(run, coordinator, config=_load(config, set_), is_awaited=is_awaited)


def _load(config_file: Path | None, overrides: list[str] | None) -> Config:
    import os

    from altlas.config.loader import load_config

    return load_config(config_file=config_file, environ=os.environ, overrides=overrides or [])
