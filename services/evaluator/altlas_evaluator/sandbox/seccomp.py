"""Assembles the system-call filter and installs it: everything not named kills the process.

Part of the launcher: standard library only. The filter is installed once per launcher, last, and inherited; installing
it per child costs as much as the fork. Architecture first, then calls decided by argument, then plain lists.
See seccomp(2); the instructions are classic BPF, linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno
import signal
import struct

from altlas_evaluator.sandbox import kernel
from altlas_evaluator.sandbox.syscalls import ALLOWED, REFUSED_EACCES, REFUSED_ENOSYS, REFUSED_EPERM, numbers

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000

RET_KILL_PROCESS = 0x80000000
RET_ERRNO = 0x00050000
RET_ALLOW = 0x7FFF0000
SET_MODE_FILTER = 1

LOAD_WORD = 0x20
JUMP_EQUAL = 0x15
JUMP_AT_LEAST = 0x35
RETURN = 0x06
OFFSET_NUMBER = 0
OFFSET_ARCH = 4
OFFSET_ARGUMENTS = 16

# What glibc's fork passes: CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD. Threads and namespaces pass more.
FORK_FLAGS = 0x01200000 | signal.SIGCHLD
AF_UNIX = 1
# SOCK_STREAM alone, or with SOCK_NONBLOCK, SOCK_CLOEXEC or both: an end of a datagram pair can send to any address.
STREAMS = (1, 0x801, 0x80001, 0x80801)
PR_GETTERS = (2, 3, 16)  # PDEATHSIG, DUMPABLE, NAME
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
FCNTLS = (0, 1, 2, 3, 1030)  # F_DUPFD F_GETFD F_SETFD F_GETFL F_DUPFD_CLOEXEC; F_SETFL would outlive the program

Instruction = tuple[int, int, int, int]


def _statement(code: int, value: int) -> Instruction:
    return (code, 0, 0, value)


def _refuse(code: int) -> Instruction:
    return _statement(RETURN, RET_ERRNO | code)


def _when_number(number: int, block: list[Instruction]) -> list[Instruction]:
    """Run `block`, which must return, when the call is `number`; go past it otherwise."""
    return [(JUMP_EQUAL, 0, len(block), number), *block]


def _argument_in(index: int, values: tuple[int, ...], otherwise: int) -> list[Instruction]:
    """Allow when the low word of argument `index` is among `values`, else refuse with errno `otherwise`."""
    block = [_statement(LOAD_WORD, OFFSET_ARGUMENTS + 8 * index)]
    for value in values:
        block += [(JUMP_EQUAL, 0, 1, value), _statement(RETURN, RET_ALLOW)]
    return [*block, _refuse(otherwise)]


def _socketpair_block() -> list[Instruction]:
    is_unix = (JUMP_EQUAL, 1, 0, AF_UNIX)
    tail = _argument_in(1, STREAMS, errno.EACCES)
    return [_statement(LOAD_WORD, OFFSET_ARGUMENTS), is_unix, _refuse(errno.EACCES), *tail]


def _prctl_block() -> list[Instruction]:
    """Allow harmless getters, and PR_SET_PDEATHSIG with SIGKILL alone, so that no program can outlive its launcher."""
    tail = _argument_in(1, (signal.SIGKILL,), errno.EPERM)
    getters: list[Instruction] = []
    for option in PR_GETTERS:
        getters += [(JUMP_EQUAL, 0, 1, option), _statement(RETURN, RET_ALLOW)]
    is_deathsig = (JUMP_EQUAL, 1, 0, kernel.PR_SET_PDEATHSIG)
    return [_statement(LOAD_WORD, OFFSET_ARGUMENTS), *getters, is_deathsig, _refuse(errno.EPERM), *tail]


def _head(machine: str) -> list[Instruction]:
    kill = _statement(RETURN, RET_KILL_PROCESS)
    head = [
        _statement(LOAD_WORD, OFFSET_ARCH),
        (JUMP_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        kill,
        _statement(LOAD_WORD, OFFSET_NUMBER),
    ]
    return [*head, (JUMP_AT_LEAST, 0, 1, X32_BIT), kill] if machine == "x86_64" else head


def assemble(machine: str, *, allows_kill: bool, allows_fork_guard: bool = False) -> list[Instruction]:
    """Return the launcher's filter.

    Args:
        machine: "x86_64" or "aarch64".
        allows_kill: whether kill, tkill and tgkill pass; only where something else keeps them off the launcher.
        allows_fork_guard: whether a child may install `fork_guard` on top.
    """
    table = numbers(machine)
    by_argument = {
        "clone": _argument_in(0, (FORK_FLAGS,), errno.EPERM),
        "socketpair": _socketpair_block(),
        "prctl": _prctl_block(),
        "ioctl": _argument_in(1, IOCTLS, errno.EPERM),
        "fcntl": _argument_in(1, FCNTLS, errno.EPERM),
        "prlimit64": _argument_in(0, (0,), errno.EPERM),
    }
    program = _head(machine)
    for name, block in by_argument.items():
        program += _when_number(table[name], block)
    kills = [_statement(RETURN, RET_ALLOW) if allows_kill else _refuse(errno.EPERM)]
    groups: list[tuple[tuple[str, ...], list[Instruction]]] = [
        (("kill", "tkill", "tgkill"), kills),
        (("seccomp",) if allows_fork_guard else (), [_statement(RETURN, RET_ALLOW)]),
        (ALLOWED, [_statement(RETURN, RET_ALLOW)]),
        (REFUSED_EACCES, [_refuse(errno.EACCES)]),
        (REFUSED_EPERM, [_refuse(errno.EPERM)]),
        (REFUSED_ENOSYS, [_refuse(errno.ENOSYS)]),
    ]
    for names, block in groups:
        for name in names:
            if name in table:
                program += _when_number(table[name], block)
    return [*program, _statement(RETURN, RET_KILL_PROCESS)]


def fork_guard(machine: str) -> list[Instruction]:
    """Return a small filter for each child that refuses every new process.

    Only for a launcher that cannot give up kernel uid 0, which RLIMIT_NPROC does not bind.
    """
    table = numbers(machine)
    program = _head(machine)
    for name in ("clone", "clone3", "fork", "vfork"):
        if name in table:
            program += _when_number(table[name], [_refuse(errno.EPERM)])
    return [*program, _statement(RETURN, RET_ALLOW)]


def pack(program: list[Instruction]) -> bytes:
    """Return a filter as the kernel reads it."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def install(program: list[Instruction]) -> None:
    """Install a filter on this process and all its future children. Needs no_new_privs.

    Raises:
        OSError: the kernel refused it.
    """
    kernel.syscall("seccomp", SET_MODE_FILTER, 0, ctypes.byref(_FilterProgram(len(program), pack(program))))
