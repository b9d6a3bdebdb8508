"""Rewards for language models that write programs: one function in the shape that TRL takes, one in verl's.

Both name the task with each completion: pack/name or the path of a task file. An evaluator that fails raises
AltlasError, which ends the training step; it never becomes a reward of 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from altlas.client import Evaluator

Message: TypeAlias = Mapping[str, Any]

# Connects when first used, so that every worker process has a connection of its own.
EVALUATOR = Evaluator(os.environ.get("ALTLAS_EVALUATOR", "127.0.0.1:50054"))

# A fence still open at the end counts: a model may be stopped at the closing one.
_FENCE = re.compile(r"^[ \t]*```(?:python|py)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL | re.IGNORECASE)


def reward(completions: Sequence[str | Sequence[Message]], *, task: Sequence[str], **columns: Any) -> list[float]:
    """Return a reward in [0, 1] per completion: `GRPOTrainer(reward_funcs=reward, ...)`.

    Args:
        completions: texts, or chat messages of which the last is the model's.
        task: the dataset's column `task`.
        columns: what else TRL passes: prompts, completion_ids, trainer_state, other columns.

    Raises:
        AltlasError: the evaluator failed, or there is no such task.
    """
    programs = [extract_program(_text_of(completion)) for completion in completions]
    by_task: dict[str, list[int]] = {}
    for index, (name, _) in enumerate(zip(task, programs, strict=True)):
        by_task.setdefault(name, []).append(index)
    rewards: dict[int, float] = {}
    for name, indices in by_task.items():
        scores = EVALUATOR.evaluate(name, [programs[index] for index in indices])
        rewards |= {index: score.reward for index, score in zip(indices, scores, strict=True)}
    return [rewards[index] for index in range(len(programs))]


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    **settings: Any,
) -> float:
    """Return the reward in [0, 1] of one completion: verl's custom_reward_function.

    verl calls it from many threads at once; their programs run side by side.

    Args:
        data_source: the data set's name; not used.
        solution_str: the completion.
        ground_truth: the task, from `reward_model.ground_truth` in the data set.
        extra_info: what else the data set says; not used.
        settings: verl's reward_kwargs; not used.

    Raises:
        AltlasError: the evaluator failed, or there is no such task.
    """
    return EVALUATOR.evaluate(ground_truth, [extract_program(solution_str)])[0].reward


def extract_program(text: str) -> str:
    """Return the program in a completion: its last ```python block, or all of it where there is none."""
    blocks = _FENCE.findall(text)
    return blocks[-1] if blocks else text


def _text_of(completion: str | Sequence[Message]) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"] or ""
