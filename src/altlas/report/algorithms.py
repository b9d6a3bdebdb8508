"""What is compared: an algorithm of the configuration, or a preset, with settings of its own and a label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from altlas.config.loader import preset_names
from altlas.config.sections import AlgorithmSection
from altlas.errors import ConfigError

_FORM = "[LABEL=]NAME[:section.key=value[;section.key=value ...]]"
_NAME = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """One column of the comparison.

    Attributes:
        label: its name in tables and plots.
        name: a value of algorithm.name, or else a preset.
        overrides: its own settings, section.key=value.
    """

    label: str
    name: str
    overrides: tuple[str, ...] = ()

    @property
    def is_preset(self) -> bool:
        """Whether the name is not one of the configuration's algorithms."""
        return self.name not in configured_names()

    @property
    def preset(self) -> str | None:
        """The preset, where it is one."""
        return self.name if self.is_preset else None

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of `altlas train` that choose the algorithm; its settings come after the run's own."""
        return ("--preset", self.name) if self.is_preset else ("--set", f"algorithm.name={self.name}")


def configured_names() -> tuple[str, ...]:
    """Return the values that algorithm.name may have."""
    return get_args(AlgorithmSection.model_fields["name"].annotation)


def parse_algorithms(text: str) -> tuple[Algorithm, ...]:
    """Return the algorithms of a list that is separated by commas.

    Raises:
        ConfigError: an item that is not of the form, a name that is not known, or a label twice.
    """
    algorithms = tuple(_parse(item.strip()) for item in text.split(",") if item.strip())
    if not algorithms:
        raise ConfigError(f"--algorithms {text!r} names none: {_FORM}, separated by commas")
    labels = [algorithm.label for algorithm in algorithms]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"--algorithms: {label!r} is there twice: give one a label of its own, {_FORM}")
    return algorithms


def _parse(item: str) -> Algorithm:
    head, colon, tail = item.partition(":")
    label, equals, name = head.partition("=")
    name = name if equals else head
    overrides = tuple(part.strip() for part in tail.split(";") if part.strip())
    if not _NAME.fullmatch(name) or (equals and not label) or (colon and not overrides) or not _are_settings(overrides):
        raise ConfigError(f"--algorithms: {item!r} is not of the form {_FORM}")
    if name not in (*configured_names(), *preset_names()):
        known = f"algorithms: {', '.join(configured_names())}; presets: {', '.join(preset_names())}"
        raise ConfigError(f"--algorithms: there is no {name!r}; {known}")
    return Algorithm(label=label if equals else item, name=name, overrides=overrides)


def _are_settings(overrides: Sequence[str]) -> bool:
    return all(re.match(r"\w+\.\w+=", override) for override in overrides)
