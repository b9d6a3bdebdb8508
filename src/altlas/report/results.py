"""The results of a comparison: a CSV file, one line a run, added to as runs end.

Invariants: a run has at most one line; a line is written whole and synced, or cut off when the file is opened again; a
run that failed has none. Programs are JSON strings, so that a line of the file is a row.
"""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from altlas.errors import AltlasError, ConfigError

Key = tuple[str, str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finished run.

    Attributes:
        task: pack/name or a path.
        algorithm: the label that it has in tables.
        settings: the algorithm and every setting of the run that differs from config.ini's.
        seed: of the run.
        budget: the most programs that it might sample.
        programs: sampled, duplicates included.
        solved: a program was exact on the task's cases.
        verified: a program was exact on the held-out cases too.
        programs_to_solve: the position of the first solved program, counted from 1; None where there is none.
        programs_to_verify: the position of the first verified one.
        best_reward: of the best program.
        unique: programs that differ from all before them.
        evaluated: programs that were run.
        wall_s: of the whole command, start and shrinking included.
        cpu_s: user and system time of the whole command and of all its processes.
        program: the best one.
        shrunk_program: what shrinking left of it; empty where it is not verified.
        version: of altlas.
        commit: of the checkout; empty where there is none.
        started_at: UTC, ISO 8601.
    """

    task: str
    algorithm: str
    settings: str
    seed: int
    budget: int
    programs: int
    solved: bool
    verified: bool
    programs_to_solve: int | None
    programs_to_verify: int | None
    best_reward: float
    unique: int
    evaluated: int
    wall_s: float
    cpu_s: float
    program: str
    shrunk_program: str
    version: str
    commit: str
    started_at: str

    @property
    def key(self) -> Key:
        """What makes it the same run: task, settings, seed, budget."""
        return self.task, self.settings, self.seed, self.budget


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
_BOOLEANS = {"0": False, "1": True}
_READERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": lambda text: _BOOLEANS[text],
    "int | None": lambda text: int(text) if text else None,
}
_JSON_COLUMNS = ("program", "shrunk_program")


class ResultsFile:
    """The file, held for writing by one process at a time. A context manager."""

    def __init__(self, path: Path, *, say: Callable[[str], None]) -> None:
        """Open or create the file, and read what is there.

        Args:
            path: of the file; its directory is made.
            say: told when a line had been cut short and is taken away.

        Raises:
            ConfigError: another process writes to it, or it is not a file of results.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                advice = "wait for it, or give this comparison another --name"
                raise ConfigError(f"{path}: another `altlas bench` is writing to it: {advice}") from error
            self._repair(say)
            if not os.fstat(self._descriptor).st_size:
                self._write(",".join(COLUMNS) + "\n")
            self.rows = read_results(path)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def append(self, row: Row) -> None:
        """Add a run, durably."""
        self._write(_to_line(row))
        self.rows.append(row)

    def _repair(self, say: Callable[[str], None]) -> None:
        content = self._path.read_bytes()
        torn = len(content) - (content.rfind(b"\n") + 1)
        if torn:
            os.ftruncate(self._descriptor, len(content) - torn)
            say(f"warning: {self._path}: the last line had been cut short; its {torn} bytes are taken away, its run is")
            say("run again")

    def _write(self, line: str) -> None:
        content = line.encode()
        if os.write(self._descriptor, content) != len(content):
            raise AltlasError(
                f"{self._path}: a line was written in part: is the disk full? The rest is repaired next time"
            )
        os.fsync(self._descriptor)


def read_results(path: Path) -> list[Row]:
    """Return the rows of a file, in its order.

    Raises:
        ConfigError: no such file, other columns, a value that is none, or one run twice; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the results {path}: {error}; check --out and --name") from error
    header, *lines = text.removesuffix("\n").split("\n")
    if header.split(",") != list(COLUMNS):
        raise ConfigError(f"{path}: its columns are {header}, not {','.join(COLUMNS)}: give another --name")
    rows = []
    lines_by_key: dict[Key, int] = {}
    for number, line in enumerate(lines, start=2):
        row = _from_line(line, where=f"{path}:{number}")
        if row.key in lines_by_key:
            raise ConfigError(f"{path}:{number}: the same run as line {lines_by_key[row.key]}: take one of them away")
        lines_by_key[row.key] = number
        rows.append(row)
    return rows


def check_labels(rows: Sequence[Row]) -> None:
    """Check that a label always stands for the same settings.

    Raises:
        ConfigError: one stands for two.
    """
    settings_by_label: dict[str, str] = {}
    for row in rows:
        known = settings_by_label.setdefault(row.algorithm, row.settings)
        if known != row.settings:
            raise ConfigError(
                f"{row.algorithm!r} would stand for two things, {known!r} and {row.settings!r}: give the one a label "
                f"of its own (--algorithms other={row.algorithm}), or this comparison another --name"
            )


def _to_line(row: Row) -> str:
    def write(name: str, value: object) -> object:
        if name in _JSON_COLUMNS:
            return json.dumps(value)
        return int(value) if isinstance(value, bool) else "" if value is None else value

    line = io.StringIO()
    values = [write(name, getattr(row, name)) for name in COLUMNS]
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _from_line(line: str, *, where: str) -> Row:
    fields = next(csv.reader([line]), [])
    if len(fields) != len(COLUMNS):
        raise ConfigError(
            f"{where}: {len(fields)} values, not {len(COLUMNS)}: take the line away, its run is run again"
        )
    values: dict[str, Any] = {}
    for field, text in zip(dataclasses.fields(Row), fields, strict=True):
        try:
            values[field.name] = json.loads(text) if field.name in _JSON_COLUMNS else _READERS[str(field.type)](text)
        except (ValueError, KeyError) as error:
            raise ConfigError(
                f"{where}: {text!r} is no {field.name}: take the line away, its run is run again"
            ) from error
    return Row(**values)
