"""The trusted end of a slot: starts its launcher, hands it programs, reads how they ended, ends it when it is silent.

Invariants: a program is run by a launcher that answered its greeting; a launcher that is silent, dead or answers
anything but one whole record is killed with its process group and never used again; its program is tried once more on a
fresh launcher and then reported as SANDBOX_ERROR. Start and use a slot from one thread that lives as long as the slot:
the launcher dies with the thread that started it.
A program's cases run in a process each, forked after it was compiled once; `is_shared` runs them in one process where
the language can: faster, and a case then finds what those before it left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from altlas.core.program import Execution, Limits, Program, ProgramStatus
from altlas.errors import SandboxError
from altlas_evaluator.languages.registry import languages
from altlas_evaluator.sandbox import records
from altlas_evaluator.sandbox.memory_files import CaseFiles, MemoryFile
from altlas_evaluator.sandbox.verdict import is_unexplained_kill, read_execution

Tier = Literal["namespaces", "landlock", "unsafe"]

START_TIMEOUT_S = 30.0
GRACE_S = 5.0  # beyond a program's wall limit, for a machine under load; a healthy launcher never needs it
ATTEMPTS = 2
_CASE_SLACK_S = 0.5  # the launcher's, beyond what it leaves to the process that compiled
_STOP_TIMEOUT_S = 5.0
_LEAVE_TIMEOUT_S = 1.0
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_START = "from altlas_evaluator.sandbox.launcher import main; main()"


@dataclass(slots=True)
class SlotCounters:
    """What happened to a slot's launchers."""

    starts: int = 0
    faults: int = 0


@dataclass(slots=True, eq=False)
class Ticket:
    """Names one run of a program, so that exactly that one can be aborted from another thread."""

    is_aborted: bool = False


class AbortedError(Exception):
    """The program was killed because nobody wants its result any more."""


@dataclass(frozen=True, slots=True)
class Phases:
    """Where the seconds of one program, all its cases, went; `collect_s` is all that is neither fork nor run."""

    fork_s: float
    run_s: float
    collect_s: float


class Slot:
    """One launcher at a time, and the files and socket that connect us to it.

    Attributes:
        counters: of this slot, over all its launchers.
        layers: of the launcher, in words.
        phases: of the last program that was run.
    """

    def __init__(
        self, *, tier: Tier, language: str = "python", recycle_after: int = 10_000, is_shared: bool = False
    ) -> None:
        self.counters = SlotCounters()
        self.layers: dict[str, str] = {}
        self.phases = Phases(0.0, 0.0, 0.0)
        self._aborting = threading.Lock()
        self._ticket: Ticket | None = None
        self._tier = tier
        self._language = languages()[language]
        self._recycle_after = recycle_after
        self._wants_shared = is_shared
        self._is_shared = False
        self._most_cases = 1
        self._files: list[CaseFiles] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._resources = contextlib.ExitStack()
        self._sequence = 0
        self._fork_ns = self._run_ns = 0

    @property
    def launcher_pid(self) -> int | None:
        """The process id of the launcher that is running."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start a launcher and wait until it is confined.

        Raises:
            SandboxError: it could not confine itself; the message says which layer failed.
        """
        self.retire()
        self.counters.starts += 1
        self._sequence = 0
        self._source = MemoryFile("source")
        self._resources.callback(os.close, self._source.descriptor)
        self._files = [CaseFiles(self._resources)]
        source = self._source.open_read_only()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._resources.callback(self._control.close)
        try:
            self._process = self._spawn(theirs.fileno(), source)
        finally:
            theirs.close()
            os.close(source)
        self.layers = self._read_greeting()

    def run(self, program: Program, limits: Limits, ticket: Ticket | None = None) -> Execution:
        """Run a program once, with its own input; see `run_cases`."""
        return self.run_cases(program, [program.stdin], limits, ticket)[0]

    def run_cases(
        self, program: Program, inputs: Sequence[bytes], limits: Limits, ticket: Ticket | None = None
    ) -> list[Execution]:
        """Run a program once per input, within the limits each time, and return the executions in that order.

        What a launcher fails on is tried on a second one; a failure of both has status SANDBOX_ERROR.

        Raises:
            AbortedError: `abort` was called with this ticket, before or meanwhile.
        """
        started = time.perf_counter()
        ticket = ticket or Ticket()
        with self._aborting:
            self._ticket = ticket
        self._fork_ns = self._run_ns = 0
        executions: list[Execution] = []
        try:
            while len(executions) < len(inputs):
                executions += self._run_some(program, inputs[len(executions) :], limits, ticket)
        finally:
            with self._aborting:
                self._ticket = None
        self._require_wanted(ticket)
        inside_s = (self._fork_ns + self._run_ns) / 1e9
        collect_s = max(0.0, time.perf_counter() - started - inside_s)
        self.phases = Phases(self._fork_ns / 1e9, self._run_ns / 1e9, collect_s)
        return executions

    def abort(self, ticket: Ticket) -> None:
        """Kill the run that was given this ticket, now or when it comes. For any thread."""
        with self._aborting:
            ticket.is_aborted = True
            if self._ticket is ticket:
                self._kill()

    def _run_some(self, program: Program, inputs: Sequence[bytes], limits: Limits, ticket: Ticket) -> list[Execution]:
        """Run the first cases, one at least, as many as one request may have."""
        fault = ""
        last: list[Execution] = []
        for _ in range(ATTEMPTS):
            self._require_wanted(ticket)
            try:
                if self._process is None or self._sequence >= self._recycle_after:
                    self.start()
                    self._require_wanted(ticket)  # there was nothing to kill until there was a process
                some = inputs[: self._most_cases]
                results = self._exchange(program, some, limits)
            except (OSError, ValueError, SandboxError) as error:
                self.counters.faults += not ticket.is_aborted
                fault = str(error) or type(error).__name__
                self.stop()
                continue
            last = [self._read(result, number, some, limits) for number, result in enumerate(results)]
            if results[0].flags & records.NOT_COMPILED:
                return last * len(inputs)
            # Where a case ended its parent too, its own process may not be gone yet: nothing is to share files with it.
            has_orphan = len(results) < len(some) and not self._is_shared
            if has_orphan or results[-1].flags & records.LEAVING:
                self.stop()
            killed = next((number for number, result in enumerate(results) if is_unexplained_kill(result)), len(last))
            if killed > 0:
                return last[:killed]
        if last:
            return last[:1]
        fault = f"the sandbox failed: {fault}"
        return [Execution(status=ProgramStatus.SANDBOX_ERROR, stderr=fault.encode())] * len(inputs)

    def _require_wanted(self, ticket: Ticket) -> None:
        if ticket.is_aborted:
            self.stop()
            raise AbortedError

    def _read(self, result: records.Result, number: int, inputs: Sequence[bytes], limits: Limits) -> Execution:
        files = self._files[number]
        self._fork_ns += result.fork_ns
        self._run_ns += max(0, result.wall_ns - result.fork_ns)
        has_read = not inputs[number] or files.has_read_input()
        stdout, stderr = files.take(limits.output_bytes + 1)
        return read_execution(result, stdout=stdout, stderr=stderr, limits=limits, has_read_stdin=has_read)

    def retire(self) -> None:
        """End a launcher that runs nothing: it leaves in good order when we hang up, and is killed if it does not."""
        if self._process is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._control.shutdown(socket.SHUT_RDWR)
                self._process.wait(_LEAVE_TIMEOUT_S)
        self.stop()

    def stop(self) -> None:
        """Kill the launcher and all it started, and let go of its files."""
        with self._aborting:
            self._kill()
            process, self._process = self._process, None
        self._resources.close()
        if process is not None:
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise SandboxError(f"launcher {process.pid} does not die; its slot is lost") from error
            _reap_group(process.pid)

    def _kill(self) -> None:
        # A supervisor without the right to signal its launcher hangs up instead, and the launcher ends by itself.
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _spawn(self, control: int, source: int) -> subprocess.Popen[bytes]:
        # The base interpreter: a virtual environment adds nothing that a program may have. No -I or -E, since they
        # would make the hash seed random; the environment holds nothing but what is here.
        interpreter = getattr(sys, "_base_executable", "") or sys.executable
        options = ("-S", "-s", "-P", "-B", "-X", "utf8", "-W", "ignore")
        environment = {"PYTHONHASHSEED": "0", "PYTHONPATH": str(_PACKAGE_ROOT), "LD_BIND_NOW": "1"}
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        stdin, stdout, stderr = self._files[0].descriptors
        arguments = (self._tier, str(control), str(source), self._language.module, *self._language.search_path)
        return subprocess.Popen(
            [interpreter, *options, "-c", _START, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(control, source),
            env=environment,
            cwd="/",
            start_new_session=True,
        )

    def _read_greeting(self) -> dict[str, str]:
        self._control.settimeout(START_TIMEOUT_S)
        try:
            greeting = self._control.recv(records.GREETING_BYTES)
        except OSError as error:
            greeting = records.FAILED + f"no answer within {START_TIMEOUT_S:g} s: {error}".encode()
        if greeting[:1] == records.READY:
            self._files[0].take(0)
            said = json.loads(greeting[1:])
            self._is_shared = self._wants_shared and said["can_share"]
            self._most_cases = records.MAX_CASES if self._is_shared else said["most_cases"]
            return dict(said["layers"])
        reason = greeting[1:] or self._files[0].take(records.GREETING_BYTES)[1] or b"it ended without a word"
        self.stop()
        raise SandboxError(f"sandbox tier {self._tier} does not work here: {reason.decode(errors='replace').strip()}")

    def _exchange(self, program: Program, inputs: Sequence[bytes], limits: Limits) -> list[records.Result]:
        """Hand over a program and its inputs, and return the records of the first cases, one at least.

        Raises:
            OSError: no answer in time, or the launcher is gone.
            ValueError: an answer that is not what was asked for.
        """
        while len(self._files) < len(inputs):
            self._files.append(CaseFiles(self._resources))
        self._source.replace(program.source)
        for files, stdin in zip(self._files, inputs, strict=False):
            files.give(stdin)
        self._sequence += 1
        request = records.Request(
            sequence=self._sequence,
            cpu_ns=round(limits.cpu_s * 1e9),
            wall_ns=round(limits.wall_s * 1e9),
            memory_bytes=limits.memory_bytes,
            output_bytes=limits.output_bytes,
            open_files=limits.open_files,
            cases=len(inputs),
            is_shared=int(self._is_shared and len(inputs) > 1),
        )
        self._control.settimeout(GRACE_S + _patience_s(limits, len(inputs)))
        packet = records.pack_request(request)
        if len(inputs) == 1:
            self._control.send(packet)
        else:
            descriptors = [item for files in self._files[1 : len(inputs)] for item in files.descriptors]
            socket.send_fds(self._control, [packet], descriptors)
        answer = self._control.recv(records.RESULT_BYTES * len(inputs) + 1)
        if not answer:
            raise ConnectionResetError("the launcher died")
        results = records.unpack_results(answer, len(inputs))
        for result in results:
            if result.sequence != self._sequence:
                raise ValueError(f"the launcher answered request {result.sequence}, not {self._sequence}")
            if result.flags & records.SETUP_FAILED:
                raise ValueError("the program's process could not be set up")
        return results


def _reap_group(pgid: int) -> None:
    """Wait for the rest of a launcher that was killed, where that is ours: as process 1 of a container it is."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-pgid, 0)


def _patience_s(limits: Limits, cases: int) -> float:
    """Return the seconds that a launcher may take by its limits: compiling and each case have the wall limit."""
    return limits.wall_s if cases == 1 else (limits.wall_s + _CASE_SLACK_S) * (cases + 1)
