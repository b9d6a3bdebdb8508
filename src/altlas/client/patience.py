"""How long a call goes on trying, and when it tries again."""

from __future__ import annotations

import logging
import random
import time

from altlas.errors import ConfigError, OverloadedError, TransientError

LOGGER = logging.getLogger(__name__)

_FIRST_DELAY_S = 0.05
_MAX_DELAY_S = 2.0


class Patience:
    """One call's deadline, and its waits between tries."""

    def __init__(self, peer: str, *, timeout_s: float, away_s: float) -> None:
        """Start the clock.

        Args:
            peer: who is called, for messages.
            timeout_s: seconds for the whole call.
            away_s: seconds for which the peer may be away at a stretch.

        Raises:
            ConfigError: timeout_s is not above 0.
        """
        if not timeout_s > 0:
            raise ConfigError(f"timeout_s = {timeout_s} must be above 0")
        self._peer = peer
        self._away_s = away_s
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._failures = 0  # since the last answer
        self._first_failure_at = 0.0
        self._random = random.Random()  # clients of one evaluator should not all come back at once

    @property
    def remaining_s(self) -> float:
        """Seconds left of the whole call."""
        return max(0.0, self._deadline - time.monotonic())

    def note_answer(self) -> None:
        """The peer has answered: it is there."""
        if self._failures:
            LOGGER.info("resumed after %.1f s: %s answers", time.monotonic() - self._first_failure_at, self._peer)
        self._failures = 0

    def delay_s(self, error: TransientError) -> float:
        """Return the seconds to wait before the next try.

        Raises:
            TransientError: another try would come too late. An OverloadedError is raised as it came.
        """
        if isinstance(error, OverloadedError):
            self.note_answer()
            delay_s = error.retry_after_s * self._random.uniform(1.0, 1.2)
            if delay_s >= self.remaining_s:
                raise error
            return delay_s
        now = time.monotonic()
        if not self._failures:
            self._first_failure_at = now
        delay_s = min(_FIRST_DELAY_S * 2.0 ** min(self._failures, 10), _MAX_DELAY_S) * self._random.uniform(0.5, 1.0)
        if now + delay_s >= self._deadline:
            raise TransientError(f"{error}; gave up at the end of timeout_s = {self._timeout_s:g} s") from error
        if now + delay_s >= self._first_failure_at + self._away_s:
            raise TransientError(f"{error}; gave up after away_s = {self._away_s:g} s: is it up?") from error
        if not self._failures:
            LOGGER.warning("waiting for %s: %s", self._peer, error)
        self._failures += 1
        return delay_s
