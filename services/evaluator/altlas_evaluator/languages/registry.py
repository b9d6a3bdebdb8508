"""Which languages can be run here. The evaluator's side: nothing of a language is imported in this process."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points

ENTRY_POINT_GROUP = "altlas.languages"
BRAINF = "brainf"


@dataclass(frozen=True, slots=True)
class LanguageSource:
    """Where a launcher finds a language: the module, and the directories to import it from, gone before it is used."""

    module: str
    search_path: tuple[str, ...] = ()


@functools.cache
def languages() -> Mapping[str, LanguageSource]:
    """Return the sandboxed languages by name, "python" first; those of entry points last, never in place of ours."""
    found = {"python": LanguageSource("altlas_evaluator.languages.python")}
    search_path = tuple(path for path in sys.path if path)
    if importlib.util.find_spec("_quickjs") is not None:
        found["javascript"] = LanguageSource("altlas_evaluator.languages.javascript", search_path)
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        if entry.name != BRAINF:
            found.setdefault(entry.name, LanguageSource(entry.value, search_path))
    return found


def task_languages() -> list[str]:
    """Return the languages that tasks can be scored in here: the sandboxed ones and, with numba installed, brainf."""
    has_numba = importlib.util.find_spec("numba") is not None
    return [*languages(), *([BRAINF] if has_numba else [])]
