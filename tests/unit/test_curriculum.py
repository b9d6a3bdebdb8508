"""Which task an update is of, what tasks of one run must share, and what they bring."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altlas.config.sections import Config, CurriculumSection, RunSection, SamplingSection
from altlas.core.curriculum import (
    ProgressWindow,
    Standing,
    batch_limit,
    check_alike,
    choose_task,
    task_budgets,
    task_lengths,
    task_weights,
)
from altlas.errors import TaskError
from altlas.tasks import expand_references, list_tasks, load_task, with_task_defaults

Route = Literal["in_order", "round_robin", "learning_progress"]


class Walk:
    """Tasks that are verified after so many programs each, chosen among until none is left or `updates` are done."""

    def __init__(self, needs: list[int], *, budget: int, batch: int = 10) -> None:
        self.needs, self.budget, self.batch = needs, budget, batch
        self.done = [[0, 0] for _ in needs]  # updates and programs of each

    def standings(self) -> list[Standing]:
        return [
            Standing(updates=updates, programs=programs, budget=self.budget, is_closed=programs >= need, progress=None)
            for (updates, programs), need in zip(self.done, self.needs, strict=True)
        ]

    def choices(self, route: Route, *, updates: int) -> list[int]:
        section, chosen = CurriculumSection(route=route), []
        while len(chosen) < updates and not all(standing.is_closed for standing in self.standings()):
            standings = self.standings()
            task = choose_task(section, standings, seed=1, update=len(chosen))
            limit = batch_limit(section, standings[task])
            self.done[task][0] += 1
            self.done[task][1] += self.batch if limit is None else min(limit, self.batch)
            chosen.append(task)
        return chosen


def in_order_literally(needs: list[int], *, budget: int, batch: int) -> list[int]:
    """Round after round over the tasks in their order, each until it is verified or has had its budget."""
    chosen, programs = [], [0] * len(needs)
    while any(had < need for had, need in zip(programs, needs, strict=True)):
        for task, need in enumerate(needs):
            spent = 0
            while programs[task] < need and spent < budget:
                size = min(batch, budget - spent)
                programs[task] += size
                spent += size
                chosen.append(task)
    return chosen


def round_robin_literally(needs: list[int], *, batch: int) -> list[int]:
    """One update of each task that is not verified, in turn."""
    chosen, programs = [], [0] * len(needs)
    while any(had < need for had, need in zip(programs, needs, strict=True)):
        for task, need in enumerate(needs):
            if programs[task] < need:
                programs[task] += batch
                chosen.append(task)
    return chosen


NEEDS = st.lists(st.integers(1, 60), min_size=1, max_size=4)


@given(NEEDS, st.integers(5, 40))
def test_in_order_equals_the_literal_walk(needs: list[int], budget: int) -> None:
    expected = in_order_literally(needs, budget=budget, batch=10)
    assert Walk(needs, budget=budget).choices("in_order", updates=1000) == expected


@given(NEEDS)
def test_round_robin_equals_the_literal_walk(needs: list[int]) -> None:
    assert Walk(needs, budget=1).choices("round_robin", updates=1000) == round_robin_literally(needs, batch=10)


def standing(progress: float | None, *, is_closed: bool = False) -> Standing:
    return Standing(updates=5, programs=50, budget=100, is_closed=is_closed, progress=progress)


def test_learning_progress_draws_in_proportion_and_never_a_closed_task() -> None:
    section = CurriculumSection(route="learning_progress", floor=0.05)
    standings = [standing(0.15), standing(9.0, is_closed=True), standing(0.55), standing(0.0)]
    draws = [choose_task(section, standings, seed=3, update=update) for update in range(4000)]
    assert draws == [choose_task(section, standings, seed=3, update=update) for update in range(4000)]
    assert draws != [choose_task(section, standings, seed=4, update=update) for update in range(4000)]
    shares = {task: count / 4000 for task, count in Counter(draws).items()}
    assert set(shares) == {0, 2, 3}
    for task, weight in ((0, 0.20), (2, 0.60), (3, 0.05)):
        assert shares[task] == pytest.approx(weight / 0.85, abs=0.03)


def test_a_task_too_young_to_tell_counts_as_the_best_of_the_others() -> None:
    assert task_weights([0.25, None, 0.5], floor=0.125) == [0.375, 0.625, 0.625]
    assert task_weights([None, None], floor=0.125) == [0.125, 0.125]


def test_with_every_task_closed_there_is_nothing_to_choose() -> None:
    with pytest.raises(ValueError, match="every task is closed"):
        choose_task(CurriculumSection(), [standing(0.0, is_closed=True)], seed=1, update=0)


UPDATES = st.lists(st.tuples(st.integers(1, 20), st.floats(-3, 1), st.floats(0, 1)), max_size=30)


@given(UPDATES, st.integers(1, 100))
def test_progress_is_that_of_the_newest_programs(updates: list[tuple[int, float, float]], length: int) -> None:
    window, bests = ProgressWindow(), []
    for programs, mean, best in updates:
        bests.append(max([*bests, best]))
        window.add(programs, mean, bests[-1], length=length)
    kept: list[int] = []
    for row in reversed(range(len(updates))):
        if len(kept) < 2 or sum(updates[other][0] for other in kept) < length:
            kept.insert(0, row)
    if len(kept) < 2:
        assert window.progress is None
        return
    means = [max(updates[row][1], -1.0) for row in kept]
    half = len(means) // 2
    moved = abs(sum(means[half:]) / (len(means) - half) - sum(means[:half]) / half)
    assert window.progress == pytest.approx(max(moved, bests[kept[-1]] - bests[kept[0]]), abs=1e-12)


def test_tasks_bring_budgets_and_lengths_of_their_own_unless_the_configuration_says() -> None:
    tasks = [load_task(name)[0] for name in ("basics/hello_world", "basics/sum_loop")]
    ours = Config()
    assert task_lengths(ours, tasks) == [20, 36]
    assert task_budgets(ours, tasks) == [60_000, 60_000]
    together = with_task_defaults(ours, *tasks)
    assert (together.run.budget, together.sampling.max_tokens) == (120_000, 0)
    assert with_task_defaults(ours, tasks[1]).sampling.max_tokens == 36
    given = Config(
        run=RunSection(budget=7), sampling=SamplingSection(max_tokens=9), curriculum=CurriculumSection(task_budget=3)
    )
    assert (task_lengths(given, tasks), task_budgets(given, tasks), task_budgets(given, tasks[:1])) == (
        [9, 9],
        [3, 3],
        [7],
    )
    assert with_task_defaults(given, *tasks).run.budget == 7
    assert with_task_defaults(Config(curriculum=CurriculumSection(task_budget=3)), *tasks).run.budget == 6


def test_a_list_may_name_tasks_and_packs() -> None:
    assert expand_references("basics/hello_world") == ["basics/hello_world"]
    assert expand_references("stdin/echo, basics/hello_world") == ["stdin/echo", "basics/hello_world"]
    basics = expand_references("basics")
    assert sorted(basics) == [name for name in list_tasks() if name.startswith("basics/")]
    assert basics[0] == "basics/hello_world"
    assert expand_references("stdin/echo,basics") == ["stdin/echo", *basics]
    assert expand_references("nonsense") == ["nonsense"]


def test_the_tasks_of_a_pack_without_a_known_solution_come_last() -> None:
    known = [bool(load_task(name)[0].reference) for name in expand_references("brainf")]
    assert known == sorted(known, reverse=True)


def test_tasks_of_one_run_share_language_and_vocabulary() -> None:
    names = ["basics/hello_world", "javascript/hello_world", "stdin/echo"]
    tasks = [load_task(name)[0] for name in names]
    check_alike([names[0], names[2]], [tasks[0], tasks[2]])
    with pytest.raises(TaskError) as caught:
        check_alike(names, tasks)
    message = str(caught.value)
    assert "language python, vocabulary python: basics/hello_world, stdin/echo" in message
    assert "language javascript, vocabulary javascript: javascript/hello_world" in message
    with pytest.raises(TaskError, match="stdin/echo: named more than once"):
        check_alike(["stdin/echo", "stdin/echo"], [tasks[2], tasks[2]])
