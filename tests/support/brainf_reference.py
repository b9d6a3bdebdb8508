"""brainf interpreted and graded step by step, as docs/brainf.md words it: the slow reference of the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Run:
    status: str
    output: list[int]
    steps: int
    memory: list[int]


def match_brackets(source: str) -> tuple[dict[int, int], bool]:
    matches: dict[int, int] = {}
    opened: list[int] = []
    is_balanced = True
    for position, character in enumerate(source):
        if character == "[":
            opened.append(position)
        elif character == "]" and opened:
            matches[position] = opened.pop()
            matches[matches[position]] = position
        elif character == "]":
            is_balanced = False
    return matches, is_balanced and not opened


def interpret(
    source: str,
    inputs: Sequence[int],
    *,
    base: int,
    max_steps: int,
    requires_balance: bool = False,
    memory: Sequence[int] = (),
) -> Run:
    matches, is_balanced = match_brackets(source)
    if requires_balance and not is_balanced:
        return Run("syntax_error", [], 0, [])
    tape = list(memory) or [0]
    unread = list(inputs)
    output: list[int] = []
    pointer = position = steps = 0
    while position < len(source):
        character = source[position]
        if character == ">":
            pointer += 1
            if pointer == len(tape):
                tape.append(0)
        elif character == "<":
            pointer = pointer - 1 if pointer > 0 else 0
        elif character == "+":
            tape[pointer] = tape[pointer] + 1 if tape[pointer] < base - 1 else 0
        elif character == "-":
            tape[pointer] = tape[pointer] - 1 if tape[pointer] > 0 else base - 1
        elif character == ".":
            output.append(tape[pointer])
        elif character == ",":
            tape[pointer] = unread.pop(0) if unread else 0
        elif (character == "[" and tape[pointer] == 0) or (character == "]" and tape[pointer] != 0):
            position = matches.get(position, position)
        position += 1
        steps += 1
        if steps >= max_steps:
            return Run("step_limit", output, steps, tape)
    return Run("ok", output, steps, tape)


def grade_case(output: Sequence[int], target: Sequence[int], *, base: int, length: int, length_reward: bool) -> float:
    common = min(len(output), len(target))
    distance = sum(abs(output[i] - target[i]) for i in range(common))
    distance += base * (len(output) - common) + base * (len(target) - common)
    reward = 1 - distance / (base * max(1, len(target)))
    if list(output) == list(target):
        reward += 2 + (min(1.0, max(0.0, 1 - length / 100)) if length_reward else 1)
    return reward


def grade(
    source: str,
    cases: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    base: int,
    max_steps: int,
    length_reward: bool = False,
) -> tuple[float, list[Run]]:
    """Return the reward, and the runs up to and with the first that hit the limit."""
    runs: list[Run] = []
    total = 0.0
    for inputs, target in cases:
        run = interpret(source, inputs, base=base, max_steps=max_steps)
        runs.append(run)
        if run.status == "step_limit":
            return -2 / (4 * len(cases)), runs
        total += grade_case(run.output, target, base=base, length=len(source), length_reward=length_reward)
    return total / (4 * len(cases)), runs
