"""A task: what a program is to print for which input, and how it is graded. Parsed from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Collection

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from altlas.core.program import Limits
from altlas.errors import TaskError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Case(_Strict):
    """One input and the output it must give. Outputs are compared without trailing white space."""

    stdin: str = ""
    expected_stdout: str


class TaskLimits(_Strict):
    """Limits of one run of a program on one case."""

    cpu_s: float = Field(0.1, gt=0)
    wall_s: float = Field(1.0, gt=0)
    memory_bytes: int = Field(64 << 20, ge=16 << 20)
    output_bytes: int = Field(16 << 10, ge=1)


class RewardOverrides(_Strict):
    """Reward settings that a task sets for itself; None leaves config.ini's."""

    syntax: float | None = Field(None, ge=0, le=1)
    runs: float | None = Field(None, ge=0, le=1)
    similarity: float | None = Field(None, ge=0, le=1)
    exact: float | None = Field(None, ge=0, le=1)
    constant_cap: float | None = Field(None, ge=0, le=1)


class Task(_Strict):
    """A whole task file."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    description: str
    language: str = Field("python", pattern=r"^[a-z][a-z0-9_+-]*$")
    vocabulary: str = "python"
    reference: str
    budget: int = Field(60_000, ge=1)
    # Twice what a solution needs is much harder to learn: most of what is sampled at first is as long as it may be.
    max_tokens: int = Field(20, ge=2, le=1024)
    limits: TaskLimits = TaskLimits()
    reward: RewardOverrides = RewardOverrides()
    cases: tuple[Case, ...] = Field(min_length=1)
    held_out: tuple[Case, ...] = ()

    @field_validator("language")
    @classmethod
    def _check_language(cls, language: str, info: ValidationInfo) -> str:
        known: Collection[str] | None = (info.context or {}).get("languages")
        if known is not None and language not in known:
            raise ValueError(f"{language!r} is unknown; choose from {', '.join(known)}")
        return language

    @property
    def program_limits(self) -> Limits:
        """The limits in the sandbox's terms."""
        return Limits(**self.limits.model_dump())


def parse_task(text: str, *, where: str, languages: Collection[str] | None = None) -> Task:
    """Parse a task file's text.

    Args:
        text: TOML.
        where: names it in errors.
        languages: those that programs can be run in; None where that is not known here.

    Raises:
        TaskError: not TOML, or a field is missing, unknown or out of range; the message lists every one.
    """
    try:
        return Task.model_validate(tomllib.loads(text), context={"languages": languages})
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}" for item in error.errors()
        ]
        raise TaskError(f"{where}: " + "; ".join(lines)) from error
    except (ValueError, RecursionError) as error:  # not TOML, a number of too many digits, nested too deeply
        raise TaskError(f"{where}: not valid TOML: {error}") from error
