"""A task: what a program is to print for which input, and how it is graded. Parsed from TOML.

Cases are text, stdin and expected_stdout, or for brainf integers, input and expected; those of a task are of one kind.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from altlas.core.program import Limits
from altlas.errors import TaskError

BRAINF = "brainf"
MAX_BRAINF_BASE = 1 << 31
MAX_BRAINF_STEPS = 1_000_000

_ABSENT = "\0"  # a default that validation takes away
_Cell = Annotated[int, Field(strict=True, ge=-(1 << 63), lt=1 << 63)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Case(_Strict):
    """One input and the output it must give: text, compared without trailing white space, or for brainf integers.

    A text case has None for `input` and `expected`; one of integers has empty text.
    """

    stdin: str = ""
    input: tuple[_Cell, ...] | None = None
    expected: tuple[_Cell, ...] | None = None
    expected_stdout: str = Field(_ABSENT, validate_default=True)

    @field_validator("expected_stdout")
    @classmethod
    def _check_expectation(cls, text: str, info: ValidationInfo) -> str:
        if text != _ABSENT:
            return text
        if info.data.get("expected") is None:
            raise ValueError("is missing (expected, for brainf)")
        return ""

    def fault(self, language: str) -> str:
        """Return what keeps it from being a case of a language; empty where nothing does."""
        if language == BRAINF:
            if self.stdin or self.expected_stdout:
                return "brainf reads and writes integers: give input and expected, not stdin and expected_stdout"
            return "expected is missing" if self.expected is None else ""
        if self.input is not None or self.expected is not None:
            return f"{language} reads and writes text: give stdin and expected_stdout, not input and expected"
        return ""


class BrainfSettings(_Strict):
    """What a brainf task is run and graded with; see docs/brainf.md."""

    base: int = Field(256, ge=1, le=MAX_BRAINF_BASE)
    max_steps: int = Field(5000, ge=1, le=MAX_BRAINF_STEPS)
    length_reward: bool = False


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
    trend: float | None = Field(None, ge=0, le=1)
    constant_cap: float | None = Field(None, ge=0, le=1)


class Task(_Strict):
    """A whole task file."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str
    language: str = Field("python", pattern=r"^[a-z][a-z0-9_+-]*$")
    vocabulary: str = "python"
    reference: str = Field("", validate_default=True)  # for brainf the solution may be unknown
    budget: int = Field(60_000, ge=1)
    # Twice what a solution needs is much harder to learn: most of what is sampled at first is as long as it may be.
    max_tokens: int = Field(20, ge=2, le=1024)
    limits: TaskLimits = TaskLimits()
    reward: RewardOverrides = RewardOverrides()
    brainf: BrainfSettings = BrainfSettings()
    cases: tuple[Case, ...] = Field(min_length=1)
    held_out: tuple[Case, ...] = ()

    @field_validator("language")
    @classmethod
    def _check_language(cls, language: str, info: ValidationInfo) -> str:
        known: Collection[str] | None = (info.context or {}).get("languages")
        if known is not None and language not in known:
            if language == BRAINF:
                raise ValueError("brainf needs numba, which is missing here: pip install 'altlas[brainf]'")
            raise ValueError(f"{language!r} is unknown; choose from {', '.join(known)}")
        return language

    @field_validator("reference")
    @classmethod
    def _check_reference(cls, reference: str, info: ValidationInfo) -> str:
        if not reference and info.data.get("language") != BRAINF:
            raise ValueError("a solution is required; only brainf tasks may do without")
        return reference

    @field_validator("limits", "reward")
    @classmethod
    def _check_sandboxed(cls, table: _Strict, info: ValidationInfo) -> _Strict:
        if info.data.get("language") == BRAINF and table != type(table)():
            raise ValueError("has no meaning for brainf, whose steps and reward are set in [brainf]")
        return table

    @field_validator("brainf")
    @classmethod
    def _check_brainf(cls, table: BrainfSettings, info: ValidationInfo) -> BrainfSettings:
        language = info.data.get("language", BRAINF)
        if language != BRAINF and table != BrainfSettings():
            raise ValueError(f"is for brainf tasks alone, and this one's language is {language}")
        return table

    @field_validator("cases", "held_out")
    @classmethod
    def _check_cases(cls, cases: tuple[Case, ...], info: ValidationInfo) -> tuple[Case, ...]:
        language = info.data.get("language")
        faults = [(number, case.fault(language)) for number, case in enumerate(cases, start=1) if language is not None]
        found = [f"case {number}: {fault}" for number, fault in faults if fault]
        if found:
            raise ValueError(found[0] + (f", and {len(found) - 1} more like it" if len(found) > 1 else ""))
        return cases

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
