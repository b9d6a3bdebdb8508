"""Waiting for a peer that is away: every wait has a line that says for whom, and one that says that it is over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from altlas.errors import TransientError
from altlas_coordinator import metrics

LOGGER = logging.getLogger(__name__)
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0
T = TypeVar("T")


async def until_back(operation: Callable[[], Awaitable[T]], *, peer: str, limit_s: float) -> T:
    """Return what `operation` gives, tried again with growing pauses while it raises TransientError.

    Raises:
        TransientError: still away after limit_s.
    """
    started = time.monotonic()
    backoff_s = _FIRST_BACKOFF_S
    try:
        while True:
            try:
                result = await operation()
            except TransientError as error:
                waited_s = time.monotonic() - started
                if waited_s > limit_s:
                    raise TransientError(f"gave up on the {peer} after {waited_s:.0f} s: {error}") from error
                LOGGER.warning("waiting for the %s: %s", peer, error)
                metrics.WAITING_SECONDS.labels(peer).set(max(waited_s, _FIRST_BACKOFF_S))
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
                continue
            if backoff_s > _FIRST_BACKOFF_S:
                LOGGER.warning("resumed after waiting %.1f s for the %s", time.monotonic() - started, peer)
            return result
    finally:
        if backoff_s > _FIRST_BACKOFF_S:
            metrics.WAITING_SECONDS.labels(peer).set(0)
