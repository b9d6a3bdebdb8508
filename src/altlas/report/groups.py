"""The rows of a comparison, sorted into what is compared: problems (a task within a budget) and algorithms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from altlas.report.results import Row
from altlas.report.statistics import Duel, compare


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """A task within a budget of programs."""

    task: str
    budget: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows by problem and algorithm. Labels stand in the order in which they first came."""

    rows: tuple[Row, ...]

    @property
    def problems(self) -> list[Problem]:
        """Every problem, sorted."""
        return sorted({Problem(row.task, row.budget) for row in self.rows})

    @property
    def labels(self) -> list[str]:
        """Every algorithm's label."""
        return list(dict.fromkeys(row.algorithm for row in self.rows))

    def of(self, label: str, problem: Problem | None = None) -> list[Row]:
        """Return an algorithm's rows, of one problem or of all, by task, budget and seed."""
        found = [row for row in self.rows if row.algorithm == label]
        if problem is not None:
            found = [row for row in found if (row.task, row.budget) == (problem.task, problem.budget)]
        return sorted(found, key=lambda row: (row.task, row.budget, row.seed))

    def duels(self) -> list[tuple[str, str, Duel]]:
        """Return every pair of algorithms, compared over the tasks and seeds that both have run."""
        needed = {
            label: {(row.task, row.budget, row.seed): row.programs_to_solve for row in self.of(label)}
            for label in self.labels
        }
        return [(one, other, _duel(needed[one], needed[other])) for one, other in combinations(self.labels, 2)]


def _duel(one: dict[tuple[str, int, int], int | None], other: dict[tuple[str, int, int], int | None]) -> Duel:
    return compare((one[key], other[key]) for key in sorted(one.keys() & other.keys()))


def needed(rows: Sequence[Row]) -> list[int | None]:
    """Return the programs to solve of rows, in their order."""
    return [row.programs_to_solve for row in rows]
