"""What a run leaves in its directory, besides checkpoints: training.log, metrics.jsonl, attempts.sqlite and the best
program. Junk is counted, not stored: an attempt is kept when it is the best so far, is new and solves the task, or is
sampled.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from altlas.core.score import Score
from altlas.obs.logs import make_handler

_EXTENSIONS = {"python": "py", "javascript": "js", "brainf": "bf"}
# A commit waits for the disk, longer than a small batch takes. What a kill loses of it are sampled attempts alone.
_COMMIT_EVERY_S = 1.0
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
        logging.getLogger("altlas_coordinator").addHandler(self._log)
        self._metrics = (run_dir / "metrics.jsonl").open("a", encoding="utf-8")
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
        partial.write_text(source + "\n" if not source.endswith("\n") else source, encoding="utf-8")
        partial.replace(best)

    def flush(self) -> None:
        """Bring every attempt to the disk, for whoever reads the files while they are open."""
        self._attempts.commit()
        self._committed_at = self._clock()

    def close(self) -> None:
        """Close every file, whole."""
        logging.getLogger("altlas_coordinator").removeHandler(self._log)
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
