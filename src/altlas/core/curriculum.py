"""Runs of several tasks: which task an update is of, how much a task is being learned, what they have to share.

Invariant: the choice is a function of where the tasks stand, the seed and the update, so a run with several tasks is a
function of its spec as well, and a resumed one makes the choices that it would have made.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from altlas.config.sections import Config, CurriculumSection
from altlas.core.task import Task
from altlas.errors import TaskError

# Rewards may reach far below 0; what happens there says little of what is learned.
_LOWEST_REWARD = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a task stands.

    updates, programs: done of it. budget: programs that in_order gives it at a time. is_closed: none are to be done any
    more. progress: how much its rewards change, None while it is too young to tell.
    """

    updates: int
    programs: int
    budget: int
    is_closed: bool
    progress: float | None


def choose_task(section: CurriculumSection, standings: Sequence[Standing], *, seed: int, update: int) -> int:
    """Return the position of the task that an update is of.

    in_order comes back to the tasks that it had to leave when it has been at all of them.

    Raises:
        ValueError: every task is closed.
    """
    opened = [position for position, standing in enumerate(standings) if not standing.is_closed]
    if not opened:
        raise ValueError("every task is closed")
    if section.route == "in_order":
        return min(opened, key=lambda position: standings[position].programs // standings[position].budget)
    if section.route == "round_robin":
        return min(opened, key=lambda position: standings[position].updates)
    from altlas.core.rng import uniform  # late: the client reads tasks without numpy

    weights = task_weights([standings[position].progress for position in opened], floor=section.floor)
    (draw,) = uniform(seed, "curriculum", update=update, first_index=0, count=1, per_index=1)[0].tolist()
    bounds = list(itertools.accumulate(weights))
    return opened[next(row for row, bound in enumerate(bounds) if draw * bounds[-1] < bound)]


def task_weights(progress: Sequence[float | None], *, floor: float) -> list[float]:
    """Return how likely each task is to be drawn, not normalised: its progress and the floor.

    The teacher of Matiisen, Oliver, Cohen and Schulman 2017 ("Teacher-student curriculum learning", section 3) with
    draws in proportion to the absolute slope of the reward. A task too young to tell counts as the best of the others.
    """
    most = max((value for value in progress if value is not None), default=0.0)
    return [floor + (most if value is None else value) for value in progress]


def batch_limit(section: CurriculumSection, standing: Standing) -> int | None:
    """Return how many programs the task's next update may have, None where its route sets no bound."""
    return standing.budget - standing.programs % standing.budget if section.route == "in_order" else None


@dataclass
class ProgressWindow:
    """Rewards of a task's newest updates: for each its programs, their mean reward, and the best so far."""

    updates: list[tuple[int, float, float]] = field(default_factory=list)

    def add(self, programs: int, mean_reward: float, best_reward: float, *, length: int) -> None:
        """Take an update, and drop those before the newest `length` programs; two are kept in any case."""
        self.updates.append((programs, max(mean_reward, _LOWEST_REWARD), max(best_reward, _LOWEST_REWARD)))
        while len(self.updates) > 2 and sum(count for count, _, _ in self.updates[1:]) >= length:
            self.updates.pop(0)

    @property
    def progress(self) -> float | None:
        """How far the rewards have moved: the mean from the older half to the newer, or the best if that is more."""
        if len(self.updates) < 2:
            return None
        means = [mean for _, mean, _ in self.updates]
        middle = len(means) // 2
        moved = abs(statistics.fmean(means[middle:]) - statistics.fmean(means[:middle]))
        return max(moved, self.updates[-1][2] - self.updates[0][2])


def task_budgets(config: Config, tasks: Sequence[Task]) -> list[int]:
    """Return how many programs in_order gives each task at a time; a task alone has the run's."""
    if len(tasks) == 1:
        return [config.run.budget or tasks[0].budget]
    return [config.curriculum.task_budget or task.budget for task in tasks]


def task_lengths(config: Config, tasks: Sequence[Task]) -> list[int]:
    """Return the longest program of each task, in tokens: the run's, or the task's own where it says 0."""
    return [config.sampling.max_tokens or task.max_tokens for task in tasks]


def with_max_tokens(config: Config, max_tokens: int) -> Config:
    """Return a run's configuration for one of its tasks."""
    return config.model_copy(update={"sampling": config.sampling.model_copy(update={"max_tokens": max_tokens})})


def check_alike(names: Sequence[str], tasks: Sequence[Task]) -> None:
    """Check that tasks, named, can be learned in one run: one policy writes the programs of all.

    Raises:
        TaskError: one is there twice, or they differ in language or vocabulary; the message lists which have which.
    """
    if twice := {name for name in names if names.count(name) > 1}:
        raise TaskError(f"{', '.join(sorted(twice))}: named more than once; a run has each task once")
    kinds: dict[tuple[str, str], list[str]] = {}
    for name, task in zip(names, tasks, strict=True):
        kinds.setdefault((task.language, task.vocabulary), []).append(name)
    if len(kinds) == 1:
        return
    lines = [
        f"  language {language}, vocabulary {vocabulary}: {', '.join(alike)}"
        for (language, vocabulary), alike in kinds.items()
    ]
    raise TaskError(
        "the tasks of one run must share language and vocabulary, and these do not:\n"
        + "\n".join(lines)
        + "\nTrain those of each line in a run of their own."
    )
