"""What a run leaves in its directory, besides checkpoints: training.log, metrics.jsonl, attempts.sqlite and the best
program. Junk is counted, not stored: an attempt is kept when it is the best so far, is new and solves the task, or is
sampled.
"""

from __future__ import annotations

import json
import logging
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
    source TEXT NOT NULL
)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A program worth keeping; `program` is its position in the run."""

    program: int
    update: int
    kept_for: Literal["best", "solved", "sampled"]
    score: Score
    source: str


class RunFiles:
    """The open files of one run. `close` when the run ends."""

    def __init__(
        self,
        run_dir: Path,
        *,
        language: str,
        log_format: Literal["text", "json"],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._best = run_dir / f"best_program.{_EXTENSIONS.get(language, 'txt')}"
        self._log = make_handler(run_dir / "training.log", role="coordinator", log_format=log_format)
        logging.getLogger("altlas_coordinator").addHandler(self._log)
        self._metrics = (run_dir / "metrics.jsonl").open("a", encoding="utf-8")
        self._attempts = sqlite3.connect(run_dir / "attempts.sqlite")
        self._attempts.execute(_SCHEMA)
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
            )
            for attempt in attempts
        ]
        self._attempts.executemany(f"INSERT OR REPLACE INTO attempts VALUES ({','.join('?' * 11)})", rows)
        is_due = self._clock() - self._committed_at >= _COMMIT_EVERY_S
        if is_due or any(attempt.kept_for != "sampled" for attempt in attempts):
            self.flush()

    def write_best(self, source: str) -> None:
        """Replace the best program's file; a reader sees the old one or the new one, never a part."""
        partial = self._best.with_suffix(".tmp")
        partial.write_text(source + "\n" if not source.endswith("\n") else source, encoding="utf-8")
        partial.replace(self._best)

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
