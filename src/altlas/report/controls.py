"""The recorded runs of the controls, which carry no network: controls.json beside this module, made from docs/results.

python -m altlas.report.controls --write | --check

A control's runs are those with no settings of their own, so with the defaults of the task's pack.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altlas
from altlas.errors import AltlasError
from altlas.report.results import Row, read_results
from altlas.report.statistics import Bound, quantile

CONTROLS = ("ga_archive", "random")
_FILE = Path(__file__).with_name("controls.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The runs of a control on a task.

    Attributes:
        budget: of each run, programs.
        needed: programs to verify, by seed; None where the budget was spent before.
    """

    budget: int
    needed: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a control's runs come to within a budget of programs: the median of programs to verify, and how many did."""

    budget: int
    runs: int
    verified: int
    median: Bound

    def to_json(self) -> dict[str, Any]:
        """Return it as `altlas train --json` has it."""
        return {
            "budget": self.budget,
            "runs": self.runs,
            "verified": self.verified,
            "median": self.median.programs,
            "is_least": self.median.is_least,
        }


Records = Mapping[str, Mapping[str, Control]]


def standing(control: Control, budget: int) -> Standing:
    """Return what a control's runs come to within a budget; one that is larger than theirs is cut to it.

    A run that needed more counts as the budget.

    Raises:
        ValueError: no runs.
    """
    within = min(budget, control.budget)
    needed = [programs if programs is not None and programs <= within else None for programs in control.needed]
    verified = sum(programs is not None for programs in needed)
    return Standing(budget=within, runs=len(needed), verified=verified, median=quantile(needed, within, 0.5))


def standings_on(records: Records, task: str, budget: int) -> dict[str, Standing]:
    """Return every control's standing on a task, by algorithm; none where nothing is recorded."""
    return {algorithm: standing(control, budget) for algorithm, control in records.get(task, {}).items()}


def collect(rows: Iterable[Row]) -> dict[str, dict[str, Control]]:
    """Return the controls by task and algorithm, sorted.

    Of several budgets the largest counts; of several runs with one seed the newest.
    """
    runs: dict[tuple[str, str], dict[int, dict[int, Row]]] = {}
    for row in sorted(rows, key=lambda row: row.started_at):
        if row.settings in CONTROLS:
            runs.setdefault((row.task, row.settings), {}).setdefault(row.budget, {})[row.seed] = row
    records: dict[str, dict[str, Control]] = {}
    for (task, algorithm), by_budget in sorted(runs.items()):
        budget, by_seed = max(by_budget.items())
        needed = tuple(row.programs_to_verify for _, row in sorted(by_seed.items()))
        records.setdefault(task, {})[algorithm] = Control(budget=budget, needed=needed)
    return records


def render(records: Records) -> str:
    """Return the JSON text, a line a task."""
    lines = [
        f"  {json.dumps(task)}: {json.dumps({name: _to_json(control) for name, control in controls.items()})}"
        for task, controls in records.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n" if lines else "{}\n"


def parse(text: str) -> dict[str, dict[str, Control]]:
    """Return the controls of a JSON text that `render` wrote."""
    return {
        task: {
            name: Control(budget=control["budget"], needed=tuple(control["needed"]))
            for name, control in controls.items()
        }
        for task, controls in json.loads(text).items()
    }


def read_controls() -> dict[str, dict[str, Control]]:
    """Return the controls that ship with altlas."""
    return parse(_FILE.read_text(encoding="utf-8"))


def render_results(directory: Path) -> str:
    """Return the JSON text of every CSV file in a directory.

    Raises:
        ConfigError: one of them is not a file of results.
    """
    return render(collect(row for path in sorted(directory.glob("*.csv")) for row in read_results(path)))


def is_outdated(results: Path, file: Path = _FILE) -> bool:
    """Return whether a file is missing or differs from what the results would make it."""
    return not file.is_file() or file.read_text(encoding="utf-8") != render_results(results)


def _to_json(control: Control) -> dict[str, Any]:
    return {"budget": control.budget, "needed": control.needed}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check controls.json of the checkout; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m altlas.report.controls", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write controls.json")
    action.add_argument("--check", action="store_true", help="exit 1 when it is out of date")
    options = parser.parse_args(arguments)
    root = Path(altlas.__file__).parents[2]
    if not (root / "pyproject.toml").is_file():
        parser.error(f"{root} is not a checkout: run this from an editable installation (make setup)")
    name = _FILE.relative_to(root)
    try:
        if not is_outdated(root / "docs" / "results"):
            return 0
        if options.write:
            _FILE.write_text(render_results(root / "docs" / "results"), encoding="utf-8")
            print(f"wrote {name}")
            return 0
    except AltlasError as error:
        parser.error(str(error))
    print(f"{name} is out of date: run `python -m altlas.report.controls --write`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
