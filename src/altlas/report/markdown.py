"""A comparison as a page of tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from altlas.report.groups import Comparison, Problem, needed
from altlas.report.results import Row
from altlas.report.statistics import Bound, quantile, wilson_interval

_CONTROL = "ga_archive"

_ABOUT = (
    "*Solved*: a sampled program was exact on every case of the task; *verified*: on its held-out cases too. Intervals "
    "are Wilson's, 95 %. *Programs to solve* is the position of the first solved program, duplicates counted: median "
    "and quartiles over the seeds. A run that did not solve counts as its budget, and a figure that rests on one is "
    "marked ≥. *CPU s* is the median over the runs of all processes of a run, from start to end."
)
_ABOUT_CONTROL = (
    f"*Of {_CONTROL}* is the median as a multiple of {_CONTROL}'s on the same task within the same budget, marked ≥ or "
    "≤ where one of the two rests on a run that did not solve, and empty where both do."
)
_DUELS = (
    "Task by task and seed by seed, where both have run: how often the one needed fewer programs to solve than the "
    "other, with the same budget."
)


def render(comparison: Comparison, *, name: str, plots: Sequence[str]) -> str:
    """Return the page.

    Args:
        comparison: what was run.
        name: of the comparison; NAME.csv lies beside the page.
        plots: files beside the page, the overview first.
    """
    head = f"Runs of `altlas bench learning`: {len(comparison.rows):,}, each a line of [{name}.csv]({name}.csv)."
    about = f"{_ABOUT} {_ABOUT_CONTROL}" if _CONTROL in comparison.labels else _ABOUT
    parts = [f"# {name}", f"{head} {_origin(comparison.rows)}", about]
    if plots:
        parts.append(f"![fraction solved against programs run]({plots[0]})")
    parts += [_results(comparison), "## Pair by pair", _DUELS, _pairs(comparison)]
    parts += ["## Settings", _settings(comparison)]
    if plots[1:]:
        parts += ["## Plots", *(f"![{plot}]({plot})" for plot in plots[1:])]
    return "\n\n".join(parts) + "\n"


def _results(comparison: Comparison) -> str:
    header = ["task", "budget", "algorithm", "solved", "95 %", "verified", "programs to solve", "quartiles", "CPU s"]
    problems: list[Problem | None] = list(comparison.problems)
    has_control = _CONTROL in comparison.labels
    lines = [
        (*_result(problem, label, rows), *([_of_control(comparison, problem, rows)] if has_control else []))
        for problem in (problems if len(problems) == 1 else [*problems, None])
        for label in comparison.labels
        if (rows := comparison.of(label, problem))
    ]
    return _table([*header, f"of {_CONTROL}"] if has_control else header, lines, right={1, 3, 5, 6, 8, 9})


def _result(problem: Problem | None, label: str, rows: Sequence[Row]) -> tuple[str, ...]:
    solved, total = sum(row.programs_to_solve is not None for row in rows), len(rows)
    low, high = wilson_interval(solved, total)
    rates = (f"{solved}/{total}", f"{low:.0%} to {high:.0%}", f"{sum(row.verified for row in rows)}/{total}")
    cpu = f"{statistics.median(row.cpu_s for row in rows):,.1f}"
    if problem is None:
        return ("**all**", "", label, *rates, "", "", cpu)
    low_q, median, high_q = (quantile(needed(rows), problem.budget, fraction) for fraction in (0.25, 0.5, 0.75))
    return (problem.task, f"{problem.budget:,}", label, *rates, str(median), f"{low_q} to {high_q}", cpu)


def _of_control(comparison: Comparison, problem: Problem | None, rows: Sequence[Row]) -> str:
    control = comparison.of(_CONTROL, problem)
    if problem is None or not control:
        return ""
    medians = (quantile(needed(runs), problem.budget, 0.5) for runs in (rows, control))
    return _ratio(*medians)


def _ratio(part: Bound, whole: Bound) -> str:
    """Return part / whole: at least that where the part is a bound, at most where the whole is, empty where both."""
    if part.is_least and whole.is_least:
        return ""
    sign = "≥ " if part.is_least else "≤ " if whole.is_least else ""
    return f"{sign}{part.programs / whole.programs:,.2f}"


def _pairs(comparison: Comparison) -> str:
    header = ("first", "second", "pairs", "first fewer", "second fewer", "equal", "neither solved")
    duels = comparison.duels()
    if not duels:
        return "There is one algorithm only."
    lines = [
        (one, other, *map(str, (duel.pairs, duel.first, duel.second, duel.ties, duel.neither)))
        for one, other, duel in duels
    ]
    return _table(header, lines, right={2, 3, 4, 5, 6})


def _settings(comparison: Comparison) -> str:
    settings = {row.algorithm: row.settings for row in comparison.rows}
    return _table(("algorithm", "settings"), [(label, f"`{text}`") for label, text in settings.items()], right=set())


def _origin(rows: Sequence[Row]) -> str:
    versions = sorted({f"altlas {row.version}" + (f" at `{row.commit[:12]}`" if row.commit else "") for row in rows})
    mixed = " They are **not all of the same code**." if len(versions) > 1 else ""
    first, last = min(row.started_at for row in rows)[:10], max(row.started_at for row in rows)[:10]
    when = f"on {first}" if first == last else f"from {first} to {last}"
    return f"Run {when} by {', '.join(versions)}.{mixed}"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], *, right: set[int]) -> str:
    rule = ["--:" if column in right else "---" for column in range(len(header))]
    cells = [list(header), rule, *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
