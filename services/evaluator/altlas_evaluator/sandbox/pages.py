"""Puts the interpreter's text into huge pages, so that a fork copies one entry for 2 MiB of it.

Part of the launcher: standard library only. It only saves time: where the kernel or the layout of the interpreter does
not allow it, nothing else changes. Copying in advance the pages that every program writes to was tried too: copying is
what costs, not the fault, and some were copied in vain.
"""
# ruff: noqa: PTH123

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any, NamedTuple

HUGE_BYTES = 2 << 20


class Mapping(NamedTuple):
    """A line of /proc/PID/maps."""

    start: int
    end: int
    access: str
    path: str


def parse_maps(text: str) -> Iterator[Mapping]:
    """Yield the mappings of a /proc/PID/maps."""
    for line in text.splitlines():
        fields = line.split(maxsplit=5)
        start, _, end = fields[0].partition("-")
        yield Mapping(int(start, 16), int(end, 16), fields[1], fields[5] if len(fields) > 5 else "")


def text_range(mappings: list[Mapping], address: int) -> tuple[int, int]:
    """Return the huge-page aligned part of the read-only mappings of the file that `address` lies in; may be empty."""
    path = next((item.path for item in mappings if item.start <= address < item.end), "")
    ours = [item for item in mappings if path and item.path == path and "w" not in item.access]
    if not ours:
        return 0, 0
    end = ours[0].end
    for item in ours[1:]:
        end = item.end if item.start == end else end
    start = -(-ours[0].start // HUGE_BYTES) * HUGE_BYTES
    return start, max(start, end // HUGE_BYTES * HUGE_BYTES)


def use_huge_text(native: Any) -> None:
    """Put the interpreter's text into huge pages, where its layout allows: a child then has no faults in it."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        mappings = list(parse_maps(file.read()))
    address = ctypes.cast(ctypes.pythonapi.Py_CompileString, ctypes.c_void_p).value or 0
    start, end = text_range(mappings, address)
    if start < end:
        with contextlib.suppress(OSError):  # a kernel without huge pages
            native.use_huge_pages(start, end)
