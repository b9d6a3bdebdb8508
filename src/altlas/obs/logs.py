"""Logging, configured once per process: text for people, JSON for machines, with the run and update a line is about."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Literal

RUN_ID: ContextVar[str] = ContextVar("run_id", default="")
UPDATE: ContextVar[int | None] = ContextVar("update", default=None)


class _TextFormatter(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-7s {role}: %(message)s", datefmt="%Y-%m-%d %H:%M:%S")


class _JsonFormatter(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if RUN_ID.get():
            fields["run"] = RUN_ID.get()
        if UPDATE.get() is not None:
            fields["update"] = UPDATE.get()
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def make_handler(
    target: Path | IO[str], *, role: str, log_format: Literal["text", "json"]
) -> logging.StreamHandler[IO[str]] | logging.FileHandler:
    """Return a handler that writes to a stream, or appends to a file."""
    handler: logging.StreamHandler[IO[str]] | logging.FileHandler = (
        logging.FileHandler(target, encoding="utf-8") if isinstance(target, Path) else logging.StreamHandler(target)
    )
    handler.setFormatter(_JsonFormatter(role) if log_format == "json" else _TextFormatter(role))
    return handler


def configure_logging(*, role: str, level: str, log_format: Literal["text", "json"]) -> None:
    """Send this process's log to stderr. Called once, by the entry point."""
    logging.basicConfig(
        level=level.upper(), handlers=[make_handler(sys.stderr, role=role, log_format=log_format)], force=True
    )
