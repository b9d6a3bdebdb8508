"""Plots of a comparison: the fraction of runs that have solved the task, against programs run.

Equal rows give equal bytes: text as paths, a fixed salt for ids, no dates. Colours are Okabe and Ito's, which people
with any colour vision tell apart, and every algorithm has a dash pattern of its own besides.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from altlas.errors import ConfigError
from altlas.report.groups import Comparison, Problem, needed
from altlas.report.results import Row
from altlas.report.runs import slug
from altlas.report.statistics import solved_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 3)))
_GREY = "#666666"
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "altlas",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": _GREY,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.minor.visible": False,
    "legend.frameon": False,
}
_PANELS_ACROSS = 4


def require_matplotlib() -> None:
    """Raise ConfigError when plots cannot be drawn here."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("the plots need matplotlib, which is not installed: pip install altlas[report]")


def draw(comparison: Comparison, directory: Path, *, name: str) -> list[str]:
    """Write NAME.svg, the overview, and NAME-<task>.svg for every task; return their names, the overview first.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    require_matplotlib()
    names = {problem: f"{name}-{_part(problem, comparison.problems)}.svg" for problem in comparison.problems}
    with _style():
        _save(_overview(comparison), directory / f"{name}.svg")
        for problem, file in names.items():
            _save(_single(comparison, problem), directory / file)
    return [f"{name}.svg", *names.values()]


def _part(problem: Problem, problems: Sequence[Problem]) -> str:
    is_one_of_many = sum(other.task == problem.task for other in problems) > 1
    return slug(f"{problem.task}-{problem.budget}" if is_one_of_many else problem.task)


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE, "backend": "svg"}):
        yield


def _save(figure: Figure, path: Path) -> None:
    partial = path.with_suffix(".tmp")
    figure.savefig(partial, format="svg", metadata={"Date": None, "Creator": "altlas"})
    partial.replace(path)


def _single(comparison: Comparison, problem: Problem) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    _panel(axes, comparison, lambda label: comparison.of(label, problem), budget=problem.budget)
    axes.set_title(f"{problem.task}, budget {problem.budget:,}", pad=10)
    axes.set_xlabel("programs run")
    axes.set_ylabel("fraction of runs that solved it")
    # Beside the curves: within the axes any corner may hold one.
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, handlelength=2.6)
    return figure


def _overview(comparison: Comparison) -> Figure:
    """All tasks in one panel, then one panel a task, with one legend."""
    from matplotlib.figure import Figure

    problems = comparison.problems
    if len(problems) == 1:
        return _single(comparison, problems[0])
    panels: list[Problem | None] = [None, *problems]
    across = min(_PANELS_ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(2.7 * across, 2.25 * down + 0.8), layout="constrained")
    figure.subplots(down, across, squeeze=False, sharey=True)
    several = {problem.task for problem in problems if sum(other.task == problem.task for other in problems) > 1}
    for axes, problem in zip(figure.axes, panels, strict=False):
        budget = max(item.budget for item in problems) if problem is None else problem.budget
        _panel(axes, comparison, _rows_of(comparison, problem), budget=budget)
        title = "all tasks" if problem is None else problem.task.rpartition("/")[2]
        axes.set_title(title if problem is None or problem.task not in several else f"{title}, {budget:,}")
    for axes in figure.axes[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel("programs run", fontsize=9)
    figure.supylabel("fraction of runs that solved the task", fontsize=9)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    names = [label.rpartition("  ")[0] for label in labels]
    figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(names)), handlelength=2.6)
    return figure


def _rows_of(comparison: Comparison, problem: Problem | None) -> Callable[[str], list[Row]]:
    return lambda label: comparison.of(label, problem)


def _panel(axes: Axes, comparison: Comparison, rows_of: Callable[[str], list[Row]], *, budget: int) -> None:
    curves = {label: needed(rows) for label in comparison.labels if (rows := rows_of(label))}
    solved_at = [programs for curve in curves.values() for programs in curve if programs is not None]
    left = max(1.0, min([*solved_at, budget / 10]) / 1.5)
    for number, label in enumerate(comparison.labels):
        if label not in curves:
            continue
        steps = solved_curve(curves[label])
        x = [left, *(programs for programs, _ in steps), budget]
        y = [0.0, *(fraction for _, fraction in steps), steps[-1][1] if steps else 0.0]
        solved = sum(programs is not None for programs in curves[label])
        axes.step(
            *(x, y),
            where="post",
            label=f"{label}  {solved}/{len(curves[label])}",
            color=_COLOURS[number % len(_COLOURS)],
            linestyle=_DASHES[number % len(_DASHES)],
            linewidth=1.8,
            clip_on=False,
        )
    axes.set_xscale("log")
    axes.set_xlim(left, budget)
    axes.set_ylim(0, 1)
    _label_ticks(axes)


def _label_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 1.2 else (1.0, 3.0) if decades < 2.5 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.tick_params(length=0, labelcolor="#333333")


def _short(value: float) -> str:
    """Return 1000 as 1k, 2000000 as 2M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"
