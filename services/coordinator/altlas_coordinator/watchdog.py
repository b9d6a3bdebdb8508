"""Whether a run still gets on: how long its present update takes, held against the median of the last ones.

Pure bookkeeping over a clock: it never sleeps, logs or ends anything. A stall is reported once it has lasted the
section's limit, then each time that twice as long has passed, and fails the run in the end. Pauses count for nothing.
`median_s`, `idle_s` and `late` change nothing and may be asked from another thread.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from altlas.config.sections import WatchdogSection

_REMEMBERED_UPDATES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A run that does not get on.

    kind: report it, or fail the run. stage, waiting_for: what the run does, and for whom. seconds: since the last
    update ended; stage_s: since the stage began. median_s: of the last updates; None before the first has ended.
    """

    kind: Literal["report", "fail"]
    stage: str
    waiting_for: str
    seconds: float
    stage_s: float
    median_s: float | None

    def text(self, details: str = "") -> str:
        """Return the stall in words; `details` is what is known of whom the run waits for."""
        usual = "none has ended yet" if self.median_s is None else f"median {self.median_s:.1f} s"
        parts = [f"no update for {self.seconds:.0f} s ({usual})", f"{self.stage} for {self.stage_s:.0f} s"]
        if self.waiting_for:
            parts[-1] += f", waiting for {self.waiting_for}"
        return ": ".join([*parts, details] if details else parts)


class Watchdog:
    """Watches one run from now on. `check` it every second or so; `clock` is monotonic, in seconds."""

    def __init__(self, section: WatchdogSection, clock: Callable[[], float]) -> None:
        self._section = section
        self._clock = clock
        self._stage, self._waiting_for = "starting", ""
        self._progress_at = self._stage_at = clock()
        self._paused_at: float | None = None
        self._durations: deque[float] = deque(maxlen=_REMEMBERED_UPDATES)
        self._reported_s: float | None = None
        self.median_s: float | None = None  # of the last updates; None before the first has ended

    def begin(self, stage: str, waiting_for: str) -> None:
        """Note what the run does from now on, such as "evaluating update 17", and for whom it waits meanwhile."""
        self._stage, self._waiting_for = stage, waiting_for
        self._stage_at = self._now()

    def progress(self) -> float | None:
        """Note that an update has ended; return how many seconds it took where it had been reported, else None."""
        now = self._now()
        seconds = now - self._progress_at
        self._durations.append(seconds)
        self.median_s = statistics.median(self._durations)
        was_reported, self._reported_s = self._reported_s is not None, None
        self._progress_at = now
        return seconds if was_reported else None

    def paused(self, is_paused: bool) -> None:
        """Stop the time where the run waits for a person, or let it go on. To say the same twice changes nothing."""
        if is_paused and self._paused_at is None:
            self._paused_at = self._clock()
        elif not is_paused and self._paused_at is not None:
            pause_s = self._clock() - self._paused_at
            self._paused_at = None
            self._progress_at += pause_s
            self._stage_at += pause_s

    def check(self) -> Stall | None:
        """Return the stall that is due to be reported or to fail the run; None when there is nothing to say."""
        if self._paused_at is not None:
            return None
        section, seconds = self._section, self.idle_s()
        if seconds >= max(section.least_fail_s, section.fail_after * (self.median_s or 0.0)):
            return self._stall("fail", seconds)
        if seconds < (self._limit_s() if self._reported_s is None else 2 * self._reported_s):
            return None
        self._reported_s = seconds
        return self._stall("report", seconds)

    def idle_s(self) -> float:
        """Return the seconds since the last update ended, or since the watchdog began; pauses are not counted."""
        return self._now() - self._progress_at

    def late(self) -> Stall | None:
        """Return the stall that there is now, reported before or not; None within the limit, and in a pause."""
        seconds = self.idle_s()
        if self._paused_at is not None or seconds < self._limit_s():
            return None
        return self._stall("report", seconds)

    def _limit_s(self) -> float:
        return max(self._section.least_report_s, self._section.report_after * (self.median_s or 0.0))

    def _stall(self, kind: Literal["report", "fail"], seconds: float) -> Stall:
        return Stall(
            kind=kind,
            stage=self._stage,
            waiting_for=self._waiting_for,
            seconds=seconds,
            stage_s=self._now() - self._stage_at,
            median_s=self.median_s,
        )

    def _now(self) -> float:
        """Return the clock's time, which stands still in a pause."""
        return self._clock() if self._paused_at is None else self._paused_at
