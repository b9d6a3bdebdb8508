"""The `altlas` command. Heavy libraries are imported inside the commands, so that --help and completion stay quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from altlas import __version__
from altlas.cli.remote_commands import runs_app, submit, watch
from altlas.errors import AltlasError, CheckpointError, ConfigError, TaskError, VocabularyError

EXIT_FAILURE, EXIT_USAGE = 1, 2

app = typer.Typer(
    name="altlas",
    help="Learns to write programs from nothing but execution feedback.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tasks_app = typer.Typer(help="List, show and check tasks.", no_args_is_help=True)
serve_app = typer.Typer(help="Run one role as a server until SIGTERM.", no_args_is_help=True)
app.add_typer(tasks_app, name="tasks")
bench_app = typer.Typer(help="Compare algorithms.", no_args_is_help=True)
app.add_typer(serve_app, name="serve")
app.add_typer(bench_app, name="bench")
app.add_typer(runs_app, name="runs")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="A configuration file over the shipped config.ini.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one key; may be given often.", show_default=False),
]
TaskArgument = Annotated[
    str, typer.Argument(metavar="TASK", help="pack/name, such as basics/hello_world, or the path of a task file.")
]
TasksArgument = Annotated[
    str,
    typer.Argument(
        metavar="TASK", help="A task, a pack such as basics, or several of them with commas between, for one run."
    ),
]
RedisOption = Annotated[str | None, typer.Option("--redis-url", help="A server of your own.", show_default=False)]
ListenOption = Annotated[str, typer.Option(help="HOST:PORT or unix:PATH; port 0 takes a free one.")]
MetricsOption = Annotated[
    int | None, typer.Option(help="Serve /metrics, /healthz and /readyz on this port.", show_default=False)
]
ParentOption = Annotated[int | None, typer.Option("--exit-with", hidden=True)]


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"altlas {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Learns to write programs from nothing but execution feedback."""


@app.command()
def train(
    task: TasksArgument,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.", show_default=False)] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="PROGRAMS", help="Stop after this many programs.", show_default=False)
    ] = None,
    wall_clock: Annotated[
        float | None, typer.Option(metavar="S", help="Stop after this many seconds.", show_default=False)
    ] = None,
    evaluators: Annotated[int | None, typer.Option(help="Evaluator processes.", show_default=False)] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Where the run leaves its files; default: a new one in runs/.", show_default=False),
    ] = None,
    redis_url: RedisOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --run-dir.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --run-dir.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")] = False,
    shrink: Annotated[
        bool, typer.Option("--shrink/--no-shrink", help="Leave out what the solution does not need.")
    ] = True,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Published settings, such as paper-pqt, under --config.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Train on a task, or on several in one run, until a program solves each, with every role as a local process.

    Exit codes: 0 all solved, 3 budget spent unsolved, 2 usage or configuration, 1 failure, 130 interrupted.
    """
    from altlas.cli.train import TrainRequest, run_training

    given = {"run.seed": seed, "run.budget": budget, "run.wall_clock_s": wall_clock, "run.evaluators": evaluators}
    overrides = [*(set_ or []), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    if redis_url is not None:
        overrides.append(f"transport.redis_url={redis_url}")
    request = TrainRequest(
        task=task,
        preset=preset,
        config_file=config,
        overrides=tuple(overrides),
        run_dir=run_dir,
        resume=resume,
        overwrite=overwrite,
        as_json=as_json,
        quiet=quiet,
        shrink=shrink,
    )
    raise typer.Exit(run_training(request))


app.command()(submit)
app.command()(watch)


KillsOption = Annotated[int, typer.Option(min=1, help="How often something is killed.")]
DrillSeedOption = Annotated[int, typer.Option(help="Seed of the run, and of what is killed when.")]
DrillBudgetOption = Annotated[
    int | None, typer.Option(metavar="PROGRAMS", help="Of each run; default: enough for the kills.", show_default=False)
]
DrillJsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command()
def chaos(
    task: TasksArgument,
    kills: KillsOption = 20,
    seed: DrillSeedOption = 1,
    budget: DrillBudgetOption = None,
    as_json: DrillJsonOption = False,
    set_: SetOption = None,
) -> None:
    """Kill random roles and Redis during a run, and compare its end with that of a run that is left alone.

    Exit codes: 0 nothing lost, nothing twice, the same policy to the last bit; 1 anything else.
    """
    from altlas.cli.drills import DrillRequest, run_chaos

    raise typer.Exit(run_chaos(DrillRequest(task, kills, seed, budget or 0, tuple(set_ or []), as_json)))


@app.command("verify-resume")
def verify_resume(
    task: TasksArgument,
    kills: KillsOption = 3,
    seed: DrillSeedOption = 1,
    budget: DrillBudgetOption = None,
    as_json: DrillJsonOption = False,
    set_: SetOption = None,
) -> None:
    """Kill whole runs and resume them, and compare the end with that of a run that is left alone.

    Exit codes: 0 nothing lost, nothing twice, the same policy to the last bit; 1 anything else.
    """
    from altlas.cli.drills import DrillRequest, run_verify_resume

    raise typer.Exit(run_verify_resume(DrillRequest(task, kills, seed, budget or 0, tuple(set_ or []), as_json)))


@app.command()
def execute(
    language: Annotated[str, typer.Option(help="Language of records that name none.")] = "python",
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Run programs: JSON lines {id, source, stdin?, limits?} in, one result line each out, in the same order.

    Of brainf: {id, source, input?, base?, max_steps?, require_correct_syntax?}.
    """
    from altlas.cli.evaluate import run_execute

    raise typer.Exit(run_execute(language=language, config_file=config, overrides=set_ or []))


@app.command()
def score(
    task: Annotated[str, typer.Option("--task", metavar="TASK", help="pack/name or the path of a task file.")],
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Run and score programs on a task: JSON lines {id, source} in, one scored line each out, in the same order."""
    from altlas.cli.evaluate import run_score

    raise typer.Exit(run_score(task=task, config_file=config, overrides=set_ or []))


@app.command()
def certs(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")],
    hosts: Annotated[
        str, typer.Option(metavar="HOST,HOST", help="Names and addresses of the machines, besides this one's own.")
    ] = "",
    days: Annotated[int, typer.Option(help="For how long the certificates hold.")] = 365,
) -> None:
    """Make a development authority and a certificate for each role, for security.tls_ca, tls_cert and tls_key."""
    from altlas.cli.certs import make_certs

    for path in make_certs(directory, hosts=[host for host in hosts.split(",") if host], days=days):
        typer.echo(str(path))


@app.command()
def model(task: TaskArgument = "basics/hello_world", config: ConfigOption = None, set_: SetOption = None) -> None:
    """Print a summary of the policy network for a task's vocabulary."""
    from altlas.cli.inspect import print_model

    print_model(task=task, config_file=config, overrides=set_ or [])


@app.command()
def doctor(
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what works here: Python, torch, device, Redis and its durability, sandbox layers."""
    from altlas.cli.inspect import run_doctor

    raise typer.Exit(run_doctor(config_file=config, overrides=set_ or [], as_json=as_json))


@app.command()
def health(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Or unix:PATH.")],
    timeout: Annotated[float, typer.Option(metavar="S", min=0.1, help="How long to wait for the answer.")] = 3.0,
) -> None:
    """Ask a role's gRPC health service whether it serves: the health check of containers.

    Exit codes: 0 it serves, 1 it does not, or not yet, or nobody answers, 2 usage or configuration.
    """
    from altlas.rpc.health import check_health

    raise typer.Exit(check_health(address, timeout_s=timeout))


@tasks_app.command("list")
def tasks_list() -> None:
    """List the built-in tasks."""
    from altlas.cli.tasks import list_all

    list_all()


@tasks_app.command("show")
def tasks_show(task: TaskArgument) -> None:
    """Print a task: what is asked, its cases, its reference solution."""
    from altlas.cli.tasks import show

    show(task)


@tasks_app.command("check")
def tasks_check(
    tasks: Annotated[list[str] | None, typer.Argument(metavar="[TASK]...", help="Tasks; none checks all.")] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Prove that a task's reference solves it and that empty and constant programs do not."""
    from altlas.cli.tasks import check

    raise typer.Exit(check(tasks or [], config_file=config, overrides=set_ or []))


@bench_app.command("learning")
def bench_learning(
    name: Annotated[str, typer.Option(help="Names the files: NAME.csv, NAME.md, NAME.svg.")],
    pack: Annotated[str | None, typer.Option(help="Every task of a pack, such as brainf.", show_default=False)] = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="TASK,TASK", help="These tasks instead.", show_default=False)
    ] = None,
    algorithms: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Values of algorithm.name, or presets; with settings of its own: LABEL=NAME:section.key=value;...",
        ),
    ] = "policy",
    seeds: Annotated[str, typer.Option(metavar="N | S,S", help="N for seeds 1 to N, or these seeds.")] = "5",
    budget: Annotated[
        int | None,
        typer.Option(metavar="PROGRAMS", min=1, help="Of each run; default: the task's.", show_default=False),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; default: one per core.")] = None,
    out: Annotated[Path, typer.Option(help="Where the files go.")] = Path("docs/results"),
    keep_runs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the run directories in DIR.", show_default=False)
    ] = None,
    report_only: Annotated[bool, typer.Option("--report-only", help="Write the report of NAME.csv again.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Train every algorithm on every task with every seed, and report how many programs each needed.

    Runs that NAME.csv holds already are not made again, so the same command goes on from where it was broken off.
    Exit codes: 0 all runs are there, 1 some failed, 2 usage or configuration, 130 interrupted.
    """
    from altlas.cli.bench import BenchRequest, run_learning

    request = BenchRequest(
        name=name,
        out=out,
        pack=pack,
        tasks=tasks,
        algorithms=algorithms,
        seeds=seeds,
        budget=budget,
        jobs=jobs,
        overrides=tuple(set_ or []),
        config_file=config,
        keep_dir=keep_runs,
        report_only=report_only,
    )
    raise typer.Exit(run_learning(request))


@serve_app.command("coordinator")
def serve_coordinator(
    trainer: Annotated[str, typer.Option(help="Address of the trainer.")] = "127.0.0.1:50053",
    generator: Annotated[
        list[str] | None,
        typer.Option(help="Address of a generator; may be given often. Default: 127.0.0.1:50052.", show_default=False),
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            help="Under which runs are led; no other coordinator may have it at the same time. Default: host, address.",
            show_default=False,
        ),
    ] = "",
    adopt: Annotated[
        bool, typer.Option("--adopt/--no-adopt", help="Go on with runs that a coordinator of this name left.")
    ] = True,
    run: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="Start a run at once; not again when the same task, seed and budget were given before.",
            show_default=False,
        ),
    ] = "",
    run_seed: Annotated[int, typer.Option(help="Seed of that run.")] = 1,
    run_budget: Annotated[int, typer.Option(help="Programs of that run at most; 0 takes the task's own.")] = 0,
    redis_url: RedisOption = None,
    listen: ListenOption = "127.0.0.1:50051",
    metrics_port: MetricsOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    parent: ParentOption = None,
) -> None:
    """Drive runs: sample, evaluate, learn, checkpoint."""
    from altlas.cli import serve
    from altlas.cli.first_run import FirstRun

    serve.coordinator(
        serve.load(config, set_ or [], redis_url=redis_url, role="coordinator", parent=parent),
        listen=listen,
        trainer=trainer,
        generators=generator or ["127.0.0.1:50052"],
        metrics_port=metrics_port,
        name=name,
        adopt=adopt,
        first=FirstRun(run, seed=run_seed, budget=run_budget) if run else None,
    )


@serve_app.command("generator")
def serve_generator(
    trainer: Annotated[str, typer.Option(help="Address of the trainer.")] = "127.0.0.1:50053",
    listen: ListenOption = "127.0.0.1:50052",
    metrics_port: MetricsOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    parent: ParentOption = None,
) -> None:
    """Sample programs from the policy."""
    from altlas.cli import serve

    resolved = serve.load(config, set_ or [], redis_url=None, role="generator", parent=parent)
    serve.generator(resolved, listen=listen, trainer=trainer, metrics_port=metrics_port)


@serve_app.command("trainer")
def serve_trainer(
    listen: ListenOption = "127.0.0.1:50053",
    metrics_port: MetricsOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    parent: ParentOption = None,
) -> None:
    """Own the weights: updates and checkpoints."""
    from altlas.cli import serve

    serve.trainer(config, set_ or [], listen=listen, metrics_port=metrics_port, parent=parent)


@serve_app.command("evaluator")
def serve_evaluator(
    redis_url: RedisOption = None,
    listen: ListenOption = "127.0.0.1:50054",
    metrics_port: MetricsOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    parent: ParentOption = None,
) -> None:
    """Run and score untrusted programs, for Redis jobs where a server is named and for gRPC callers."""
    from altlas.cli import serve

    serve.evaluator(
        serve.load(config, set_ or [], redis_url=redis_url, role="evaluator", parent=parent),
        listen=listen,
        metrics_port=metrics_port,
    )


def main() -> None:
    """Run the command; an error raised on purpose becomes one message and an exit code, never a traceback."""
    try:
        app()
    except (ConfigError, TaskError, VocabularyError, CheckpointError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except AltlasError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILURE)


if __name__ == "__main__":
    main()
