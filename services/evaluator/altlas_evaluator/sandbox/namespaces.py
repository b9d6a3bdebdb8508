"""New namespaces and a root that holds nothing but the standard library, read-only.

Part of the launcher: standard library only. `enter` forks: the caller goes on as process 1 of a new process namespace,
so that its death ends everything in it; the outer process only waits and passes the end on.
"""
# ruff: noqa: PTH103, PTH112

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import NoReturn

from altlas_evaluator.sandbox import kernel

_NAMESPACES = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWCGROUP
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
)
# Mount flags that a user namespace may not clear when it remounts: the same bits in statvfs and in mount(2).
_LOCKED_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | 8 | 1024 | 2048
_ST_RELATIME, _MS_RELATIME = 4096, 1 << 21


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"user namespace: {error.strerror}", path) from error
    finally:
        os.close(descriptor)


def _unshare_as_user() -> None:
    """Enter a user namespace that maps this user alone, and the other namespaces with it."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else /proc/self/uid_map belongs to root after a change of uid
    kernel.unshare(kernel.CLONE_NEWUSER | _NAMESPACES)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")


def _wait_for(pid: int) -> NoReturn:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of uid has cleared it
    kernel.syscall("close_range", 0, 0xFFFFFFFF, 0)
    _, status = os.waitpid(pid, 0)
    os._exit(0 if status == 0 else 1)


def enter(drop_ids: Callable[[], object]) -> str:
    """Enter new namespaces as process 1 and say how: "root" or "user namespace".

    Args:
        drop_ids: called first where only a user namespace is to be had, so that kernel uid 0 does not go in.

    Raises:
        OSError: neither is permitted here.
    """
    try:
        kernel.unshare(_NAMESPACES)
        how = "root"
    except PermissionError:
        drop_ids()
        _unshare_as_user()
        how = "user namespace"
    pid = os.fork()
    if pid:
        _wait_for(pid)
    return how


def _bind_read_only(source: str, target: str) -> None:
    os.makedirs(target, exist_ok=True)
    kernel.mount(source, target, None, kernel.MS_BIND)
    found = os.statvfs(target).f_flag
    flags = (found & _LOCKED_FLAGS) | (_MS_RELATIME if found & _ST_RELATIME else 0)
    wanted = flags | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_RDONLY
    kernel.mount(None, target, None, kernel.MS_REMOUNT | kernel.MS_BIND | wanted)


def change_root(shown: Sequence[tuple[str, int]], hidden: Sequence[str]) -> None:
    """Make a tiny read-only tmpfs the root, with `shown` bound read-only in it where they were.

    Args:
        shown: directories as (absolute path, O_PATH descriptor opened in this mount namespace).
        hidden: absolute paths within them that are covered by an empty directory.
    """
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    base = next(path for path in ("/tmp", "/mnt", "/dev") if os.path.isdir(path))
    kernel.mount("tmpfs", base, "tmpfs", flags, "size=256k,nr_inodes=256,mode=755")
    for path, descriptor in shown:
        _bind_read_only(f"/proc/self/fd/{descriptor}", base + path)
    for path in hidden:
        if os.path.isdir(base + path):
            kernel.mount("tmpfs", base + path, "tmpfs", flags | kernel.MS_RDONLY, "size=4k,nr_inodes=2,mode=755")
    os.chdir(base)
    kernel.syscall("pivot_root", b".", b".")
    kernel.unmount(".", kernel.MNT_DETACH)
    os.chdir("/")
    kernel.mount(None, "/", None, kernel.MS_REMOUNT | kernel.MS_RDONLY | flags)
