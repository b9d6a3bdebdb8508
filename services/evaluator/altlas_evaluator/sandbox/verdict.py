"""Reads a launcher's record and a program's output into an execution. Pure: nothing that the program could forge is
read except its own output, which can only spoil its own status.
"""

from __future__ import annotations

import os
import signal

from altlas.core.program import Execution, Limits, ProgramStatus
from altlas_evaluator.sandbox import records

_BY_SIGNAL: dict[int, ProgramStatus] = {
    signal.SIGXCPU: ProgramStatus.TIMEOUT,
    signal.SIGXFSZ: ProgramStatus.OUTPUT_LIMIT,
    signal.SIGSYS: ProgramStatus.FORBIDDEN,
    signal.SIGKILL: ProgramStatus.MEMORY_LIMIT,  # not ours: the kernel ran out of memory
}


def is_unexplained_kill(result: records.Result) -> bool:
    """Return whether the child was killed by somebody else: worth a second try before it is called a memory limit."""
    killed = os.WIFSIGNALED(result.wait_status) and os.WTERMSIG(result.wait_status) == signal.SIGKILL
    return killed and not result.flags & records.TIMED_OUT


def _status(result: records.Result, *, is_output_full: bool, stderr: bytes) -> ProgramStatus:
    if result.flags & records.TIMED_OUT:
        return ProgramStatus.TIMEOUT
    if result.flags & records.NOT_COMPILED:
        return ProgramStatus.SYNTAX_ERROR
    if is_output_full:
        return ProgramStatus.OUTPUT_LIMIT
    if os.WIFSIGNALED(result.wait_status):
        return _BY_SIGNAL.get(os.WTERMSIG(result.wait_status), ProgramStatus.RUNTIME_ERROR)
    if os.WEXITSTATUS(result.wait_status) == 0:
        return ProgramStatus.OK
    last_line = stderr.rstrip().rpartition(b"\n")[2]
    return ProgramStatus.MEMORY_LIMIT if last_line.startswith(b"MemoryError") else ProgramStatus.RUNTIME_ERROR


def read_execution(
    result: records.Result, *, stdout: bytes, stderr: bytes, limits: Limits, has_read_stdin: bool
) -> Execution:
    """Return the execution that a record and the outputs describe.

    Args:
        result: the launcher's record; its flag SETUP_FAILED is the caller's to handle.
        stdout: up to one byte more than the limit.
        stderr: likewise.
        limits: what the program was allowed.
        has_read_stdin: whether any of its input was read, or there was none to read.
    """
    size = limits.output_bytes
    is_output_full = len(stdout) > size or len(stderr) > size
    status = _status(result, is_output_full=is_output_full, stderr=stderr)
    return Execution(
        status=status,
        stdout=stdout[:size],
        stderr=stderr[:size],
        exit_code=os.WEXITSTATUS(result.wait_status) if os.WIFEXITED(result.wait_status) else None,
        cpu_s=result.cpu_ns / 1e9,
        wall_s=result.wall_ns / 1e9,
        peak_memory_bytes=result.peak_memory_bytes,
        has_read_stdin=has_read_stdin,
    )
