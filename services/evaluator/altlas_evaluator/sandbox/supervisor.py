"""The trusted end of a slot: starts its launcher, hands it programs, reads how they ended, ends it when it is silent.

Invariants: a program is run by a launcher that answered its greeting; a launcher that is silent, dead or answers
anything but one whole record is killed with its process group and never used again; its program is tried once more on a
fresh launcher and then reported as SANDBOX_ERROR. Start and use a slot from one thread that lives as long as the slot:
the launcher dies with the thread that started it.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from altlas.core.program import Execution, Limits, Program, ProgramStatus
from altlas.errors import SandboxError
from altlas_evaluator.languages.registry import languages
from altlas_evaluator.sandbox import records
from altlas_evaluator.sandbox.verdict import is_unexplained_kill, read_execution

Tier = Literal["namespaces", "landlock", "unsafe"]

START_TIMEOUT_S = 30.0
GRACE_S = 5.0  # beyond a program's wall limit, for a machine under load; a healthy launcher never needs it
ATTEMPTS = 2
_STOP_TIMEOUT_S = 5.0
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_START = "from altlas_evaluator.sandbox.launcher import main; main()"


class _MemoryFile:
    """A file in memory that the launcher's children share with us, rewritten for every program."""

    def __init__(self, name: str) -> None:
        self.descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        os.fchmod(self.descriptor, 0o400)  # nobody opens it a second time for writing
        self._is_empty = True

    def open_read_only(self) -> int:
        """Return a second descriptor with a position of its own, without the right to write."""
        return os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDONLY | os.O_CLOEXEC)

    def replace(self, content: bytes) -> None:
        """Make `content` the whole file, position 0."""
        if not self._is_empty:
            os.ftruncate(self.descriptor, 0)
        written = 0
        while written < len(content):
            written += os.pwrite(self.descriptor, content[written:] if written else content, written)
        self._is_empty = not content

    def take(self, limit: int) -> bytes:
        """Return up to `limit` bytes and empty the file."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        size = os.fstat(self.descriptor).st_size
        if size == 0:
            return b""
        content = os.pread(self.descriptor, min(size, limit), 0)
        os.ftruncate(self.descriptor, 0)
        return content


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
    """Where the seconds of one program went; `collect_s` is all that is neither fork nor run."""

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

    def __init__(self, *, tier: Tier, language: str = "python", recycle_after: int = 10_000) -> None:
        self.counters = SlotCounters()
        self.layers: dict[str, str] = {}
        self.phases = Phases(0.0, 0.0, 0.0)
        self._aborting = threading.Lock()
        self._ticket: Ticket | None = None
        self._tier = tier
        self._language = languages()[language]
        self._recycle_after = recycle_after
        self._process: subprocess.Popen[bytes] | None = None
        self._resources = contextlib.ExitStack()
        self._sequence = 0

    @property
    def launcher_pid(self) -> int | None:
        """The process id of the launcher that is running."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start a launcher and wait until it is confined.

        Raises:
            SandboxError: it could not confine itself; the message says which layer failed.
        """
        self.stop()
        self.counters.starts += 1
        self._sequence = 0
        self._source, self._input = self._memory_file("source"), self._memory_file("stdin")
        self._stdout, self._stderr = self._memory_file("stdout"), self._memory_file("stderr")
        self._input_position = self._keep(self._input.open_read_only())
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
        """Run a program, on a second launcher if the first fails; a failure of both has status SANDBOX_ERROR.

        Raises:
            AbortedError: `abort` was called with this ticket, before or meanwhile.
        """
        started = time.perf_counter()
        ticket = ticket or Ticket()
        with self._aborting:
            self._ticket = ticket
        try:
            execution = self._run(program, limits, ticket, started)
        finally:
            with self._aborting:
                self._ticket = None
        if ticket.is_aborted:
            self.stop()
            raise AbortedError
        return execution

    def abort(self, ticket: Ticket) -> None:
        """Kill the run that was given this ticket, now or when it comes. For any thread."""
        with self._aborting:
            ticket.is_aborted = True
            if self._ticket is ticket:
                self._kill()

    def _run(self, program: Program, limits: Limits, ticket: Ticket, started: float) -> Execution:
        fault = ""
        last: Execution | None = None
        for _ in range(ATTEMPTS):
            if ticket.is_aborted:
                self.stop()
                raise AbortedError
            try:
                if self._process is None or self._sequence >= self._recycle_after:
                    self.start()
                result = self._exchange(program, limits)
            except (OSError, ValueError, SandboxError) as error:
                self.counters.faults += not ticket.is_aborted
                fault = str(error) or type(error).__name__
                self.stop()
                continue
            run_s = (result.wall_ns - result.fork_ns) / 1e9
            last = read_execution(
                result,
                stdout=self._stdout.take(limits.output_bytes + 1),
                stderr=self._stderr.take(limits.output_bytes + 1),
                limits=limits,
                has_read_stdin=not program.stdin or os.lseek(self._input_position, 0, os.SEEK_CUR) > 0,
            )
            self.phases = Phases(
                result.fork_ns / 1e9, run_s, max(0.0, time.perf_counter() - started - result.wall_ns / 1e9)
            )
            if result.flags & records.LEAVING:
                self.stop()
            if not is_unexplained_kill(result):
                return last
        if last is not None:
            return last
        return Execution(status=ProgramStatus.SANDBOX_ERROR, stderr=f"the sandbox failed: {fault}".encode())

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

    def _kill(self) -> None:
        # A supervisor without the right to signal its launcher hangs up instead, and the launcher ends by itself.
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _memory_file(self, name: str) -> _MemoryFile:
        file = _MemoryFile(name)
        self._keep(file.descriptor)
        return file

    def _keep(self, descriptor: int) -> int:
        self._resources.callback(os.close, descriptor)
        return descriptor

    def _spawn(self, control: int, source: int) -> subprocess.Popen[bytes]:
        # The base interpreter: a virtual environment adds nothing that a program may have. No -I or -E, since they
        # would make the hash seed random; the environment holds nothing but what is here.
        interpreter = getattr(sys, "_base_executable", "") or sys.executable
        options = ("-S", "-s", "-P", "-B", "-X", "utf8", "-W", "ignore")
        environment = {"PYTHONHASHSEED": "0", "PYTHONPATH": str(_PACKAGE_ROOT), "LD_BIND_NOW": "1"}
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        arguments = (self._tier, str(control), str(source), self._language.module, *self._language.search_path)
        return subprocess.Popen(
            [interpreter, *options, "-c", _START, *arguments],
            stdin=self._input_position,
            stdout=self._stdout.descriptor,
            stderr=self._stderr.descriptor,
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
            self._stdout.take(0)
            self._stderr.take(0)
            layers: dict[str, str] = json.loads(greeting[1:])
            return layers
        reason = greeting[1:] or self._stderr.take(records.GREETING_BYTES) or b"it ended without a word"
        self.stop()
        raise SandboxError(f"sandbox tier {self._tier} does not work here: {reason.decode(errors='replace').strip()}")

    def _exchange(self, program: Program, limits: Limits) -> records.Result:
        """Hand over one program and return its record.

        Raises:
            OSError: no answer in time, or the launcher is gone.
            ValueError: an answer that is not the record asked for.
        """
        self._source.replace(program.source)
        self._input.replace(program.stdin)
        os.lseek(self._input_position, 0, os.SEEK_SET)
        self._sequence += 1
        request = records.Request(
            sequence=self._sequence,
            cpu_ns=round(limits.cpu_s * 1e9),
            wall_ns=round(limits.wall_s * 1e9),
            memory_bytes=limits.memory_bytes,
            output_bytes=limits.output_bytes,
            open_files=limits.open_files,
        )
        self._control.settimeout(limits.wall_s + GRACE_S)
        self._control.send(records.pack_request(request))
        answer = self._control.recv(records.RESULT_BYTES + 1)
        if not answer:
            raise ConnectionResetError("the launcher died")
        result = records.unpack_result(answer)
        if result.sequence != self._sequence:
            raise ValueError(f"the launcher answered request {result.sequence}, not {self._sequence}")
        if result.flags & records.SETUP_FAILED:
            raise ValueError("the program's process could not be set up")
        return result
