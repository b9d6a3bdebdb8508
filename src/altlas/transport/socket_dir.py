"""Directories for unix sockets: their paths hold 107 bytes, which one in a run directory may exceed.

Who makes one holds a lock in it and so says that it lives. Whoever makes the next removes those of the dead, since a
process that is killed cannot.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

# No longer than it must be: a path of a temporary directory, of this and of a socket has to fit.
_PREFIX = "altlas."
_LOCK = "lock"
# A directory is made before its lock is held.
_GRACE_S = 60.0


class SocketDir:
    """An empty directory of our own until `remove`. May be removed twice."""

    def __init__(self) -> None:
        _sweep(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock_fd = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Delete it and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _sweep(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*"):
        try:
            status = path.lstat()
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > _GRACE_S and not _is_held(path):
                shutil.rmtree(path, ignore_errors=True)
        except FileNotFoundError:
            continue  # another process has swept it


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
