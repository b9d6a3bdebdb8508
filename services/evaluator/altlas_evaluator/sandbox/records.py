"""What the supervisor and a launcher say to each other: fixed-size records over a sequenced-packet socket.

Part of the launcher: standard library only. A record of another size, magic or sequence number is a fault of ours.
Descriptors in a launcher: 0 input, 1 stdout, 2 stderr, 3 this socket, 4 source.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

CONTROL_FD = 3
SOURCE_FD = 4

# A byte before the text of the one packet that a launcher sends once it is confined, or could not be.
READY = b"R"
FAILED = b"F"
GREETING_BYTES = 4096

TIMED_OUT = 1  # the launcher killed the program at its CPU or wall limit
NOT_COMPILED = 2  # the source does not compile; no line of it ran
SETUP_FAILED = 4  # the child could not confine itself; no line of the program ran
LEAVING = 8  # the launcher ends after this record

_REQUEST = struct.Struct("=4sIQQQQQ")
_RESULT = struct.Struct("=4sIiIQQQQ")
_MAGIC_REQUEST = b"ALq2"
_MAGIC_RESULT = b"ALr2"
REQUEST_BYTES = _REQUEST.size
RESULT_BYTES = _RESULT.size


class Request(NamedTuple):
    """Run what is in the source descriptor once, within these limits."""

    sequence: int
    cpu_ns: int
    wall_ns: int
    memory_bytes: int
    output_bytes: int
    open_files: int


class Result(NamedTuple):
    """How the child ended: the kernel's wait status, and flags that only the launcher or an unstarted child set."""

    sequence: int
    wait_status: int
    flags: int
    cpu_ns: int
    wall_ns: int
    fork_ns: int
    peak_memory_bytes: int


def pack_request(request: Request) -> bytes:
    """Return the record's bytes."""
    return _REQUEST.pack(_MAGIC_REQUEST, *request)


def unpack_request(data: bytes) -> Request:
    """Return the record, or raise ValueError when it is not one."""
    if len(data) != REQUEST_BYTES or data[:4] != _MAGIC_REQUEST:
        raise ValueError(f"not a request record: {len(data)} bytes")
    return Request(*_REQUEST.unpack(data)[1:])


def pack_result(result: Result) -> bytes:
    """Return the record's bytes."""
    return _RESULT.pack(_MAGIC_RESULT, *result)


def unpack_result(data: bytes) -> Result:
    """Return the record, or raise ValueError when it is not one."""
    if len(data) != RESULT_BYTES or data[:4] != _MAGIC_RESULT:
        raise ValueError(f"not a result record: {len(data)} bytes")
    return Result(*_RESULT.unpack(data)[1:])
