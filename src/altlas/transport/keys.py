"""The names of everything AltLAS keeps in Redis.

`{run}` is a hash tag: all keys of a run are in one slot. Opening and closing a run touch `altlas:runs` as well, in one
step with the rest, and a worker reads all runs: a Redis Cluster will not do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from altlas.errors import ConfigError

GROUP = "evaluators"
OPEN_RUNS = "altlas:runs"
# Hashes of the registry: request id -> run id, run id -> record.
REQUESTS = "altlas:requests"
RUN_RECORDS = "altlas:run_records"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def task_key(digest: str) -> str:
    """Return the key that holds a task's text."""
    return f"altlas:task:{digest}"


@dataclass(frozen=True, slots=True)
class RunKeys:
    """The keys of one run.

    jobs: stream of work. open: hash, job id -> entry of every job waiting or in hand. scores: hash, fingerprint ->
    score. letters: stream of dead jobs. meta: hash of terms, counters and the fence. lease: the coordinator's name,
    while its lease lasts. Per update: done, hash job id -> result; dead, hash job id -> last error; results, list that
    wakes the collector: committed job ids, '' for a dead one.
    """

    run_id: str

    def __post_init__(self) -> None:
        if not _RUN_ID.fullmatch(self.run_id):
            raise ConfigError(
                f"run name {self.run_id!r}: use letters, digits, dot, dash and underscore, 200 at most, "
                "beginning with a letter or digit"
            )

    @property
    def prefix(self) -> str:
        """What every key of the run begins with."""
        return f"altlas:{{{self.run_id}}}:"

    @property
    def jobs(self) -> str:
        """Stream of work."""
        return self.prefix + "jobs"

    @property
    def open(self) -> str:
        """Hash, job id -> stream entry."""
        return self.prefix + "open"

    @property
    def scores(self) -> str:
        """Hash, fingerprint -> score."""
        return self.prefix + "scores"

    @property
    def letters(self) -> str:
        """Stream of dead jobs."""
        return self.prefix + "dead"

    @property
    def meta(self) -> str:
        """Hash of the run's terms and counters, and of its coordinator's fence."""
        return self.prefix + "meta"

    @property
    def lease(self) -> str:
        """String, the name of the run's coordinator; expires with its lease."""
        return self.prefix + "lease"

    def done(self, update: int | str) -> str:
        """Hash of an update, job id -> result."""
        return f"{self.prefix}done:{update}"

    def dead(self, update: int | str) -> str:
        """Hash of an update, job id -> last error."""
        return f"{self.prefix}dead:{update}"

    def results(self, update: int | str) -> str:
        """List that wakes an update's collector."""
        return f"{self.prefix}results:{update}"
