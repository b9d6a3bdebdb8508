"""The files in memory through which a program's source, input and outputs travel past its launcher.

The supervisor's side. Each is made once and rewritten for every program; a launcher's children share the descriptions.
"""

from __future__ import annotations

import contextlib
import os


class MemoryFile:
    """One file in memory."""

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


class CaseFiles:
    """What one case reads and writes: descriptors 0, 1 and 2 of its process.

    Attributes:
        descriptors: input, stdout and stderr as its process gets them.
    """

    def __init__(self, resources: contextlib.ExitStack) -> None:
        self._input, self._stdout, self._stderr = map(MemoryFile, ("stdin", "stdout", "stderr"))
        self.descriptors = self._input.open_read_only(), self._stdout.descriptor, self._stderr.descriptor
        for descriptor in (self._input.descriptor, *self.descriptors):
            resources.callback(os.close, descriptor)

    def give(self, stdin: bytes) -> None:
        """Make `stdin` the input, and take back what a program may have changed of the descriptions."""
        for descriptor in self.descriptors:
            os.set_blocking(descriptor, True)
        self._input.replace(stdin)
        os.lseek(self.descriptors[0], 0, os.SEEK_SET)
        if stdin:
            os.utime(self._input.descriptor, ns=(0, 0))

    def has_read_input(self) -> bool:
        """Return whether any of an input that is not empty was read or mapped.

        The position tells of plain reads; the kernel's time of last access also of pread, mmap, and reading again.
        """
        is_moved = os.lseek(self.descriptors[0], 0, os.SEEK_CUR) > 0
        return is_moved or os.fstat(self._input.descriptor).st_atime_ns > 0

    def take(self, limit: int) -> tuple[bytes, bytes]:
        """Return up to `limit` bytes of stdout and of stderr, and empty both."""
        return self._stdout.take(limit), self._stderr.take(limit)
