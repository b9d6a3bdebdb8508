"""The brainf scorer beside a plain interpreter in Python, on one core: a part of `make bench ARGS=evaluation`.

Programs are drawn uniformly over the eight operations, as an untrained policy without a grammar would, and scored on
the published cases of `reverse`. The one in Python runs and grades them by the same rules, a program at a time. Rates
are by CPU time of the one thread: neither side waits for anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from altlas.config.sections import RewardSection, SandboxSection
from altlas.core.brainf import OPERATIONS
from altlas.core.task import Task
from altlas.tasks import load_task
from altlas_evaluator.engine import Executor
from altlas_evaluator.scoring import TaskScorer

TASK = "brainf/reverse"
LENGTHS = (30, 100)
_PYTHON_SHARE = 200  # one program of so many, for the slower side
SEED = 7


def draw_programs(count: int, length: int, *, seed: int = SEED) -> list[bytes]:
    """Return programs of uniformly drawn operations."""
    table = np.frombuffer(OPERATIONS.encode(), dtype=np.uint8)
    drawn = table[np.random.default_rng(seed).integers(0, len(table), (count, length))]
    return [row.tobytes() for row in drawn]


def interpret(source: str, inputs: Sequence[int], *, base: int, max_steps: int) -> list[int] | None:
    """Return the output of one run, None where it hit the limit: a plain, not a naive, interpreter in Python."""
    matches: dict[int, int] = {}
    opened: list[int] = []
    for position, operation in enumerate(source):
        if operation == "[":
            opened.append(position)
        elif operation == "]" and opened:
            start = opened.pop()
            matches[start], matches[position] = position, start
    tape, output = [0], []
    pointer = position = steps = read = 0
    end = len(source)
    while position < end:
        operation = source[position]
        if operation == ">":
            pointer += 1
            if pointer == len(tape):
                tape.append(0)
        elif operation == "<":
            if pointer:
                pointer -= 1
        elif operation == "+":
            tape[pointer] = tape[pointer] + 1 if tape[pointer] < base - 1 else 0
        elif operation == "-":
            tape[pointer] = tape[pointer] - 1 if tape[pointer] else base - 1
        elif operation == "[":
            if not tape[pointer]:
                position = matches.get(position, position)
        elif operation == "]":
            if tape[pointer]:
                position = matches.get(position, position)
        elif operation == ".":
            output.append(tape[pointer])
        else:
            tape[pointer] = inputs[read] if read < len(inputs) else 0
            read += 1
        position += 1
        steps += 1
        if steps >= max_steps:
            return None
    return output


def reward_in_python(task: Task, source: str) -> float:
    """Return the reward of a program, as docs/brainf.md words it."""
    base, total = task.brainf.base, 0.0
    for case in task.cases:
        target = case.expected or ()
        output = interpret(source, case.input or (), base=base, max_steps=task.brainf.max_steps)
        if output is None:
            return -2 / (4 * len(task.cases))
        distance = sum(abs(got - wanted) for got, wanted in zip(output, target, strict=False))
        distance += base * abs(len(output) - len(target))
        total += 1 - distance / (base * max(1, len(target))) + 3 * (tuple(output) == target)
    return total / (4 * len(task.cases))


def contestants(programs: int) -> dict[str, tuple[Callable[[int], float], int]]:
    """Return contestants, programs per second each, as `bench_evaluation.medians` takes them."""
    task, _ = load_task(TASK)
    executor = Executor(SandboxSection(slots=1))
    scorer = TaskScorer(executor, RewardSection())
    executor.close()  # brainf needs none of it
    found: dict[str, tuple[Callable[[int], float], int]] = {}
    for length in LENGTHS:
        sources = draw_programs(programs, length)
        rewards = scorer.score_batch(task, sources[:200]).rewards
        if not np.allclose(rewards, [reward_in_python(task, source.decode()) for source in sources[:200]]):
            raise SystemExit("the rewards differ")

        def score(count: int, sources: list[bytes] = sources) -> float:
            started = time.thread_time()
            scorer.score_batch(task, sources[:count])
            return count / (time.thread_time() - started)

        def interpret_all(count: int, sources: list[bytes] = sources) -> float:
            started = time.thread_time()
            for source in sources[:count]:
                reward_in_python(task, source.decode())
            return count / (time.thread_time() - started)

        found[f"brainf, random, {length} long"] = (score, programs)
        found[f"in Python, {length} long"] = (interpret_all, max(1, programs // _PYTHON_SHARE))
    return found
