"""From the ways to name a task to the text that travels to the evaluator, which parses it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from altlas.core.task import Task
from altlas.tasks import load_task


def task_text(task: str | Path | Task) -> str:
    """Return a task's TOML; `task` is pack/name, the path of a .toml file, or a task already parsed.

    Raises:
        TaskError: no such task or file, or the file is wrong.
    """
    return write_task(task) if isinstance(task, Task) else load_task(str(task))[1]


def write_task(task: Task) -> str:
    """Return TOML that parses to an equal task."""
    fields = task.model_dump(exclude_none=True)
    return "".join(f"{key} = {_write(value)}\n" for key, value in fields.items())


def _write(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_write(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_write, value)) + "]"
    # TOML's strings and numbers are JSON's, but that it has no surrogate pairs and wants U+007F escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
