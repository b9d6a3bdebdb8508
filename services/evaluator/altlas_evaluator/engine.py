"""Runs programs in parallel: one thread per slot, one launcher per slot and language, all fed from one bounded queue.

Make the executor before grpc is imported. Invariants: every submitted program gets exactly one execution, in its own
future, or is cancelled; a fault of the sandbox is an execution with status SANDBOX_ERROR, never a program's own
failure; no more than `queue_programs` wait.
"""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from types import TracebackType

from altlas.config.sections import SandboxSection
from altlas.core.program import LIMIT_NAMES, Execution, Limits, Program, ProgramStatus
from altlas.errors import ConfigError, OverloadedError, SandboxError
from altlas_evaluator.languages.registry import languages
from altlas_evaluator.sandbox.probe import choose_tier
from altlas_evaluator.sandbox.supervisor import AbortedError, Phases, Slot, Tier
from altlas_evaluator.submission import Answer, AnySubmission, CasesSubmission, Submission, Work

MIN_MEMORY_BYTES = 1 << 20
MIN_OPEN_FILES = 8
_CLOSED = "the executor is closed"
_UNGRANTED = ("processes", "file_bytes")  # the sandbox has nothing to offer beyond 0
_FIRST_GUESS_S = 0.01  # of a program's seconds in a slot, before any was run
_MAX_RETRY_S = 30.0


@dataclass(frozen=True, slots=True)
class ExecutorCounters:
    """What an executor has done so far, and is doing."""

    programs: Mapping[tuple[ProgramStatus, str], int]
    launcher_restarts: int
    faults: int
    waiting: int
    busy: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Where the seconds of one program went, for metrics."""

    queue_s: float
    phases: Phases


class Executor:
    """Runs programs within the ceilings of its configuration. May be used from several threads.

    Attributes:
        tier: how programs are confined: "namespaces", "landlock", or "unsafe".
        layers: the layers of the tier, in words.
        slots: programs run at once.
        languages: the languages it runs.
        ceiling: the most that a program may ask for.
        observer: called in the slot's thread after each program; None observes nothing.
    """

    def __init__(self, sandbox: SandboxSection, *, tier: Tier | None = None) -> None:
        """Start the launchers of the first language; those of others start with their first program.

        Args:
            sandbox: tier, slots and ceilings.
            tier: taken as it is, without probing; for tests and benchmarks.

        Raises:
            SandboxError: no sandbox works here, or not the one asked for.
        """
        self.tier = tier or choose_tier(sandbox.tier, allow_unsafe=sandbox.allow_unsafe)
        self.slots = sandbox.slots or len(os.sched_getaffinity(0))
        self.languages = list(languages())
        self.ceiling = Limits(**{name: getattr(sandbox, name) for name in LIMIT_NAMES if name not in _UNGRANTED})
        self.default_limits = Limits(
            **{name: min(getattr(Limits(), name), getattr(self.ceiling, name)) for name in LIMIT_NAMES}
        )
        self.observer: Callable[[Measured], None] | None = None
        self._sandbox = sandbox
        self._tasks: queue.SimpleQueue[AnySubmission | None] = queue.SimpleQueue()
        self._state = threading.Condition()  # of everything below
        self._statuses: Counter[tuple[ProgramStatus, str]] = Counter()
        self._waiting = 0
        self._busy = 0
        self._slot_s = 0.0
        self._all_slots: list[Slot] = []
        self._is_closed = False
        self._start()

    def _start(self) -> None:
        started: list[Future[list[str]]] = [Future() for _ in range(self.slots)]
        self._threads = [
            threading.Thread(target=self._serve, args=(future,), name=f"slot-{number}", daemon=True)
            for number, future in enumerate(started)
        ]
        for thread in self._threads:
            thread.start()
        try:
            self.layers, *_ = [future.result() for future in started]
        except SandboxError:
            self.close()
            raise

    def _make_slot(self, language: str) -> Slot:
        sandbox = self._sandbox
        slot = Slot(
            tier=self.tier,
            language=language,
            recycle_after=sandbox.recycle_after,
            is_shared=sandbox.cases == "shared",
        )
        with self._state:
            self._all_slots.append(slot)
        return slot

    def _serve(self, started: Future[list[str]]) -> None:
        """Run one slot's programs until told to end. The launchers belong to this thread and die with it."""
        by_language: dict[str, Slot] = {}
        try:
            first = by_language[self.languages[0]] = self._make_slot(self.languages[0])
            first.start()
            started.set_result([f"{name}: {value}" for name, value in first.layers.items()])
        except BaseException as error:
            started.set_exception(error)
            return
        try:
            while submission := self._tasks.get():
                language = submission.program.language
                if language not in by_language:
                    by_language[language] = self._make_slot(language)
                self._run_one(by_language[language], submission)
        finally:
            for slot in by_language.values():
                slot.retire()

    def _run_one(self, slot: Slot, submission: AnySubmission) -> None:
        with self._state:
            self._waiting -= 1
            self._busy += 1
            self._state.notify_all()
        started = time.perf_counter()
        executions: list[Execution] = []
        try:
            if submission.set_running_or_notify_cancel():
                executions = self._answer(slot, submission)
        finally:
            with self._state:
                self._busy -= 1
                for execution in executions:
                    self._statuses[execution.status, submission.program.language] += 1
                self._slot_s += time.perf_counter() - started if executions else 0.0
        if self.observer is not None and executions:
            self.observer(Measured(started - submission.submitted_at, slot.phases))

    def _answer(self, slot: Slot, submission: AnySubmission) -> list[Execution]:
        if self._is_closed:
            submission.set_exception(SandboxError(_CLOSED))
            return []
        submission.slot = slot
        try:
            executions = slot.run_cases(submission.program, submission.inputs, submission.limits, submission.ticket)
        except AbortedError:
            submission.set_exception(CancelledError())
            return []
        except BaseException as error:
            submission.set_exception(error)
            return []
        submission.answer(executions)
        return executions

    def check(self, program: Program, limits: Limits) -> None:
        """Check a program against what this executor runs.

        Raises:
            ConfigError: unknown language, source too large, or a limit above the ceiling or not positive.
        """
        if program.language not in self.languages:
            known = ", ".join(self.languages)
            raise ConfigError(f"language {program.language!r} is unknown; this evaluator runs {known}")
        if len(program.source) > self._sandbox.source_bytes:
            raise ConfigError(
                f"the source has {len(program.source):,} bytes; sandbox.source_bytes allows "
                f"{self._sandbox.source_bytes:,}"
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
                raise ConfigError(f"limit {name} = {value} must be a finite number above 0")
            if value > most:
                raise ConfigError(f"limit {name} = {value:,} is above the ceiling: sandbox.{name} = {most:,}")
        for name, least in (("memory_bytes", MIN_MEMORY_BYTES), ("open_files", MIN_OPEN_FILES)):
            if getattr(limits, name) < least:
                raise ConfigError(f"limit {name} = {getattr(limits, name)} is below the least, {least}")

    def submit(self, program: Program, limits: Limits) -> Submission:
        """Put a program in the queue and return its execution to be; waits for room in the queue.

        Raises:
            ConfigError: see `check`.
            SandboxError: the executor is closed.
        """
        self.check(program, limits)
        submission = Submission(program, limits)
        self._put_when_there_is_room(submission)
        return submission

    def submit_cases(self, program: Program, inputs: Sequence[bytes], limits: Limits) -> CasesSubmission:
        """Put a program in the queue to be run once per input, as `submit` does; its own input is left aside."""
        self.check(program, limits)
        submission = CasesSubmission(program, inputs, limits)
        self._put_when_there_is_room(submission)
        return submission

    def _put_when_there_is_room(self, submission: AnySubmission) -> None:
        with self._state:
            self._state.wait_for(lambda: self._waiting < self._sandbox.queue_programs or self._is_closed)
            self._put([submission])

    def submit_now(self, programs: Sequence[Program], limits: Limits) -> list[Submission]:
        """Put all programs in the queue, or none: for callers who must not wait.

        Raises:
            OverloadedError: there is no room for all of them; see `retry_after_s`.
            ConfigError: see `check`.
            SandboxError: the executor is closed.
        """
        for program in programs:
            self.check(program, limits)
        submissions = [Submission(program, limits) for program in programs]
        with self._state:
            self.require_room(len(programs))
            self._put(submissions)
        return submissions

    def require_room(self, programs: int) -> None:
        """Raise OverloadedError where the queue has no room for so many programs now."""
        most = self._sandbox.queue_programs
        if self._waiting + programs > most:
            seconds = self.retry_after_s()
            raise OverloadedError(
                f"{self._waiting:,} programs wait and sandbox.queue_programs allows {most:,}: no room for {programs:,} "
                f"more; try again in {seconds:.2f} s",
                retry_after_s=seconds,
            )

    def retry_after_s(self) -> float:
        """Return the seconds in which what waits now will have been run, by the mean so far."""
        with self._state:
            done = sum(self._statuses.values())
            mean_s = self._slot_s / done if done else _FIRST_GUESS_S
            return min(max(mean_s, self._waiting * mean_s / self.slots), _MAX_RETRY_S)

    def _put(self, submissions: Iterable[AnySubmission]) -> None:
        if self._is_closed:
            raise SandboxError(_CLOSED)
        for submission in submissions:
            self._waiting += 1
            self._tasks.put(submission)

    def cancel(self, submissions: Iterable[AnySubmission]) -> None:
        """Drop what waits and kill what runs; the result of each raises CancelledError unless it has one already."""
        for submission in submissions:
            if submission.cancel() or submission.done():
                continue
            submission.ticket.is_aborted = True
            if submission.slot is not None:
                submission.slot.abort(submission.ticket)

    def run(self, programs: Sequence[Program], limits: Limits) -> list[Execution]:
        """Run programs and return their executions in the same order; all are cancelled on an exception.

        Raises:
            ConfigError: see `check`; then none is run.
            SandboxError: the executor is closed.
        """
        return Batch(self).run(programs, limits)

    def run_cases(self, programs: Sequence[Program], inputs: Sequence[bytes], limits: Limits) -> list[list[Execution]]:
        """Run each program once per input and return its executions, as `run` does."""
        return Batch(self).run_cases(programs, inputs, limits)

    def counters(self) -> ExecutorCounters:
        """Return what was done so far."""
        with self._state:
            restarts = sum(max(0, slot.counters.starts - 1) for slot in self._all_slots)
            faults = sum(slot.counters.faults for slot in self._all_slots)
            return ExecutorCounters(dict(self._statuses), restarts, faults, self._waiting, self._busy)

    def launcher_pids(self) -> list[int]:
        """Return the process ids of the launchers that run now."""
        with self._state:
            return [pid for slot in self._all_slots if (pid := slot.launcher_pid) is not None]

    def close(self) -> None:
        """Finish the programs that run, fail those that wait, and end the launchers. May be called twice."""
        with self._state:
            self._is_closed = True
            self._state.notify_all()
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


class Batch:
    """What one caller runs, cancelled as a whole from any thread."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lock = threading.Lock()
        self._submissions: list[AnySubmission] = []
        self._is_cancelled = False

    def run(self, programs: Sequence[Program], limits: Limits) -> list[Execution]:
        """Run programs as `Executor.run` does; may be called again.

        Raises:
            CancelledError: `cancel` was called, before or meanwhile.
        """
        submit = self._executor.submit
        return self._run_all(programs, limits, lambda program: submit(program, limits))

    def run_cases(self, programs: Sequence[Program], inputs: Sequence[bytes], limits: Limits) -> list[list[Execution]]:
        """Run programs as `Executor.run_cases` does; raises as `run` does."""
        if not inputs:
            return [[] for _ in programs]
        submit = self._executor.submit_cases
        return self._run_all(programs, limits, lambda program: submit(program, inputs, limits))

    def _run_all(
        self, programs: Sequence[Program], limits: Limits, submit: Callable[[Program], Work[Answer]]
    ) -> list[Answer]:
        for program in programs:
            self._executor.check(program, limits)
        submissions: list[Work[Answer]] = []
        try:
            for program in programs:
                submissions.append(submission := submit(program))
                self._keep(submission)
            return [submission.result() for submission in submissions]
        except BaseException:
            self._executor.cancel(submissions)
            raise
        finally:
            with self._lock:
                self._submissions.clear()

    def _keep(self, submission: AnySubmission) -> None:
        with self._lock:
            self._submissions.append(submission)
            if self._is_cancelled:
                raise CancelledError

    def raise_if_cancelled(self) -> None:
        """Raise CancelledError once `cancel` was called: for work of the caller's own."""
        if self._is_cancelled:
            raise CancelledError

    def cancel(self) -> None:
        """Drop and kill what this batch runs, and let nothing more of it begin."""
        with self._lock:
            self._is_cancelled = True
            submissions = list(self._submissions)
        self._executor.cancel(submissions)
