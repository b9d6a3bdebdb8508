"""How a session ends what it has started."""

from __future__ import annotations

import asyncio

from altlas_coordinator.session import end_tasks


def test_a_task_that_loses_a_cancellation_is_ended_all_the_same() -> None:
    """As wait_for loses it in Python 3.11, below a renewal of the lease: a run that had solved its task hung."""
    lost = 0

    async def guard() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost += 1

    async def fails() -> None:
        raise ValueError

    async def main() -> None:
        tasks = [asyncio.ensure_future(guard()), asyncio.ensure_future(fails())]
        await asyncio.sleep(0)
        await asyncio.wait_for(end_tasks(tasks, again_s=0.01), timeout=10)
        assert tasks[0].cancelled()

    asyncio.run(main())
    assert lost == 1
