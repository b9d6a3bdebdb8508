"""What the supervisor and a launcher say to each other: fixed-size records over a sequenced-packet socket.

Part of the launcher: standard library only. A record of another size, magic or sequence number is a fault of ours.
A request asks for one or more cases of a program; the descriptors of the input, stdout and stderr of each case beyond
the first travel with it. The answer is a packet of one result per case, in order; fewer where the launcher could not go
on after one, so that the supervisor asks again for the rest.
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
MAX_CASES = 16  # of a request

TIMED_OUT = 1  # the launcher killed the program at its CPU or wall limit
NOT_COMPILED = 2  # the source does not compile; no line of it ran
SETUP_FAILED = 4  # the child could not confine itself; no line of the program ran
LEAVING = 8  # the launcher ends after this record

_REQUEST = struct.Struct("=4sIQQQQQII")
_RESULT = struct.Struct("=4sIiIQQQQ")
_MAGIC_REQUEST = b"ALq3"
_MAGIC_RESULT = b"ALr3"
REQUEST_BYTES = _REQUEST.size
RESULT_BYTES = _RESULT.size


class Request(NamedTuple):
    """Run what is in the source descriptor on so many cases, within these limits each; 1 for cases in one process."""

    sequence: int
    cpu_ns: int
    wall_ns: int
    memory_bytes: int
    output_bytes: int
    open_files: int
    cases: int = 1
    is_shared: int = 0


class Result(NamedTuple):
    """How a case ended: the kernel's wait status, and flags that only the launcher or an unstarted child set."""

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
    request = Request(*_REQUEST.unpack(data)[1:])
    if not 1 <= request.cases <= MAX_CASES:
        raise ValueError(f"a request for {request.cases} cases")
    return request


def pack_result(result: Result) -> bytes:
    """Return the record's bytes."""
    return _RESULT.pack(_MAGIC_RESULT, *result)


def unpack_result(data: bytes) -> Result:
    """Return the record, or raise ValueError when it is not one."""
    if len(data) != RESULT_BYTES or data[:4] != _MAGIC_RESULT:
        raise ValueError(f"not a result record: {len(data)} bytes")
    return Result(*_RESULT.unpack(data)[1:])


def unpack_results(data: bytes, most: int) -> list[Result]:
    """Return the records of a packet, 1 to `most`, or raise ValueError when it is not such a packet."""
    if not data or len(data) % RESULT_BYTES or len(data) > most * RESULT_BYTES:
        raise ValueError(f"not a packet of 1 to {most} results: {len(data)} bytes")
    return [unpack_result(data[at : at + RESULT_BYTES]) for at in range(0, len(data), RESULT_BYTES)]
