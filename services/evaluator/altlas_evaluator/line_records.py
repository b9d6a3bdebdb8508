"""The records that `altlas execute` and `altlas score` read, one JSON object a line, checked in full."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from altlas.core.program import Limits
from altlas.core.task import BRAINF, MAX_BRAINF_BASE, MAX_BRAINF_STEPS

RecordId = str | int | float | None


class RecordError(Exception):
    """A line is not a record that can be worked on. `record_id` is its id where one could be read."""

    def __init__(self, message: str, record_id: RecordId) -> None:
        super().__init__(message)
        self.record_id = record_id


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class LimitsRecord(_Strict):
    """Limits of one program; those left out are the defaults."""

    cpu_s: float | None = Field(None, gt=0)
    wall_s: float | None = Field(None, gt=0)
    memory_bytes: int | None = Field(None, gt=0)
    output_bytes: int | None = Field(None, gt=0)
    open_files: int | None = Field(None, gt=0)
    processes: int | None = Field(None, ge=0)
    file_bytes: int | None = Field(None, ge=0)


def _decode(text: str | None, encoded: str | None) -> bytes | None:
    if text is not None:
        return text.encode()
    if encoded is None:
        return None
    return base64.b64decode(encoded, validate=True)


class _SourceRecord(_Strict):
    id: RecordId = None
    source: str | None = None
    source_base64: str | None = None
    language: str | None = None

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.source is None) == (self.source_base64 is None):
            raise ValueError("give source or source_base64, one of them")
        _check_base64("source_base64", self.source_base64)
        return self

    @property
    def source_bytes(self) -> bytes:
        """The program's source."""
        return _decode(self.source, self.source_base64) or b""


def _check_base64(name: str, encoded: str | None) -> None:
    try:
        _decode(None, encoded)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{name} is not base64: {error}") from error


class ScoreRecord(_SourceRecord):
    """A program to score; its inputs and limits are the task's."""


_TEXT_KEYS = ("stdin", "stdin_base64", "limits")
_INTEGER_KEYS = ("input", "base", "max_steps", "require_correct_syntax")


class ExecuteRecord(_SourceRecord):
    """A program to run once: with text as its input and limits, or in brainf with integers and steps."""

    stdin: str | None = None
    stdin_base64: str | None = None
    limits: LimitsRecord = LimitsRecord()
    input: list[Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]] = []
    base: int = Field(256, ge=1, le=MAX_BRAINF_BASE)
    max_steps: int = Field(5000, ge=1, le=MAX_BRAINF_STEPS)
    require_correct_syntax: bool = False

    @model_validator(mode="after")
    def _check_stdin(self) -> Self:
        if self.stdin is not None and self.stdin_base64 is not None:
            raise ValueError("give stdin or stdin_base64, not both")
        _check_base64("stdin_base64", self.stdin_base64)
        return self

    def misplaced_keys(self, language: str) -> Sequence[str]:
        """Return the keys given that mean nothing in a language."""
        return [key for key in (_TEXT_KEYS if language == BRAINF else _INTEGER_KEYS) if key in self.model_fields_set]

    @property
    def stdin_bytes(self) -> bytes:
        """The program's input."""
        return _decode(self.stdin, self.stdin_base64) or b""

    def limits_within(self, defaults: Limits) -> Limits:
        """Return the limits asked for, the defaults for those left out."""
        given = self.limits.model_dump(exclude_none=True)
        return replace(defaults, **given)


_SURROGATE = re.compile("[\ud800-\udfff]")
_UNION_BRANCHES = ("str", "int", "float")  # pydantic reports one problem for each type that an id may have

Record = TypeVar("Record", bound=_SourceRecord)


def _find_id(line: bytes) -> RecordId:
    """Return the id of a record that is wrong otherwise, for its error record."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    found = fields.get("id") if isinstance(fields, dict) else None
    is_number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    is_text = isinstance(found, str) and not _SURROGATE.search(found)  # half a pair has no place in UTF-8
    return found if is_text or is_number else None


def parse_record(kind: type[Record], line: bytes) -> Record:
    """Return the record on a line.

    Raises:
        RecordError: not JSON, not an object, or a key is missing, unknown, of the wrong type or out of range; the
            message lists every one.
    """
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        problems = []
        for item in error.errors(include_url=False, include_input=False):
            where = ".".join(str(part) for part in item["loc"] if part not in _UNION_BRANCHES)
            message = item["msg"].removeprefix("Value error, ").replace("Extra inputs are not permitted", "unknown key")
            problems.append(f"{where}: {message}" if where else message)
        raise RecordError("; ".join(dict.fromkeys(problems)), _find_id(line)) from error
