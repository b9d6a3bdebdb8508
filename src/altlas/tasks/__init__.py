"""Built-in task packs, and how a task or a vocabulary named on the command line is found.

A pack is a directory here; a task is a TOML file in it, known as pack/name. A pack.ini beside a task, here or where a
user keeps it, holds settings that its tasks are better learned with.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from altlas.config.sections import Config
from altlas.core.curriculum import task_budgets, task_lengths, with_max_tokens
from altlas.core.task import Task, parse_task
from altlas.errors import TaskError, VocabularyError

_SUFFIX = ".toml"
_PACK_FILE = "pack.ini"


def list_tasks() -> list[str]:
    """Return the built-in tasks as pack/name, sorted."""
    return sorted(_built_in())


def expand_references(text: str) -> list[str]:
    """Return the tasks that a list of tasks and packs names, separated by commas, in that order.

    A pack's tasks come with the smallest budget first, then the shortest programs, then the shortest reference
    solution; those without one are last.

    Raises:
        TaskError: a task of a pack is wrong.
    """
    if text in _built_in() or Path(text).is_file():
        return [text]
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [task for part in parts or [text] for task in _pack_tasks(part) or [part]]


def _pack_tasks(pack: str) -> list[str]:
    tasks = [name for name in list_tasks() if name.partition("/")[0] == pack]
    return sorted(tasks, key=lambda name: _difficulty(load_task(name)[0])) if len(tasks) > 1 else tasks


def _difficulty(task: Task) -> tuple[int, int, float, str]:
    return task.budget, task.max_tokens, len(task.reference) or math.inf, task.name


def load_task(reference: str, *, languages: Collection[str] | None = None) -> tuple[Task, str]:
    """Return a task and the TOML text it was parsed from.

    Args:
        reference: pack/name or the path of a .toml file.
        languages: those that programs can be run in; None where that is not known here.

    Raises:
        TaskError: no such task or file, or the file is wrong.
    """
    built_in = _built_in().get(reference)
    if built_in is not None:
        text = built_in.read_text(encoding="utf-8")
    elif reference.endswith(_SUFFIX):
        text = _read_task_file(reference)
    else:
        raise TaskError(f"no task {reference!r}{_suggest(reference)}; `altlas tasks list` shows all of them")
    return parse_task(text, where=reference, languages=languages), text


def pack_file(reference: str) -> Traversable | None:
    """Return the settings that lie beside a task, None where there are none.

    Raises:
        TaskError: no such task.
    """
    if reference in _built_in():
        beside = resources.files(__name__) / reference.partition("/")[0] / _PACK_FILE
    elif reference.endswith(_SUFFIX):
        beside = Path(reference).parent / _PACK_FILE
    else:
        raise TaskError(f"no task {reference!r}{_suggest(reference)}; `altlas tasks list` shows all of them")
    return beside if beside.is_file() else None


def with_task_defaults(config: Config, *tasks: Task) -> Config:
    """Return the configuration with the tasks' own values where a setting is 0: run.budget, sampling.max_tokens.

    Of several tasks the budget is the sum of theirs, and max_tokens stays 0: each has its own.
    """
    budget = config.run.budget or sum(task_budgets(config, tasks))
    config = config.model_copy(update={"run": config.run.model_copy(update={"budget": budget})})
    return config if len(tasks) > 1 else with_max_tokens(config, *task_lengths(config, tasks))


def load_vocabulary_text(path: str) -> str:
    """Return the text of a vocabulary document; an empty path means the one that ships with altlas.

    Raises:
        VocabularyError: the file cannot be read.
    """
    file = Path(path) if path else _shipped_vocabulary()
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        advice = "set paths.vocabulary to a vocabulary file, or leave it empty for the shipped one"
        raise VocabularyError(f"cannot read the vocabulary {file}: {error}; {advice}") from error


def _shipped_vocabulary() -> Traversable:
    """The wheel carries the file inside the package; a source checkout has it in memory/."""
    packaged = resources.files("altlas") / "data" / "vocab.json"
    return packaged if packaged.is_file() else Path(__file__).parents[3] / "memory" / "vocab.json"


def _built_in() -> dict[str, Traversable]:
    packs = [entry for entry in resources.files(__name__).iterdir() if entry.is_dir()]
    return {
        f"{pack.name}/{file.name.removesuffix(_SUFFIX)}": file
        for pack in packs
        for file in pack.iterdir()
        if file.name.endswith(_SUFFIX)
    }


def _read_task_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(
            f"cannot read the task file {path}: {error}; check the path, or name a built-in task"
        ) from error


def _suggest(reference: str) -> str:
    known = list_tasks()
    names = dict.fromkeys(task.partition("/")[2] for task in known)
    packs = dict.fromkeys(task.partition("/")[0] for task in known)
    near = difflib.get_close_matches(reference, [*known, *packs], n=2)
    for name in difflib.get_close_matches(reference.rpartition("/")[2], names, n=2):
        near += [task for task in known if task.endswith(f"/{name}")]
    return f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
