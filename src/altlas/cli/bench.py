"""`altlas bench learning`: algorithms against each other on tasks, seed by seed, in the runs that users make."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from altlas.config.loader import load_config
from altlas.errors import AltlasError, ConfigError
from altlas.report.algorithms import parse_algorithms
from altlas.report.groups import Comparison
from altlas.report.markdown import render
from altlas.report.plots import draw, require_matplotlib
from altlas.report.results import ResultsFile, Row, check_labels, read_results
from altlas.report.runs import TRAIN, Run, RunPool, slug
from altlas.tasks import list_tasks, load_task
from altlas_evaluator.languages.registry import task_languages

EXIT_OK, EXIT_FAILURE, EXIT_INTERRUPTED = 0, 1, 130
# What has an option, or a column, of its own: given twice it would not be clear which holds.
_RESERVED = {
    "run.seed": "--seeds",
    "run.budget": "--budget",
    "algorithm.name": "--algorithms",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """What was asked on the command line. `command` is `altlas train`."""

    name: str
    out: Path
    pack: str | None = None
    tasks: str | None = None
    algorithms: str = "policy"
    seeds: str = "5"
    budget: int | None = None
    jobs: int | None = None
    overrides: tuple[str, ...] = ()
    config_file: Path | None = None
    keep_dir: Path | None = None
    report_only: bool = False
    command: Sequence[str] = TRAIN


def run_learning(request: BenchRequest) -> int:
    """Make the runs that are not in the results yet, write the report, return the exit code.

    Raises:
        ConfigError: what is asked for cannot be run; nothing has been started.
        TaskError: no such task.
    """
    if slug(request.name) != request.name:
        raise ConfigError(f"--name {request.name!r} is to name files: letters, digits, '_', '.' and '-' only")
    require_matplotlib()
    results_path = request.out / f"{request.name}.csv"
    if request.report_only:
        _report(read_results(results_path), request)
        return EXIT_OK
    runs = plan(request)
    _announce_environment()
    with ResultsFile(results_path, say=_complain) as results:
        _check_together(results.rows, runs)
        known = {row.key for row in results.rows}
        waiting = [run for run in runs if run.key not in known]
        skipped = f", {len(runs) - len(waiting)} of them in {results_path} already" if len(waiting) < len(runs) else ""
        print(f"{len(runs)} runs{skipped}", flush=True)
        code = _run(waiting, results, request)
        rows = list(results.rows)
    if rows:
        _report(rows, request)
    return code


def plan(request: BenchRequest) -> list[Run]:
    """Return every run of a comparison, seed by seed, so that one broken off has as many of each algorithm.

    Raises:
        ConfigError: a setting, an algorithm, the seeds or the budget are wrong.
        TaskError: no such task.
    """
    algorithms = parse_algorithms(request.algorithms)
    for override in (*request.overrides, *(item for algorithm in algorithms for item in algorithm.overrides)):
        if (key := override.partition("=")[0].strip()) in _RESERVED:
            raise ConfigError(f"--set {override}: give {_RESERVED[key]} instead of {key}")
    for algorithm in algorithms:
        # Said now, not by each of its runs.
        load_config(
            preset=algorithm.preset,
            config_file=request.config_file,
            environ={},
            overrides=[*request.overrides, *algorithm.overrides],
        )
    configured = load_config(config_file=request.config_file, environ={}, overrides=request.overrides)
    asked = request.budget if request.budget is not None else configured.run.budget
    config = request.config_file
    digest = "" if config is None else hashlib.sha256(config.read_bytes()).hexdigest()[:12]
    budgets = {task: asked or load_task(task, languages=task_languages())[0].budget for task in _tasks(request)}
    return [
        Run(
            task=task,
            algorithm=algorithm,
            seed=seed,
            budget=budget,
            shared=request.overrides,
            config_file=config,
            config_digest=digest,
        )
        for seed in parse_seeds(request.seeds)
        for task, budget in budgets.items()
        for algorithm in algorithms
    ]


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that a text names: "5" is 1 to 5, "3,7" those two, "7," that one.

    Raises:
        ConfigError: it names none, or something that is no seed.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--seeds {text!r}: give N for 1 to N, or seeds separated by commas (one alone: '7,')")
    seeds = list(range(1, int(parts[0]) + 1)) if "," not in text else [int(part) for part in parts]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text!r} names {'a seed twice' if seeds else 'none'}")
    return seeds


def _tasks(request: BenchRequest) -> list[str]:
    if (request.pack is None) == (request.tasks is None):
        raise ConfigError("give either --pack PACK or --tasks TASK,TASK")
    if request.pack is not None:
        tasks = [task for task in list_tasks() if task.partition("/")[0] == request.pack]
        packs = sorted({task.partition("/")[0] for task in list_tasks()})
        if not tasks:
            raise ConfigError(f"no pack {request.pack!r}; there are {', '.join(packs)}")
    else:
        tasks = [task.strip() for task in (request.tasks or "").split(",") if task.strip()]
        if not tasks or len(set(tasks)) < len(tasks):
            raise ConfigError(f"--tasks {request.tasks!r} names {'a task twice' if tasks else 'none'}")
    for task in tasks:
        load_task(task, languages=task_languages())
    return tasks


def _check_together(rows: Sequence[Row], runs: Sequence[Run]) -> None:
    """Refuse runs whose label stands for something else in the results."""
    known = {row.algorithm: row.settings for row in rows}
    check_labels(rows)
    for run in runs:
        label = run.algorithm.label
        if known.get(label, run.settings) != run.settings:
            raise ConfigError(
                f"{label!r} stands for {known[label]!r} in the results, and is {run.settings!r} now: give it a label "
                f"of its own (--algorithms LABEL={label}), or this comparison another --name"
            )


def _run(waiting: list[Run], results: ResultsFile, request: BenchRequest) -> int:
    total, done, failed = len(waiting), 0, 0
    jobs = request.jobs or len(os.sched_getaffinity(0))
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with RunPool(jobs, command=request.command, keep_dir=request.keep_dir) as pool:
            while (ended := pool.next_ended(waiting)) is not None:
                done += 1
                run, outcome = ended
                who = f"[{done}/{total}] {run.task}  {run.algorithm.label}  seed {run.seed}"
                if isinstance(outcome, AltlasError):
                    failed += 1
                    _complain(f"{who}  failed: {outcome}")
                else:
                    results.append(outcome)
                    print(f"{who}  {_describe(outcome)}", flush=True)
    except KeyboardInterrupt:
        _complain(f"interrupted after {done} of {total} runs: the same command goes on from here")
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)
    if failed:
        _complain(f"{failed} of {total} runs failed and are not in the results: the same command runs them again")
    return EXIT_FAILURE if failed else EXIT_OK


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _describe(row: Row) -> str:
    if row.programs_to_solve is None:
        how = f"not solved in {row.programs:,}, best reward {row.best_reward:.3f}"
    elif row.programs_to_verify is None:
        how = f"solved after {row.programs_to_solve:,}, not verified in {row.programs:,}"
    else:
        how = f"solved after {row.programs_to_solve:,}, verified after {row.programs_to_verify:,}"
    return f"{how}  {row.wall_s:.1f} s, {row.cpu_s:.1f} CPU s"


def _report(rows: list[Row], request: BenchRequest) -> None:
    check_labels(rows)
    if not rows:
        raise ConfigError(f"{request.out / request.name}.csv has no runs yet: nothing to report")
    comparison = Comparison(tuple(rows))
    plots = draw(comparison, request.out, name=request.name)
    page = request.out / f"{request.name}.md"
    partial = page.with_suffix(".tmp")
    partial.write_text(render(comparison, name=request.name, plots=plots), encoding="utf-8")
    partial.replace(page)
    print(f"report: {page}", flush=True)


def _announce_environment() -> None:
    names = sorted(name for name in os.environ if name.startswith("ALTLAS_") and "__" in name)
    if names:
        _complain(f"warning: {', '.join(names)} do not reach the runs, whose settings are to be known: use --set")


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
