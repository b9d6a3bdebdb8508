"""The launcher's loop: read a request, fork, confine the child, wait for its end or its limits, answer.

Part of the launcher: standard library only. `_forkloop.c` does the same without dirtying the interpreter's pages, which
fork would have to copy; it is used where the package could build it.

What happened is read from the kernel's wait status, and from an event descriptor that is closed, with the control
socket, before the first line of the program runs. A child with several cases compiles once. Then it forks and waits for
a child of its own per case, and runs the last case itself, so that as many processes are made as there are cases; what
it has seen goes through a page that it shares with the launcher and gives up before that last case. Where the cases
share a process they run in turn in the child, which notes in that page how far it got: a program that writes there
spoils its own results alone, and the launcher's patience has an end in any case.
"""

from __future__ import annotations

import importlib
import mmap
import os
import resource
import signal
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, cast

from altlas_evaluator.sandbox import confinement, kernel, records, seccomp

EVENT_SETUP_FAILED, EVENT_NOT_COMPILED = 1, 2  # added to the event descriptor by a child
AWAITED = frozenset({signal.SIGCHLD})
_PER_CASE = 3  # descriptors: input, stdout, stderr
_WATCH_SLACK_NS = 500_000_000


class Loop(Protocol):
    """What the launcher drives: the C module's functions, or `PythonLoop`."""

    def serve(self) -> int:
        """Answer requests; return in a child with the number of cases it is to run, 0 once the supervisor hung up."""

    def begin(self) -> None:
        """Return in each process that is to run a case, confined for good and with nothing of ours open."""

    def enter_case(self, index: int, /) -> None:
        """Make a case's input and outputs 0, 1 and 2; where cases share a process."""

    def leave_case(self, index: int, code: int, /) -> None:
        """Note the exit code of a case; where cases share a process."""


class _Native(Protocol):
    """What the C module has, see `_forkloop.c`."""

    def serve(self, event: int, scope: int, own_bytes: int, can_kill: bool, guard: bytes | None, /) -> int: ...
    def begin(self) -> None: ...
    def enter_case(self, index: int, /) -> None: ...
    def leave_case(self, index: int, code: int, /) -> None: ...
    def use_huge_pages(self, start: int, end: int, /) -> None: ...


def load_native() -> _Native | None:
    """Return the C module, or None where it was not built."""
    try:
        return cast(_Native, importlib.import_module("altlas_evaluator.sandbox._forkloop"))
    except ImportError:
        return None


class NativeLoop:
    """The loop in C."""

    def __init__(self, native: _Native, layers: confinement.Confinement, event: int) -> None:
        self._native = native
        self._guard = None if layers.fork_guard is None else seccomp.pack(layers.fork_guard)
        self._arguments = event, layers.scope, layers.own_bytes, layers.can_kill, self._guard
        self.begin = native.begin
        self.enter_case = native.enter_case
        self.leave_case = native.leave_case

    def serve(self) -> int:
        return self._native.serve(*self._arguments)


@dataclass(frozen=True, slots=True)
class _Stage:
    """What a child with several cases tells the launcher; the fields of `struct stage`, without the results."""

    done: int = 0
    is_watched: int = 0
    started_ns: int = 0
    cpu_base_ns: int = 0
    usage_base_ns: int = 0

    def write(self, page: mmap.mmap) -> None:
        _STAGE.pack_into(page, 0, self.done, self.is_watched, self.started_ns, self.cpu_base_ns, self.usage_base_ns)


_STAGE = struct.Struct("=QQqqq")


def _read_stage(page: mmap.mmap) -> _Stage:
    return _Stage(*_STAGE.unpack_from(page))


def _results_at(index: int) -> slice:
    start = _STAGE.size + index * records.RESULT_BYTES
    return slice(start, start + records.RESULT_BYTES)


def _cpu_ns(usage: resource.struct_rusage) -> int:
    return round((usage.ru_utime + usage.ru_stime) * 1e9)


def release() -> None:
    """Close the control socket and all above it, and let SIGCHLD through: the program's first line comes next."""
    kernel.syscall("close_range", records.CONTROL_FD, 0xFFFFFFFF, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)


class PythonLoop:
    """The same loop in Python, in use where the C module could not be built."""

    def __init__(self, layers: confinement.Confinement, event: int) -> None:
        self._layers = layers
        self._event = event
        socket = importlib.import_module("socket")  # of no use to a launcher that has the C module
        self._control = socket.socket(fileno=records.CONTROL_FD)
        self._receive = socket.recv_fds
        self._request = records.Request(0, 0, 0, 0, 0, 0)
        self._descriptors: list[int] = []
        self._page: mmap.mmap | None = None
        self._fork_ns = 0

    def serve(self) -> int:
        most = _PER_CASE * (records.MAX_CASES - 1)
        while True:
            data, self._descriptors, _, _ = self._receive(self._control, records.REQUEST_BYTES + 1, most)
            if not data:
                return 0
            request = self._request = records.unpack_request(data)
            if len(self._descriptors) != _PER_CASE * (request.cases - 1):
                raise ValueError(f"{request.cases} cases and {len(self._descriptors)} descriptors")
            self._page = mmap.mmap(-1, mmap.PAGESIZE) if request.cases > 1 else None
            is_child, is_leaving = self._answer(request)
            if is_child:
                return request.cases if request.is_shared else 1
            if is_leaving:
                return 0
            if self._page is not None:
                self._page.close()
            for descriptor in self._descriptors:
                os.close(descriptor)

    def _answer(self, request: records.Request) -> tuple[bool, bool]:
        """Fork the child and answer for it; return whether this is the child, and whether to end."""
        started_ns, page = time.monotonic_ns(), self._page
        if page is not None:
            _Stage(started_ns=started_ns).write(page)
        pid = kernel.fork()
        if pid == 0:
            self._confine(lambda: confinement.confine_child(self._layers, request))
            return True, False
        self._fork_ns = time.monotonic_ns() - started_ns
        last_ns = started_ns + (request.wall_ns + _WATCH_SLACK_NS) * (request.cases + 1)
        own = self._watch(pid, started_ns, last_ns, page)
        results = [own]
        if page is not None:
            if not own.flags & records.LEAVING:
                _reap_orphans()
            results = self._results(request, page, own)
        os.write(records.CONTROL_FD, b"".join(map(records.pack_result, results)))
        return False, bool(results[-1].flags & records.LEAVING)

    def _results(self, request: records.Request, page: mmap.mmap, own: records.Result) -> list[records.Result]:
        stage = _read_stage(page)
        done = min(stage.done, request.cases)
        found = [records.unpack_result(page[_results_at(index)]) for index in range(done)]
        if request.is_shared:  # the program may have written there
            found = [
                item._replace(sequence=request.sequence, flags=0, wait_status=item.wait_status & 0xFF00)
                for item in found
            ]
        if done == request.cases:
            return found
        wall_ns = time.monotonic_ns() - stage.started_ns + self._fork_ns
        cpu_ns = max(0, own.cpu_ns - stage.usage_base_ns)
        return [*found, own._replace(cpu_ns=cpu_ns, wall_ns=max(0, wall_ns))]

    def begin(self) -> None:
        request = self._request
        if request.cases == 1:
            release()
        elif request.is_shared:  # the descriptors of the cases to come stay
            for descriptor in (self._control.detach(), records.SOURCE_FD, self._event, self._layers.scope):
                if descriptor >= 0:
                    os.close(descriptor)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
        else:
            self._confine(self._split)
            release()

    def enter_case(self, index: int, /) -> None:
        self._fork_ns = 0
        self._begin_stage(is_watched=False)
        self._take_case(index)
        for descriptor in self._descriptors_of(index):
            os.close(descriptor)

    def leave_case(self, index: int, code: int, /) -> None:
        page = self._shared_page()
        stage = _read_stage(page)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        result = self._describe((code & 0xFF) << 8, usage, 0, stage.started_ns)
        page[_results_at(index)] = records.pack_result(result._replace(cpu_ns=result.cpu_ns - stage.usage_base_ns))
        replace(stage, done=index + 1).write(page)

    def _split(self) -> None:
        """Run every case but the last in a child each; return in each process that has a case to run."""
        page, parent, last = self._shared_page(), os.getpid(), self._request.cases - 1
        for index in range(last):
            started_ns = self._begin_stage(is_watched=True)
            pid = kernel.fork()
            if pid == 0:
                confinement.separate(self._layers)
                if os.getppid() != parent:
                    raise OSError("the process that compiled has ended")
                break
            self._fork_ns = time.monotonic_ns() - started_ns
            result = self._watch(pid, started_ns, started_ns + self._request.wall_ns, None)
            page[_results_at(index)] = records.pack_result(result)
            replace(_read_stage(page), done=index + 1).write(page)
        else:
            index = last
            self._begin_stage(is_watched=False)
        self._take_case(index)
        confinement.forbid_processes(self._layers)
        page.close()

    def _confine(self, layers: Callable[[], None]) -> None:
        try:
            layers()
        except BaseException:
            os.eventfd_write(self._event, EVENT_SETUP_FAILED)
            os._exit(1)

    def _shared_page(self) -> mmap.mmap:
        if self._page is None:
            raise RuntimeError("the request has one case")
        return self._page

    def _begin_stage(self, *, is_watched: bool) -> int:
        page = self._shared_page()
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        started_ns = time.monotonic_ns()
        replace(
            _read_stage(page),
            is_watched=int(is_watched),
            usage_base_ns=sum(map(_cpu_ns, usage)),
            cpu_base_ns=time.process_time_ns(),
            started_ns=started_ns,
        ).write(page)
        return started_ns

    def _descriptors_of(self, index: int) -> list[int]:
        """Return a case's input, stdout and stderr; none for the first, whose are 0, 1 and 2 already."""
        end = _PER_CASE * index
        return self._descriptors[max(0, end - _PER_CASE) : end]

    def _take_case(self, index: int) -> None:
        for target, descriptor in enumerate(self._descriptors_of(index)):
            os.dup2(descriptor, target)

    def _watch(self, pid: int, started_ns: int, last_ns: int, page: mmap.mmap | None) -> records.Result:
        if pid < 0:
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            return self._describe(0, usage, records.SETUP_FAILED, started_ns)
        status, usage, flags = self._wait(pid, started_ns, last_ns, page)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1:
            flags |= self._read_event()
        return self._describe(status, usage, flags, started_ns)

    def _describe(self, status: int, usage: resource.struct_rusage, flags: int, started_ns: int) -> records.Result:
        wall_ns = time.monotonic_ns() - started_ns
        peak = usage.ru_maxrss * 1024
        return records.Result(self._request.sequence, status, flags, _cpu_ns(usage), wall_ns, self._fork_ns, peak)

    def _read_event(self) -> int:
        try:
            value = os.eventfd_read(self._event)
        except BlockingIOError:
            return 0
        return records.NOT_COMPILED if value == EVENT_NOT_COMPILED else records.SETUP_FAILED

    def _patience_ns(self, pid: int, started_ns: int, page: mmap.mmap | None) -> int:
        """Return the nanoseconds until what runs has met its limits."""
        stage = _Stage(started_ns=started_ns) if page is None else _read_stage(page)
        slack_ns = _WATCH_SLACK_NS if stage.is_watched else 0
        cpu_clock = (~pid << 3) | 2  # the kernel's name for another process's CPU-time clock
        wall_ns = stage.started_ns + self._request.wall_ns + slack_ns - time.monotonic_ns()
        return min(wall_ns, self._request.cpu_ns + stage.cpu_base_ns - time.clock_gettime_ns(cpu_clock))

    def _wait(
        self, pid: int, started_ns: int, last_ns: int, page: mmap.mmap | None
    ) -> tuple[int, resource.struct_rusage, int]:
        """Wait for a child or its limits; CPU time never exceeds wall time, so one wait is nearly always enough.

        `last_ns` is the end of all patience whatever the page says, since a program may have written to that.
        """
        left_ns = min(self._request.cpu_ns, self._request.wall_ns)
        while left_ns > 0:
            signal.sigtimedwait(AWAITED, left_ns / 1e9)
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                return status, usage, 0
            left_ns = min(self._patience_ns(pid, started_ns, page), last_ns - time.monotonic_ns())
        if self._layers.can_kill:
            os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            return status, usage, records.TIMED_OUT
        # Without a signal scope no program may kill, so neither may we: end, and the child dies with its parent.
        return signal.SIGKILL, resource.getrusage(resource.RUSAGE_CHILDREN), records.TIMED_OUT | records.LEAVING


def _reap_orphans() -> None:
    """Wait for a case whose parent was ended: it has died with that, and is ours where we are process 1."""
    try:
        while True:
            os.wait4(-1, 0)
    except ChildProcessError:
        return
