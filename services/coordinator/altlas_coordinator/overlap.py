"""Async mode: sampling, evaluation and learning overlap, and the steps of an update are those of the loop.

Invariants: batches are learned in the order of their numbers, each once; a batch is drawn only while its number is at
most max_lag above the policy's version, after a return to a checkpoint too, so no trajectory is ever staler than that
and none is dropped; a failure of any batch ends them all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from altlas_coordinator import metrics
from altlas_coordinator.stopping import StopReason

if TYPE_CHECKING:
    from altlas_coordinator.loop import Batch, TrainingLoop


class _InFlight:
    """A batch, the task that draws and scores it, and whether its programs have been numbered."""

    def __init__(self, loop: TrainingLoop, batch: Batch, before: _InFlight | None, turns: asyncio.Semaphore) -> None:
        self.batch = batch
        self.is_scoring = asyncio.Event()
        self.task = asyncio.create_task(self._draw_and_score(loop, before, turns))

    async def _draw_and_score(self, loop: TrainingLoop, before: _InFlight | None, turns: asyncio.Semaphore) -> None:
        async with turns:
            await loop.sample(self.batch)
        # Programs are numbered in the order of the batches, which a checkpoint relies on.
        if before is not None:
            await before.is_scoring.wait()
        scoring = asyncio.ensure_future(loop.evaluate(self.batch))
        try:
            await asyncio.sleep(0)  # it numbers them before its first wait
            self.is_scoring.set()
            await scoring
        finally:
            scoring.cancel()


async def overlap_updates(loop: TrainingLoop) -> StopReason:
    """Run updates until a stopping condition holds; what is in flight then is thrown away.

    Raises:
        AltlasError: a batch failed for good.
    """
    in_flight: deque[_InFlight] = deque()
    turns = asyncio.Semaphore(loop.source.width)
    learning: asyncio.Task[None] | None = None
    try:
        while learning is not None or (reason := loop.stop_reason()) is None:
            if learning is None:
                await loop.wait_while_paused()
            _admit(loop, in_flight, turns)
            if learning is None and in_flight[0].task.done():
                in_flight[0].task.result()
                learning = asyncio.create_task(loop.learn(in_flight[0].batch))
            await _any(learning, *(item.task for item in in_flight if not item.task.done()))
            for item in in_flight:
                if item.task.done():
                    item.task.result()
            if learning is not None and learning.done():
                learning.result()
                in_flight.popleft()
                learning = None
    finally:
        await _end([*([learning] if learning else []), *(item.task for item in in_flight)])
        metrics.IN_FLIGHT.set(0)
    return reason


def _admit(loop: TrainingLoop, in_flight: deque[_InFlight], turns: asyncio.Semaphore) -> None:
    """Start as many batches as may be on their way: max_lag + 1, counted from the next one to be learned."""
    # One that has just been learned may still be leaving its checkpoint.
    coming = [item.batch for item in in_flight if item.batch.update >= loop.totals.updates]
    while len(coming) <= loop.config.run.max_lag and loop.may_go_on.is_set():
        batch = loop.next_batch(coming)
        if batch is None:
            break
        coming.append(batch)
        in_flight.append(_InFlight(loop, batch, in_flight[-1] if in_flight else None, turns))
    metrics.IN_FLIGHT.set(len(in_flight))


async def _any(*tasks: asyncio.Task[None] | None) -> None:
    waiting = [task for task in tasks if task is not None]
    if waiting:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have gone, whatever they say."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
