"""The launcher's loop: read a request, fork, confine the child, wait for its end or its limits, answer.

Part of the launcher: standard library only. `_forkloop.c` does the same without dirtying the interpreter's pages, which
fork would have to copy; it is used where the package could build it. Both have the functions `serve` and `release`.
What happened is read from the kernel's wait status, and from an event descriptor that is closed, with the control
socket, before the first line of the program runs.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import time
from typing import Protocol, cast

from altlas_evaluator.sandbox import confinement, kernel, records

EVENT_SETUP_FAILED, EVENT_NOT_COMPILED = 1, 2  # added to the event descriptor by a child
AWAITED = frozenset({signal.SIGCHLD})


class Native(Protocol):
    """What the C module has, see `_forkloop.c`."""

    def serve(self, event: int, scope: int, own_bytes: int, can_kill: bool, guard: bytes | None, /) -> bool: ...

    def release(self) -> None: ...

    def use_huge_pages(self, start: int, end: int, /) -> None: ...


def load_native() -> Native | None:
    """Return the C module, or None where it was not built."""
    try:
        return cast(Native, importlib.import_module("altlas_evaluator.sandbox._forkloop"))
    except ImportError:
        return None


def serve(layers: confinement.Confinement, event: int) -> bool:
    """Answer requests; return True in a child that may run its program, False once the supervisor has hung up.

    Raises:
        ValueError: something that is not a request.
    """
    while data := os.read(records.CONTROL_FD, records.REQUEST_BYTES + 1):
        request = records.unpack_request(data)
        started_ns = time.monotonic_ns()
        pid = kernel.fork()
        if pid == 0:
            _become_child(layers, request, event)
            return True
        result = _watch(layers, request, event, pid, started_ns)
        os.write(records.CONTROL_FD, records.pack_result(result))
        if result.flags & records.LEAVING:
            break
    return False


def release() -> None:
    """Close the control socket and all above it, and let SIGCHLD through: the program's first line comes next."""
    kernel.syscall("close_range", records.CONTROL_FD, 0xFFFFFFFF, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)


def _become_child(layers: confinement.Confinement, request: records.Request, event: int) -> None:
    try:
        confinement.confine_child(layers, request)
    except BaseException:
        os.eventfd_write(event, EVENT_SETUP_FAILED)
        os._exit(1)


def _watch(
    layers: confinement.Confinement, request: records.Request, event: int, pid: int, started_ns: int
) -> records.Result:
    fork_ns = time.monotonic_ns() - started_ns
    if pid < 0:
        return records.Result(request.sequence, 0, records.SETUP_FAILED, 0, 0, fork_ns, 0)
    status, usage, flags = _wait(pid, request, started_ns + request.wall_ns, can_kill=layers.can_kill)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1:
        flags |= _read_event(event)
    wall_ns = time.monotonic_ns() - started_ns
    cpu_ns = round((usage.ru_utime + usage.ru_stime) * 1e9)
    return records.Result(request.sequence, status, flags, cpu_ns, wall_ns, fork_ns, usage.ru_maxrss * 1024)


def _read_event(event: int) -> int:
    try:
        value = os.eventfd_read(event)
    except BlockingIOError:
        return 0
    return records.NOT_COMPILED if value == EVENT_NOT_COMPILED else records.SETUP_FAILED


def _wait(
    pid: int, request: records.Request, deadline_ns: int, *, can_kill: bool
) -> tuple[int, resource.struct_rusage, int]:
    """Wait for the child or its limits.

    One thread and no children of its own: CPU time never exceeds wall time, so one wait is nearly always enough.
    """
    cpu_clock = (~pid << 3) | 2  # the kernel's name for another process's CPU-time clock
    cpu_left_ns = request.cpu_ns
    while (patience_ns := min(deadline_ns - time.monotonic_ns(), cpu_left_ns)) > 0:
        signal.sigtimedwait(AWAITED, patience_ns / 1e9)
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, usage, 0
        cpu_left_ns = request.cpu_ns - time.clock_gettime_ns(cpu_clock)
    if can_kill:
        os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        return status, usage, records.TIMED_OUT
    # Without a signal scope no program may kill, so neither may we: end, and the child dies with its parent.
    return signal.SIGKILL, resource.getrusage(resource.RUSAGE_CHILDREN), records.TIMED_OUT | records.LEAVING
