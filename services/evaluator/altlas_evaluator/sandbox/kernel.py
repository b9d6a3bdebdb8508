"""The system calls that the standard library does not offer, by number, through ctypes.

Part of the launcher: standard library only. Every call raises OSError with the name of the call in it; nothing is
ignored. Numbers are those of x86_64 and aarch64; other machines are refused by `machine`.
"""

from __future__ import annotations

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
_syscall = libc.syscall
_syscall.restype = ctypes.c_long

NUMBERS = {
    "x86_64": {"capset": 126, "pivot_root": 155, "seccomp": 317, "personality": 135},
    "aarch64": {"capset": 91, "pivot_root": 41, "seccomp": 277, "personality": 92},
}
# The same on every machine: calls younger than the unified table.
UNIFIED = {
    "close_range": 436,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}

# Without Python's at-fork handlers, which reseed `random` and cost time.
fork = ctypes.PyDLL(None).fork

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2


def machine() -> str:
    """Return this machine's name if its system calls are known.

    Raises:
        OSError: they are not.
    """
    name = os.uname().machine
    if name not in NUMBERS:
        raise OSError(f"the sandbox knows the system calls of {' and '.join(NUMBERS)}, not of {name}")
    return name


def number(name: str) -> int:
    """Return a system call's number on this machine."""
    return UNIFIED[name] if name in UNIFIED else NUMBERS[machine()][name]


def check(result: int, what: str) -> int:
    """Return a C call's result, or raise OSError from errno with `what` in it."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def syscall(name: str, *arguments: object) -> int:
    """Call the kernel; integers go as 64 bits, everything else as ctypes passes it."""
    passed = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    return check(int(_syscall(ctypes.c_long(number(name)), *passed)), name)


def prctl(option: int, second: int = 0, third: int = 0) -> int:
    """Call prctl(2)."""
    values = [ctypes.c_ulong(item) for item in (second, third, 0, 0)]
    return check(int(libc.prctl(option, *values)), f"prctl {option}")


def unshare(flags: int) -> None:
    """Call unshare(2)."""
    check(int(libc.unshare(flags)), f"unshare {flags:#x}")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Call mount(2)."""
    encoded = [None if item is None else os.fsencode(item) for item in (source, target, kind, data)]
    result = libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    check(int(result), f"mount {source or kind or ''} on {target}")


def unmount(target: str, flags: int) -> None:
    """Call umount2(2)."""
    check(int(libc.umount2(os.fsencode(target), flags)), f"umount {target}")
