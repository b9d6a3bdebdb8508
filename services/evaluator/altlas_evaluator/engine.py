"""Runs programs in parallel: one thread and one launcher per slot, fed from one queue.

Make the executor before grpc is imported. Invariants: every submitted program gets exactly one execution, in its own
future; a fault of the sandbox is an execution with status SANDBOX_ERROR, never a program's own failure.
"""

from __future__ import annotations

import math
import os
import queue
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType

from altlas.config.sections import SandboxSection
from altlas.core.program import LIMIT_NAMES, Execution, Limits, Program, ProgramStatus
from altlas.errors import ConfigError, SandboxError
from altlas_evaluator.sandbox.probe import choose_tier
from altlas_evaluator.sandbox.supervisor import Slot, Tier

LANGUAGES = ("python",)
MIN_MEMORY_BYTES = 1 << 20
_CLOSED = "the executor is closed"
_UNGRANTED = ("processes", "file_bytes")  # the sandbox has nothing to offer beyond 0


@dataclass(frozen=True, slots=True)
class ExecutorCounters:
    """What an executor has done so far."""

    programs: Mapping[ProgramStatus, int]
    launcher_restarts: int
    faults: int


@dataclass(frozen=True, slots=True)
class _Task:
    program: Program
    limits: Limits
    future: Future[Execution]


class Executor:
    """Runs programs within the ceilings of its configuration. May be used from several threads.

    Attributes:
        tier: how programs are confined: "namespaces", "landlock", or "unsafe".
        layers: the layers of the tier, in words.
        slots: programs run at once.
        languages: the languages it runs.
        ceiling: the most that a program may ask for.
    """

    def __init__(self, sandbox: SandboxSection, *, tier: Tier | None = None) -> None:
        """Start the launchers.

        Args:
            sandbox: tier, slots and ceilings.
            tier: taken as it is, without probing; for tests and benchmarks.

        Raises:
            SandboxError: no sandbox works here, or not the one asked for.
        """
        self.tier = tier or choose_tier(sandbox.tier, allow_unsafe=sandbox.allow_unsafe)
        self.slots = sandbox.slots or len(os.sched_getaffinity(0))
        self.languages = list(LANGUAGES)
        self.ceiling = Limits(**{name: getattr(sandbox, name) for name in LIMIT_NAMES if name not in _UNGRANTED})
        self.default_limits = Limits(
            **{name: min(getattr(Limits(), name), getattr(self.ceiling, name)) for name in LIMIT_NAMES}
        )
        self._source_bytes = sandbox.source_bytes
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._statuses: Counter[ProgramStatus] = Counter()
        self._statuses_lock = threading.Lock()
        self._slots = [Slot(tier=self.tier, recycle_after=sandbox.recycle_after) for _ in range(self.slots)]
        self._is_closed = False
        self._closing_lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        started: list[Future[None]] = [Future() for _ in self._slots]
        self._threads = [
            threading.Thread(target=self._serve, args=(slot, future), name=f"slot-{number}", daemon=True)
            for number, (slot, future) in enumerate(zip(self._slots, started, strict=True))
        ]
        for thread in self._threads:
            thread.start()
        try:
            for future in started:
                future.result()
        except SandboxError:
            self.close()
            raise
        self.layers = [f"{name}: {value}" for name, value in self._slots[0].layers.items()]

    def _serve(self, slot: Slot, started: Future[None]) -> None:
        """Run one slot's programs until told to end. The launcher belongs to this thread and dies with it."""
        try:
            slot.start()
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        try:
            while task := self._tasks.get():
                self._run_one(slot, task)
        finally:
            slot.stop()

    def _run_one(self, slot: Slot, task: _Task) -> None:
        if not task.future.set_running_or_notify_cancel():
            return
        if self._is_closed:
            task.future.set_exception(SandboxError(_CLOSED))
            return
        try:
            execution = slot.run(task.program, task.limits)
        except BaseException as error:
            task.future.set_exception(error)
            return
        with self._statuses_lock:
            self._statuses[execution.status] += 1
        task.future.set_result(execution)

    def check(self, program: Program, limits: Limits) -> None:
        """Check a program against what this executor runs.

        Raises:
            ConfigError: unknown language, source too large, or a limit above the ceiling or not positive.
        """
        if program.language not in LANGUAGES:
            raise ConfigError(f"language {program.language!r} is unknown; this evaluator runs {', '.join(LANGUAGES)}")
        if len(program.source) > self._source_bytes:
            raise ConfigError(
                f"the source has {len(program.source):,} bytes; sandbox.source_bytes allows {self._source_bytes:,}"
            )
        self._check_limits(limits)

    def _check_limits(self, limits: Limits) -> None:
        for name in LIMIT_NAMES:
            value, most = getattr(limits, name), getattr(self.ceiling, name)
            if name in _UNGRANTED:
                if value != 0:
                    raise ConfigError(f"limit {name} = {value} is not to be had: every tier grants 0")
                continue
            if not math.isfinite(value) or value <= 0:
                raise ConfigError(f"limit {name} = {value} must be above 0")
            if value > most:
                raise ConfigError(f"limit {name} = {value:,} is above the ceiling: sandbox.{name} = {most:,}")
        if limits.memory_bytes < MIN_MEMORY_BYTES:
            raise ConfigError(f"limit memory_bytes = {limits.memory_bytes} is below the least, {MIN_MEMORY_BYTES}")

    def submit(self, program: Program, limits: Limits) -> Future[Execution]:
        """Put a program in the queue and return its execution to be.

        Raises:
            ConfigError: see `check`.
            SandboxError: the executor is closed.
        """
        self.check(program, limits)
        future: Future[Execution] = Future()
        with self._closing_lock:
            if self._is_closed:
                raise SandboxError(_CLOSED)
            self._tasks.put(_Task(program, limits, future))
        return future

    def run(self, programs: Sequence[Program], limits: Limits) -> list[Execution]:
        """Run programs and return their executions in the same order. Those not begun are dropped on an exception.

        Raises:
            ConfigError: see `check`; then none is run.
            SandboxError: the executor is closed.
        """
        for program in programs:
            self.check(program, limits)
        futures = [self.submit(program, limits) for program in programs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def counters(self) -> ExecutorCounters:
        """Return what was done so far."""
        with self._statuses_lock:
            statuses = dict(self._statuses)
        restarts = sum(max(0, slot.counters.starts - 1) for slot in self._slots)
        return ExecutorCounters(statuses, restarts, sum(slot.counters.faults for slot in self._slots))

    def launcher_pids(self) -> list[int]:
        """Return the process ids of the launchers that run now."""
        return [pid for slot in self._slots if (pid := slot.launcher_pid) is not None]

    def close(self) -> None:
        """Finish the programs that run, fail those that wait, and end the launchers. May be called twice."""
        with self._closing_lock:
            self._is_closed = True
            for _ in self._threads:
                self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
