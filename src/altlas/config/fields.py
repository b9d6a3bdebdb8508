"""What the sections say about themselves: every key with its type, range, default and meaning, in words.

The loader's errors, config.ini's comments and docs/configuration.md all speak through this module, so they agree.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic.fields import FieldInfo

from altlas.config.sections import Config, Section

Value = str | int | float | bool

# The attribute under which pydantic keeps a bound, and how to say it.
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of config.ini. `allowed` says in words what it may be set to."""

    section: str
    name: str
    allowed: str
    default: str
    description: str

    @property
    def path(self) -> str:
        """The key as `--set` names it: section.key."""
        return f"{self.section}.{self.name}"


def section_types() -> Mapping[str, type[Section]]:
    """Return the sections by name, in the order of config.ini."""
    return {name: typing.cast(type[Section], field.annotation) for name, field in Config.model_fields.items()}


def section_summary(section: str) -> str:
    """Return what a section is about, on one line."""
    return " ".join((inspect.getdoc(section_types()[section]) or "").split())


def keys_of(section: str) -> Iterator[Key]:
    """Yield the keys of one section in order."""
    for name, field in section_types()[section].model_fields.items():
        yield Key(
            section=section,
            name=name,
            allowed=_allowed(field),
            default=value_text(field.default),
            description=field.description or "",
        )


def all_keys() -> Mapping[str, Key]:
    """Return every key by its path."""
    return {key.path: key for section in section_types() for key in keys_of(section)}


def value_text(value: Value) -> str:
    """Return a value as it is written in config.ini."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _allowed(field: FieldInfo) -> str:
    annotation = field.annotation
    if typing.get_origin(annotation) is typing.Literal:
        choices = [str(choice) for choice in typing.get_args(annotation)]
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    if annotation is bool:
        return "true or false"
    if annotation is str:
        return "text"
    noun = "a whole number" if annotation is int else "a number"
    bounds = {kind: _number(getattr(item, kind)) for item in field.metadata for kind in _BOUNDS if hasattr(item, kind)}
    if bounds.keys() == {"ge", "le"}:
        return f"{noun} from {bounds['ge']} to {bounds['le']}"
    return (
        f"{noun} {', '.join(f'{words} {bounds[kind]}' for kind, words in _BOUNDS.items() if kind in bounds)}".rstrip()
    )


def _number(bound: float) -> str:
    if isinstance(bound, float) and bound.is_integer():
        bound = int(bound)
    if isinstance(bound, int) and bound >= 2**20 and bound & (bound - 1) == 0:
        return f"2^{bound.bit_length() - 1}"
    return str(bound)
