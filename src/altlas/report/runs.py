"""The runs of a comparison, each an `altlas train` of its own.

Invariants: a run has a process that ends with this one, even when this one is killed, and a directory that is deleted
when it has ended; a run gives a row or a reason why there is none, never a row that reads as unsolved.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from altlas import __version__
from altlas.checkpoint.manifest import git_commit
from altlas.errors import AltlasError
from altlas.report.algorithms import Algorithm
from altlas.report.results import Key, Row
from altlas.transport import die_with_parent

TRAIN = (sys.executable, "-m", "altlas.cli.main", "train")
_SOLVED, _UNSOLVED = 0, 3
_GRACE_S = 30.0
_POLL_S = 0.05
_REASON_LINES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run to be made. `shared` are the settings that every algorithm has, section.key=value."""

    task: str
    algorithm: Algorithm
    seed: int
    budget: int
    shared: tuple[str, ...] = ()
    config_file: Path | None = None
    config_digest: str = ""

    @property
    def settings(self) -> str:
        """The algorithm and everything that was set, as the results have it."""
        name = f"preset {self.algorithm.name}" if self.algorithm.is_preset else self.algorithm.name
        config = (f"config {self.config_digest}",) if self.config_digest else ()
        return ";".join((name, *config, *self.shared, *self.algorithm.overrides))

    @property
    def key(self) -> Key:
        """The key of its row."""
        return self.task, self.settings, self.seed, self.budget

    @property
    def slug(self) -> str:
        """A name for its directory."""
        return slug(f"{self.task}-{self.algorithm.label}-{self.seed}-{self.budget}")

    def arguments(self, run_dir: Path) -> list[str]:
        """Return the arguments of `altlas train`."""
        sets = [part for item in (*self.shared, *self.algorithm.overrides) for part in ("--set", item)]
        return [
            *(self.task, "--seed", str(self.seed), "--budget", str(self.budget), "--json", "--quiet"),
            *("--run-dir", str(run_dir), "--overwrite", "--set", "run.evaluators=1"),
            *(("--config", str(self.config_file)) if self.config_file is not None else ()),
            *self.algorithm.arguments,
            *sets,
        ]


def slug(text: str) -> str:
    """Return a text as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")


class RunningRun:
    """A run's process."""

    def __init__(self, run: Run, *, command: Sequence[str] = TRAIN, keep_dir: Path | None = None) -> None:
        """Start it.

        Args:
            run: what to run.
            command: `altlas train`, with an absolute path.
            keep_dir: where run directories are kept; None deletes them.
        """
        self.run = run
        self._directory = Path(tempfile.mkdtemp(prefix="altlas-bench-"))
        run_dir = (keep_dir or self._directory).absolute() / run.slug
        self._started = time.monotonic()
        self._started_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        guard = (sys.executable, "-I", "-S", str(die_with_parent.__file__), str(os.getpid()))
        # Settings come by the command line alone, so that a row names all that its run was made with.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ALTLAS_")}
        with (self._directory / "stdout").open("wb") as stdout, (self._directory / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [*guard, *command, *run.arguments(run_dir)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                start_new_session=True,  # a Ctrl-C in the terminal is for the comparison, which then ends the runs
            )

    def poll(self) -> Row | AltlasError | None:
        """Return the row, or why there is none, once the run has ended; None before."""
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if not pid:
            return None
        wall_s = time.monotonic() - self._started
        # wait4 counts the process and all below it that were waited for, and every role waits for what it starts.
        cpu_s = usage.ru_utime + usage.ru_stime
        self._process.returncode = os.waitstatus_to_exitcode(status)
        try:
            return self._row(self._summary(), wall_s=wall_s, cpu_s=cpu_s)
        except AltlasError as error:
            return error
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def end(self) -> None:
        """Send what Ctrl-C sends to a run: it stops, and takes its roles along."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once; its roles see that it is gone and end too."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _summary(self) -> dict[str, Any]:
        code = self._process.returncode
        lines = (self._directory / "stdout").read_text(encoding="utf-8", errors="replace").splitlines()
        try:
            summary = json.loads(lines[-1]) if lines else None
        except json.JSONDecodeError:
            summary = None
        if code in (_SOLVED, _UNSOLVED) and isinstance(summary, dict):
            return summary
        if isinstance(summary, dict) and "error" in summary:
            raise AltlasError(str(summary["error"]))
        last_words = (self._directory / "stderr").read_text(encoding="utf-8", errors="replace").splitlines()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        missing = ", printed no result" if code in (_SOLVED, _UNSOLVED) else ""
        raise AltlasError("\n  ".join([f"{how}{missing}", *last_words[-_REASON_LINES:]]))

    def _row(self, summary: dict[str, Any], *, wall_s: float, cpu_s: float) -> Row:
        try:
            for fact, position in (("solved", "programs_to_solve"), ("verified", "programs_to_verify")):
                if summary[fact] is not (summary[position] is not None):
                    raise AltlasError(
                        f"its result contradicts itself: {fact} {summary[fact]}, {position} {summary[position]}"
                    )
            return Row(
                task=self.run.task,
                algorithm=self.run.algorithm.label,
                settings=self.run.settings,
                seed=self.run.seed,
                budget=self.run.budget,
                programs=summary["programs"],
                solved=summary["solved"],
                verified=summary["verified"],
                programs_to_solve=summary["programs_to_solve"],
                programs_to_verify=summary["programs_to_verify"],
                best_reward=summary["best_reward"],
                unique=summary["unique_programs"],
                evaluated=summary["evaluated_programs"],
                wall_s=round(wall_s, 3),
                cpu_s=round(cpu_s, 3),
                program=summary["best_program"],
                shrunk_program=summary["shrunk_program"] or "",
                version=__version__,
                commit=git_commit() or "",
                started_at=self._started_at,
            )
        except KeyError as error:
            raise AltlasError(f"the result of `altlas train` has no {error}") from error


class RunPool:
    """Runs a few at a time. A context manager: leaving it ends what still runs."""

    def __init__(self, jobs: int, *, command: Sequence[str] = TRAIN, keep_dir: Path | None = None) -> None:
        self._jobs = jobs
        self._command = command
        self._keep_dir = keep_dir
        self._running: list[RunningRun] = []

    def __enter__(self) -> RunPool:
        return self

    def __exit__(self, *_: object) -> None:
        for running in self._running:
            running.end()
        deadline = time.monotonic() + _GRACE_S
        while self._running and time.monotonic() < deadline:
            self._ended()
            time.sleep(_POLL_S)
        for running in self._running:
            running.kill()

    def next_ended(self, waiting: list[Run]) -> tuple[Run, Row | AltlasError] | None:
        """Start waiting runs while there is room, and return the next that has ended; None when none is left."""
        while waiting or self._running:
            while waiting and len(self._running) < self._jobs:
                run = waiting.pop(0)
                self._running.append(RunningRun(run, command=self._command, keep_dir=self._keep_dir))
            ended = self._ended()
            if ended is not None:
                return ended
            time.sleep(_POLL_S)
        return None

    def _ended(self) -> tuple[Run, Row | AltlasError] | None:
        for running in self._running:
            outcome = running.poll()
            if outcome is not None:
                self._running.remove(running)
                return running.run, outcome
        return None
