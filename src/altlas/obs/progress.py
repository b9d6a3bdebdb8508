"""Whether a process gets on with what it has in hand: the time of its last progress, and what is late.

A piece of work is late once it has been in hand for longer than whoever asked for it waits: then it has been given up,
and a process that is still at it stands still.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator

from altlas.obs.metrics import gauge

LAST_PROGRESS = gauge(
    "altlas_last_progress_timestamp_seconds",
    "Unix time at which the process last finished a piece of its work: an update, a call, a job; its start counts.",
    "`time() - x` grows while the process has nothing to do or stands still; which of the two, /readyz says.",
    labels=["role"],
)


class Progress:
    """The work of a role's process. May be used from any thread. `clock`: monotonic, in seconds."""

    def __init__(self, role: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._gauge = LAST_PROGRESS.labels(role)
        self._gauge.set_to_current_time()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._in_hand: dict[int, tuple[float, str, float]] = {}  # when it began, what, after how long it is late

    def done(self) -> None:
        """Note that a piece of work has been finished."""
        self._gauge.set_to_current_time()

    @contextlib.contextmanager
    def working(self, what: str, *, limit_s: float) -> Iterator[None]:
        """Have `what` in hand, which is late after `limit_s`; it counts as progress unless it fails."""
        number = next(self._numbers)
        with self._lock:
            self._in_hand[number] = (self._clock(), what, limit_s)
        try:
            yield
        finally:
            with self._lock:
                del self._in_hand[number]
        self.done()

    def not_ready(self) -> str:
        """Return what is late, and for how long; empty where nothing is."""
        now = self._clock()
        with self._lock:
            late = [work for work in self._in_hand.values() if now - work[0] > work[2]]
        if not late:
            return ""
        began, what, limit_s = min(late)
        return f"{what} has been in hand for {now - began:.0f} s, and whoever asked for it waits {limit_s:.0f} s"
