"""Gives up what a launcher could use against the machine: uid, groups, capabilities, resource limits.

Part of the launcher: standard library only. A launcher that has root gets a uid of its own, so that RLIMIT_NPROC binds
its programs and no file of anybody's is theirs. All of it is irreversible.
"""
# ruff: noqa: PTH123

from __future__ import annotations

import os
import resource
import struct

from altlas_evaluator.sandbox import kernel

_CAP_KILL, _CAP_SETGID, _CAP_SETUID = 5, 6, 7
_CAPABILITY_VERSION_3 = 0x20080522
# Above any uid that a distribution or container runtime hands out; the launcher's pid is added and makes it unique.
_UID_BASE = 1_500_000_000
_UID_BASE_SMALL, _UID_SPAN_SMALL = 20_000, 40_000

_LIMITS = {
    "CORE": 0,
    "NOFILE": 64,
    "STACK": 8 << 20,
    "MEMLOCK": 0,
    "MSGQUEUE": 0,
    "SIGPENDING": 64,
    "NICE": 0,
    "RTPRIO": 0,
}


def _effective_capabilities() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("CapEff:"))
    return int(line.split()[1], 16)


def can_change_ids() -> bool:
    """Return whether this process may take another uid and its parent may still kill it afterwards."""
    needed = 1 << _CAP_KILL | 1 << _CAP_SETGID | 1 << _CAP_SETUID
    return os.geteuid() == 0 and _effective_capabilities() & needed == needed


def own_uid() -> int:
    """Return a uid that no other launcher on this machine has; read /proc before it is out of reach."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        rows = [[int(item) for item in line.split()] for line in file]
    largest = max(inside + count for inside, _, count in rows)
    if largest > _UID_BASE + (1 << 22):
        return _UID_BASE + os.getpid()
    return _UID_BASE_SMALL + os.getpid() % _UID_SPAN_SMALL


def drop_ids(uid: int) -> None:
    """Become `uid` with no other group, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def drop_capabilities() -> None:
    """Empty every capability set, the bounding set where permitted, and refuse new privileges."""
    for capability in range(64):
        try:
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
        except OSError:  # past the last capability, or without CAP_SETPCAP: no_new_privs makes it moot
            break
    kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL)
    kernel.syscall("capset", struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def limit_resources() -> None:
    """Set the resource limits that are the same for every program; none above what is there already."""
    for name, value in _LIMITS.items():
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(which)[1]
        kept = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (kept, kept))
