"""From what a program printed to a reward in [0, 1]. Pure.

Per case, each in [0, 1]: syntax (it compiles), runs (it ends by itself with status ok), similarity (of its output to
the expected one), exact (runs, and the output is the expected one but for trailing white space). Such a component is
the mean over cases. Over all cases together, where each expects one number: trend (the outputs grow as the expected
numbers do). The reward is the weighted mean of the components there are. It is 1.0 for solved programs and for no
others. What a program had printed when it met a limit of time counts for nothing, so that a score is the same wherever
it is made.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rapidfuzz.distance import Levenshtein

from altlas.core.program import Execution, ProgramStatus
from altlas.core.score import Score
from altlas.core.task import Case, Task
from altlas.errors import ConfigError, SandboxError

# Levenshtein distance takes the product of the lengths; beyond this only the beginnings are compared.
COMPARED_CHARACTERS = 4096
MOST_UNSOLVED = 0.99
ERROR_CHARACTERS = 500
TREND_CASES = 3  # any two points lie on a line

# Addresses differ between machines; a program that prints one must score the same on each.
_ADDRESS = re.compile(r"\bat 0x[0-9a-f]+")
_NUMBER = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,15})?")


class RewardSettings(Protocol):
    """The weights of the components, and the cap; `RewardSection` is one."""

    @property
    def syntax(self) -> float: ...
    @property
    def runs(self) -> float: ...
    @property
    def similarity(self) -> float: ...
    @property
    def exact(self) -> float: ...
    @property
    def trend(self) -> float: ...
    @property
    def constant_cap(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the per-case components, which sum to 1, of trend, and the cap on constant output.

    `trend` is its share of the whole reward where it applies; the others then share the rest.
    """

    syntax: float
    runs: float
    similarity: float
    exact: float
    trend: float
    constant_cap: float


def resolve_weights(task: Task, settings: RewardSettings) -> Weights:
    """Return the task's weights, else the settings', divided by their sum.

    Raises:
        ConfigError: those of the per-case components are all 0, which would leave a single case without a reward.
    """

    def pick(name: str) -> float:
        own = getattr(task.reward, name)
        return float(getattr(settings, name) if own is None else own)

    raw = {name: pick(name) for name in ("syntax", "runs", "similarity", "exact")}
    total = sum(raw.values())
    if total <= 0:
        raise ConfigError(f"task {task.name}: the reward weights {', '.join(raw)} are all 0; set at least one above 0")
    return Weights(
        **{name: weight / total for name, weight in raw.items()},
        trend=pick("trend") / (total + pick("trend")),
        constant_cap=pick("constant_cap"),
    )


def normalise(output: bytes) -> str:
    """Return output as compared: text without trailing white space and without addresses."""
    text = output.decode("utf-8", errors="replace").rstrip()
    return _ADDRESS.sub("at 0x", text) if "at 0x" in text else text


def is_exact(execution: Execution, case: Case) -> bool:
    """Return whether the program ran and printed what the case expects."""
    return execution.status is ProgramStatus.OK and normalise(execution.stdout) == normalise(
        case.expected_stdout.encode()
    )


def _text_similarity(output: str, expected: str) -> float:
    """Return 1 - distance / length of the longer; for long texts that of the beginnings, scaled by the lengths."""
    compared = Levenshtein.normalized_similarity(output[:COMPARED_CHARACTERS], expected[:COMPARED_CHARACTERS])
    longest = max(len(output), len(expected))
    if longest <= COMPARED_CHARACTERS:
        return compared
    return compared * min(len(output), len(expected)) / longest


def _number_closeness(output: str, expected: str) -> float | None:
    """Return the mean of 1 / (1 + |a - e| / max(1, |e|)) when both are as many plain numbers, else None."""
    got, wanted = output.split(), expected.split()
    if not got or len(got) != len(wanted) or not all(_NUMBER.fullmatch(item) for item in (*got, *wanted)):
        return None
    pairs = [(float(a), float(e)) for a, e in zip(got, wanted, strict=True)]
    return sum(1 / (1 + abs(a - e) / max(1.0, abs(e))) for a, e in pairs) / len(pairs)


def output_of(execution: Execution) -> str:
    """Return what counts of an execution's output: none where a limit of time cut it, since the machine says where."""
    return "" if execution.status is ProgramStatus.TIMEOUT else normalise(execution.stdout)


def similarity(output: str, expected: str) -> float:
    """Return how close two normalised outputs are, in [0, 1]; 1 only when equal, 0 when nothing was printed.

    For numbers the mean of how close their texts and how close their values are, so that 14 is nearer to 15 than 94.
    """
    if output == expected:
        return 1.0
    if not output or not expected:
        return 0.0
    text = _text_similarity(output, expected)
    closeness = _number_closeness(output, expected)
    return min(text if closeness is None else (text + closeness) / 2, MOST_UNSOLVED)


def trend(outputs: Sequence[str], expected: Sequence[str]) -> float | None:
    """Return how well a line through the normalised outputs gives the expected numbers, in [0, 1].

    1 - sqrt(1 - r^2), r Pearson's correlation over the cases: one minus the error that is left of the best factor and
    offset, as a share of the expected numbers' deviation (Keijzer 2003, "Improving symbolic regression with interval
    arithmetic and linear scaling"). 0 where an output is not one plain number, or all are equal. None where
    it does not apply: fewer than three cases, or the expected outputs are not one plain number each, or all equal.
    """
    wanted = _plain_numbers(expected)
    if len(wanted) < TREND_CASES or len(set(wanted)) == 1:
        return None
    got = _plain_numbers(outputs)
    if not got or len(set(got)) == 1:
        return 0.0
    x, y = _deviations(got), _deviations(wanted)
    slope = math.fsum(a * b for a, b in zip(x, y, strict=True)) / math.fsum(a * a for a in x)
    # The residuals and not 1 - r^2, whose rounding error the root would magnify.
    left = math.fsum((b - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    return 1 - math.sqrt(min(1.0, left / math.fsum(b * b for b in y)))


def _plain_numbers(texts: Sequence[str]) -> list[float]:
    """Return the numbers, or none where a text is not one plain number."""
    return [float(text) for text in texts] if all(_NUMBER.fullmatch(text) for text in texts) else []


def _deviations(values: Sequence[float]) -> list[float]:
    """Return the differences from the mean."""
    # A large offset that all have in common would cost the mean its last digits.
    shifted = [value - values[0] for value in values]
    mean = math.fsum(shifted) / len(shifted)
    return [value - mean for value in shifted]


def ignores_input(outputs: Sequence[str], expected: Sequence[str]) -> bool:
    """Return whether the outputs are all the same although the expected ones are not."""
    return len(set(expected)) > 1 and len(set(outputs)) == 1


def _behaviour(executions: Sequence[Execution], outputs: Sequence[str]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for execution, output in zip(executions, outputs, strict=True):
        encoded = output.encode()
        digest.update(f"{execution.status.value} {len(encoded)}\n".encode())
        digest.update(encoded)
    return digest.digest()


def last_line(stderr: bytes) -> str:
    """Return the last line that is not blank, shortened; empty when there is none."""
    return stderr.decode("utf-8", errors="replace").rstrip().rpartition("\n")[2].strip()[:ERROR_CHARACTERS]


def _check(task: Task, executions: Sequence[Execution], cases: Sequence[Case]) -> None:
    if len(executions) != len(cases):
        raise ValueError(f"task {task.name}: {len(executions)} executions for {len(cases)} cases")
    for execution in executions:
        if execution.status is ProgramStatus.SANDBOX_ERROR:
            raise SandboxError(f"task {task.name}: a program was not run: {last_line(execution.stderr)}")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def score_executions(
    task: Task,
    executions: Sequence[Execution],
    settings: RewardSettings,
    *,
    held_out: Sequence[Execution] | None = None,
) -> Score:
    """Return the score of one program from one execution per case.

    Args:
        task: cases, held-out cases and reward settings of its own.
        executions: of the reward cases, in order.
        settings: what the task leaves open.
        held_out: executions of the held-out cases, in order; needed only for a program that solves the reward cases.

    Raises:
        SandboxError: an execution is a fault of the sandbox, of which no score is made.
        ConfigError: the weights are all 0.
    """
    weights = resolve_weights(task, settings)
    _check(task, executions, task.cases)
    expected = [normalise(case.expected_stdout.encode()) for case in task.cases]
    outputs = [output_of(execution) for execution in executions]
    exact = [is_exact(execution, case) for execution, case in zip(executions, task.cases, strict=True)]
    by_case: dict[str, Sequence[float]] = {
        "syntax": [execution.status is not ProgramStatus.SYNTAX_ERROR for execution in executions],
        "runs": [execution.status is ProgramStatus.OK for execution in executions],
        "similarity": [similarity(got, wanted) for got, wanted in zip(outputs, expected, strict=True)],
        "exact": exact,
    }
    components = {name: _mean(values) for name, values in by_case.items()}
    is_solved = all(exact)
    reward = sum(getattr(weights, name) * value for name, value in components.items())
    followed = trend(outputs, expected)
    if followed is not None:
        components["trend"] = followed if all(by_case["runs"]) else 0.0
        reward = (1 - weights.trend) * reward + weights.trend * components["trend"]
    if not is_solved:
        reward = min(reward, MOST_UNSOLVED)
        if ignores_input(outputs, expected):
            reward = min(reward, weights.constant_cap)
    failed = next((item for item in executions if item.status is not ProgramStatus.OK), None)
    return Score(
        status=failed.status if failed else ProgramStatus.OK,
        reward=1.0 if is_solved else max(0.0, reward),
        components=components,
        cases_passed=sum(exact),
        cases=len(task.cases),
        solved=is_solved,
        verified=is_solved and _is_verified(task, held_out),
        behaviour=_behaviour(executions, outputs),
        error=last_line(failed.stderr) if failed else "",
        case_rewards=_case_rewards(by_case, weights),
    )


def _case_rewards(by_case: Mapping[str, Sequence[float]], weights: Weights) -> tuple[float, ...]:
    """Return the reward of each case as if it were the only one: 1.0 where it is exact and nowhere else."""
    weighted = [[getattr(weights, name) * value for value in values] for name, values in by_case.items()]
    sums = [max(0.0, min(sum(parts), MOST_UNSOLVED)) for parts in zip(*weighted, strict=True)]
    return tuple(1.0 if exact else value for exact, value in zip(by_case["exact"], sums, strict=True))


def _is_verified(task: Task, held_out: Sequence[Execution] | None) -> bool:
    if held_out is None:
        return not task.held_out
    _check(task, held_out, task.held_out)
    return all(is_exact(execution, case) for execution, case in zip(held_out, task.held_out, strict=True))
