"""What a run leaves in its directory, besides checkpoints: training.log, metrics.jsonl, attempts.sqlite and the best
program. Junk is counted, not stored: an attempt is kept when it is the best so far, is new and solves the task, or is
sampled.

They tell of one line of updates: what a run has done since a checkpoint goes when it goes back there.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from altlas.core.score import Score
from altlas.obs.logs import make_handler

_RUN_LOGGER = "altlas_coordinator"
# Below the logger whose lines training.log holds.
LOGGER = logging.getLogger(f"{_RUN_LOGGER}.run_files")
_EXTENSIONS = {"python": "py", "javascript": "js", "brainf": "bf"}
# A commit waits for the disk, longer than a small batch takes. What a kill loses of it are sampled attempts alone.
_COMMIT_EVERY_S = 1.0
_CHUNK_BYTES = 65536
_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
    program INTEGER PRIMARY KEY,  -- position in the run, counted from 0
    update_number INTEGER NOT NULL,
    kept_for TEXT NOT NULL,       -- best, solved or sampled
    status TEXT NOT NULL,
    reward REAL NOT NULL,
    cases_passed INTEGER NOT NULL,
    cases INTEGER NOT NULL,
    solved INTEGER NOT NULL,
    verified INTEGER NOT NULL,
    error TEXT NOT NULL,
    source TEXT NOT NULL,
    task TEXT NOT NULL
)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A program worth keeping; `program` is its position in the run, `task` its task's name."""

    program: int
    task: str
    update: int
    kept_for: Literal["best", "solved", "sampled"]
    score: Score
    source: str


class RunFiles:
    """The open files of one run of some tasks, named. `close` when the run ends."""

    def __init__(
        self,
        run_dir: Path,
        *,
        tasks: Sequence[str],
        language: str,
        log_format: Literal["text", "json"],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        extension = _EXTENSIONS.get(language, "txt")
        self._best = {
            task: run_dir / f"best_program.{label}{extension}"
            for task, label in zip(tasks, file_labels(tasks), strict=True)
        }
        self._log = make_handler(run_dir / "training.log", role="coordinator", log_format=log_format)
        logging.getLogger(_RUN_LOGGER).addHandler(self._log)
        self._metrics_path = run_dir / "metrics.jsonl"
        _drop_torn_line(self._metrics_path)
        self._metrics = self._metrics_path.open("a", encoding="utf-8")
        self._attempts = sqlite3.connect(run_dir / "attempts.sqlite")
        self._attempts.execute(_SCHEMA)
        _name_tasks(self._attempts, tasks[0])
        self._clock = clock
        self._committed_at = clock()

    def record_update(self, figures: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        self._metrics.write(json.dumps(figures, sort_keys=True) + "\n")
        self._metrics.flush()

    def keep_attempts(self, attempts: Sequence[Attempt]) -> None:
        """Store attempts; one stored already (an update done again after a resume) is replaced by its equal.

        The best and the solved are on disk when this returns, the sampled ones with them or about a second later.
        """
        if not attempts:
            return
        rows = [
            (
                attempt.program,
                attempt.update,
                attempt.kept_for,
                attempt.score.status.value,
                attempt.score.reward,
                attempt.score.cases_passed,
                attempt.score.cases,
                attempt.score.solved,
                attempt.score.verified,
                attempt.score.error,
                attempt.source,
                attempt.task,
            )
            for attempt in attempts
        ]
        self._attempts.executemany(f"INSERT OR REPLACE INTO attempts VALUES ({','.join('?' * 12)})", rows)
        is_due = self._clock() - self._committed_at >= _COMMIT_EVERY_S
        if is_due or any(attempt.kept_for != "sampled" for attempt in attempts):
            self.flush()

    def write_best(self, source: str, *, task: str) -> None:
        """Replace the file of a task's best program; a reader sees the old one or the new one, never a part."""
        best = self._best[task]
        partial = best.with_suffix(".tmp")
        partial.write_text(_whole_lines(source), encoding="utf-8")
        partial.replace(best)

    def rewind(self, updates: int, programs: int) -> None:
        """Go back to the checkpoint of so many updates and programs: what was recorded after it is taken away.

        The best program of a task becomes the best one left; where none is left, the file stays: it was found.
        """
        self._metrics.close()
        removed = _keep_updates(self._metrics_path, updates)
        self._metrics = self._metrics_path.open("a", encoding="utf-8")
        attempts = self._attempts.execute("DELETE FROM attempts WHERE program >= ?", [programs]).rowcount
        self.flush()
        for task, best in self._best.items():
            source = _best_source(self._attempts, task)
            if source is not None and not (best.is_file() and best.read_bytes() == _whole_lines(source).encode()):
                self.write_best(source, task=task)
        if removed or attempts:
            LOGGER.warning(
                "back at update %d, program %d: took %d lines from metrics.jsonl and %d attempts away",
                updates,
                programs,
                removed,
                attempts,
            )

    def flush(self) -> None:
        """Bring every attempt to the disk, for whoever reads the files while they are open."""
        self._attempts.commit()
        self._committed_at = self._clock()

    def close(self) -> None:
        """Close every file, whole."""
        logging.getLogger(_RUN_LOGGER).removeHandler(self._log)
        self._log.close()
        self.flush()
        self._metrics.close()
        self._attempts.close()


def file_labels(tasks: Sequence[str]) -> list[str]:
    """Return what stands between the stem and the extension of each task's files: nothing where it is the only one.

    It is the last part of the name where that is no other task's, and the whole name where it is.
    """
    if len(tasks) == 1:
        return [""]
    short = [task.removesuffix(".toml").rpartition("/")[2] for task in tasks]
    whole = [re.sub(r"[^A-Za-z0-9_-]+", "-", task.removesuffix(".toml")).strip("-") for task in tasks]
    return [f"{last if short.count(last) == 1 else name}." for last, name in zip(short, whole, strict=True)]


def _name_tasks(attempts: sqlite3.Connection, task: str) -> None:
    """Add the column of tasks to a file from when a run had one task."""
    columns = [row[1] for row in attempts.execute("PRAGMA table_info(attempts)")]
    if "task" not in columns:
        attempts.execute("ALTER TABLE attempts ADD COLUMN task TEXT NOT NULL DEFAULT ''")
        attempts.execute("UPDATE attempts SET task = ?", [task])
        attempts.commit()


def _whole_lines(source: str) -> str:
    return source if source.endswith("\n") else source + "\n"


def _best_source(attempts: sqlite3.Connection, task: str) -> str | None:
    """Return a task's best attempt: verified before not, then the highest reward, then the first."""
    query = "SELECT source FROM attempts WHERE task = ? ORDER BY verified DESC, reward DESC, program LIMIT 1"
    found = attempts.execute(query, [task]).fetchone()
    return None if found is None else str(found[0])


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a kill left without its end: what is appended next would be glued to it."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = whole = file.seek(0, os.SEEK_END)
        while whole:
            start = max(whole - _CHUNK_BYTES, 0)
            file.seek(start)
            whole = start + file.read(whole - start).rfind(b"\n") + 1
            if whole > start:
                break
        if whole < size:
            file.truncate(whole)
            os.fsync(file.fileno())
            LOGGER.warning("%s: dropped a torn last line of %d bytes", path, size - whole)


def _keep_updates(path: Path, updates: int) -> int:
    """Rewrite a file of figures without those of later updates and unreadable lines; return how many went."""
    partial = path.with_suffix(".jsonl.tmp")
    removed = 0
    with path.open("rb") as lines, partial.open("wb") as rest:
        for line in lines:
            if _is_up_to(line, updates):
                rest.write(line)
            else:
                removed += 1
        rest.flush()
        os.fsync(rest.fileno())
    if not removed:
        partial.unlink()
        return 0
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return removed


def _is_up_to(line: bytes, updates: int) -> bool:
    try:
        return int(json.loads(line)["update"]) <= updates
    except (ValueError, KeyError, TypeError):
        return False
