"""What the coordinator tells of its runs and their queues when somebody asks: at a scrape, and at /readyz.

Invariants: an update pays for none of it; what Redis does not answer is left out, and never a zero. The queue's counts
are the queue's own, over every run that this coordinator knows: they outlive it, so a job that was committed while it
was away is counted once, and they are left out until every run has been asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import CancelledError
from operator import attrgetter

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from altlas.errors import AltlasError
from altlas.transport import metrics as queue
from altlas.transport.ports import QueueStats
from altlas_coordinator import metrics
from altlas_coordinator.runs import ActiveRun

LOGGER = logging.getLogger(__name__)
_PATIENCE_S = 2.0
_COUNTS = {
    "issued": queue.ISSUED,
    "committed": queue.COMMITTED,
    "duplicates": queue.DUPLICATE,
    "reclaimed": queue.RECLAIMED,
    "dead": queue.DEAD,
}


class RunsCollector(Collector):
    """Reads `runs`, by name, whose queues belong to the event loop. Used from other threads than that one."""

    def __init__(self, runs: Mapping[str, ActiveRun], loop: asyncio.AbstractEventLoop) -> None:
        self._runs = runs
        self._loop = loop
        self._started_at = time.time()
        self._stats: dict[str, QueueStats] = {}
        self._is_final: dict[str, ActiveRun] = {}  # whose stats were read after its end

    def describe(self) -> Iterable[Metric]:
        """Keep the registry from a scrape at registration, which would wait for the loop that registers."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return what prometheus_client asks for at each scrape."""
        active = self._active()
        watchdogs = [run.loop.watchdog for run in active if run.loop is not None]
        yield metrics.RUNS_ACTIVE.of(len(active))
        yield metrics.LAST_PROGRESS.of(self.last_progress())
        stalls = [stall.seconds for watchdog in watchdogs if (stall := watchdog.late()) is not None]
        yield metrics.STALLED_SECONDS.of(max(stalls, default=0.0))
        medians = [watchdog.median_s for watchdog in watchdogs if watchdog.median_s is not None]
        if medians:
            yield metrics.UPDATE_SECONDS_MEDIAN.of(max(medians))
        yield from self._queues()

    def last_progress(self) -> float:
        """Return the Unix time of the last progress, of the run under way that waits longest for its next."""
        if active := self._active():
            return time.time() - max(run.idle_s() for run in active)
        return max((run.progress_at for run in list(self._runs.values())), default=self._started_at)

    def not_ready(self) -> str:
        """Return which runs stand still, in what, and for whom they wait; empty where none does."""
        return "; ".join(f"run {run.spec.run_id}: {text}" for run in self._active() if (text := run.late()))

    def _active(self) -> list[ActiveRun]:
        return [run for run in list(self._runs.values()) if run.is_under_way]

    def _queues(self) -> Iterable[Metric]:
        now = self._ask()
        if now is not None:
            yield queue.DEPTH.of(sum(stats.waiting for stats in now))
            yield queue.PENDING.of(sum(stats.in_hand for stats in now))
            yield queue.OLDEST.of(max((stats.oldest_s for stats in now), default=0.0))
        if self._stats.keys() >= self._runs.keys():
            counted = list(self._stats.values())
            for name, family in _COUNTS.items():
                yield family.of(sum(map(attrgetter(name), counted)))

    def _ask(self) -> list[QueueStats] | None:
        """Return how the queues of the runs stand that have not ended; None where Redis does not answer in time."""
        reading = self._read()
        try:
            future = asyncio.run_coroutine_threadsafe(reading, self._loop)
        except RuntimeError:  # the loop has ended, and the process is about to
            reading.close()
            return None
        try:
            return future.result(_PATIENCE_S)
        except (TimeoutError, CancelledError, AltlasError) as error:
            future.cancel()
            LOGGER.info("a scrape goes without the queue: %s", str(error) or f"no answer within {_PATIENCE_S:g} s")
            return None

    async def _read(self) -> list[QueueStats]:
        now = []
        for run_id, run in list(self._runs.items()):
            has_ended = run.has_ended
            if self._is_final.get(run_id) is run:
                continue
            self._stats[run_id] = await run.queue.stats()
            if has_ended:
                self._is_final[run_id] = run
            else:
                now.append(self._stats[run_id])
        return now
