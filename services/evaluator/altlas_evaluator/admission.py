"""What callers have in hand at once: bounded in number and in bytes, so that more is refused, or waits where flow
control holds its caller back.

Invariants: what is in hand fits the bounds, but for one call alone that is larger; who waits is served in the order of
coming, and before calls that would not wait. For use within one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from altlas.errors import OverloadedError

_FIRST_GUESS_S = 0.01  # per program, before any was answered
_MAX_RETRY_S = 30.0


class Ticket:
    """Programs in hand, and the bytes that they and their answers hold."""

    __slots__ = ("programs", "size_bytes")

    def __init__(self, programs: int, size_bytes: int) -> None:
        self.programs = programs
        self.size_bytes = size_bytes


class Admission:
    """Gives tickets within its bounds.

    Attributes:
        programs: in hand now.
        size_bytes: that they hold.
    """

    def __init__(self, *, programs: int, size_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Bound what is in hand by a number of programs and by bytes."""
        self.programs = 0
        self.size_bytes = 0
        self._most_programs = programs
        self._most_bytes = size_bytes
        self._clock = clock
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._answered = 0
        self._busy_s = 0.0
        self._busy_since = 0.0

    @contextlib.contextmanager
    def hold(self, programs: int, size_bytes: int) -> Iterator[None]:
        """Hold a call's programs as one ticket, or refuse them all.

        Raises:
            OverloadedError: there is no room for them now, or others wait for it.
        """
        if self._turn.locked() or not self._has_room(programs, size_bytes):
            seconds = self.retry_after_s()
            raise OverloadedError(
                f"{self.programs:,} programs ({self.size_bytes >> 20:,} MiB) are in hand, of {self._most_programs:,} "
                f"({self._most_bytes >> 20:,} MiB): no room for {programs:,} ({size_bytes >> 20:,} MiB) more; "
                f"try again in {seconds:.2f} s",
                retry_after_s=seconds,
            )
        ticket = self._give(programs, size_bytes)
        try:
            yield
        finally:
            self.take_back(ticket)

    async def wait(self, size_bytes: int) -> Ticket:
        """Wait for room for one program, and return its ticket."""
        async with self._turn:
            while not self._has_room(1, size_bytes):
                self._freed.clear()
                await self._freed.wait()
            return self._give(1, size_bytes)

    def resize(self, ticket: Ticket, size_bytes: int) -> None:
        """Say that a ticket holds so many bytes from now on, once the program's answer stands in its place."""
        self.size_bytes += size_bytes - ticket.size_bytes
        ticket.size_bytes = size_bytes
        self._freed.set()

    def take_back(self, ticket: Ticket) -> None:
        """End a ticket."""
        self.size_bytes -= ticket.size_bytes
        self.programs -= ticket.programs
        self._answered += ticket.programs
        if not self.programs:
            self._busy_s += self._clock() - self._busy_since
        self._freed.set()

    def retry_after_s(self) -> float:
        """Return the seconds in which what is in hand will be answered, by the mean so far."""
        busy_s = self._busy_s + (self._clock() - self._busy_since if self.programs else 0.0)
        mean_s = busy_s / self._answered if self._answered else _FIRST_GUESS_S
        return min(mean_s * max(self.programs, 1), _MAX_RETRY_S)

    def _has_room(self, programs: int, size_bytes: int) -> bool:
        if not self.programs:
            return True
        return self.programs + programs <= self._most_programs and self.size_bytes + size_bytes <= self._most_bytes

    def _give(self, programs: int, size_bytes: int) -> Ticket:
        if not self.programs:
            self._busy_since = self._clock()
        self.programs += programs
        self.size_bytes += size_bytes
        return Ticket(programs, size_bytes)
