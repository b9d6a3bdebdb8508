"""What an evaluator needs to grade: a task together with the reward settings. Its digest names it everywhere, so that
a score found under a fingerprint was given by the same cases and the same weights.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pydantic import ValidationError

from altlas.config.sections import RewardSection
from altlas.core.task import Task, parse_task
from altlas.errors import TaskError


@dataclass(frozen=True, slots=True)
class Grading:
    """A task and its reward settings; `text` is the document and `digest` its hexadecimal SHA-256."""

    task: Task
    reward: RewardSection
    text: str
    digest: str


def make_grading(task_toml: str, reward: RewardSection, *, where: str) -> Grading:
    """Join a task file's text and reward settings into a grading.

    Raises:
        TaskError: the task file is wrong; `where` names it.
    """
    text = json.dumps({"task": task_toml, "reward": reward.model_dump()}, sort_keys=True)
    return Grading(
        task=parse_task(task_toml, where=where),
        reward=reward,
        text=text,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def parse_grading(text: str, *, where: str) -> Grading:
    """Parse a grading document.

    Raises:
        TaskError: not such a document.
    """
    try:
        fields = json.loads(text)
        return make_grading(fields["task"], RewardSection.model_validate(fields["reward"]), where=where)
    except (json.JSONDecodeError, KeyError, TypeError, ValidationError) as error:
        raise TaskError(f"{where}: not a grading document: {error}") from error
