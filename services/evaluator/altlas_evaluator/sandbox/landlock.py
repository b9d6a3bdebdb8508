"""Landlock domains: what a launcher and its children may do to files, the network and other processes.

Part of the launcher: standard library only. Everything the kernel's ABI can handle is handled and denied, except what
`allow` adds. Raw system calls, since libc has no wrappers. See landlock(7).
"""

from __future__ import annotations

import ctypes
import os
import struct

from altlas_evaluator.sandbox import kernel

CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
SCOPE_ABI = 6

_FIRST_FS_BITS = 13
_FS_BITS_SINCE = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # REFER, TRUNCATE, IOCTL_DEV
_NET_ALL = 0b11  # bind and connect TCP
_SCOPE_ALL = 0b11  # abstract unix sockets, signals
_NET_ABI = 4


def abi() -> int:
    """Return the kernel's Landlock ABI; 0 where there is none or it is not enabled."""
    try:
        return kernel.syscall("landlock_create_ruleset", None, ctypes.c_size_t(0), CREATE_RULESET_VERSION)
    except OSError:
        return 0


def _create(fs: int, net: int, scoped: int, version: int) -> int:
    fields = [fs, net, scoped][: 1 if version < _NET_ABI else 2 if version < SCOPE_ABI else 3]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    return kernel.syscall("landlock_create_ruleset", attributes, ctypes.c_size_t(len(attributes)), 0)


def create_ruleset(version: int) -> int:
    """Return the descriptor of a ruleset that denies all that ABI `version` can deny."""
    fs = (1 << _FIRST_FS_BITS) - 1
    for since, bits in _FS_BITS_SINCE.items():
        fs |= bits if version >= since else 0
    return _create(fs, _NET_ALL, _SCOPE_ALL, version)


def create_scope(version: int) -> int:
    """Return the descriptor of a ruleset that only scopes signals and abstract sockets, or -1 where ABI < 6.

    A process in a domain of its own cannot signal or trace anything outside that domain.
    """
    return _create(0, 0, _SCOPE_ALL, version) if version >= SCOPE_ABI else -1


def allow(ruleset: int, path: str, access: int) -> None:
    """Allow `access` on `path` and everything beneath it."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", access, descriptor)
        kernel.syscall("landlock_add_rule", ruleset, RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def restrict_self(ruleset: int) -> None:
    """Enter the ruleset's domain. Needs no_new_privs."""
    kernel.syscall("landlock_restrict_self", ruleset, 0)
