"""The window: how many jobs of a run may wait or be in hand, and what ends the wait for room."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import REGISTRY
from queue_bench import Bench, MakeBench, commit, ids, jobs, redis_bench, take

from altlas.errors import FencedError
from altlas.transport import redis_streams
from altlas.transport.ports import DeadJobError, JobQueue, JobSource, QueueStats, RunLostError

WINDOW = 5


@pytest.fixture
def narrow(make_bench: MakeBench) -> Iterator[Bench]:
    """An adapter with a window of 5 jobs."""
    with make_bench(WINDOW) as made:
        yield made


@contextlib.contextmanager
def working(source: JobSource, act: Callable[[JobSource], None]) -> Iterator[None]:
    """Let a thread act on the source until the end of the block."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            act(source)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def held(stats: QueueStats) -> int:
    return stats.waiting + stats.in_hand


def waited_s() -> float:
    return REGISTRY.get_sample_value("altlas_queue_admission_wait_seconds_total") or 0.0


async def until_full(queue: JobQueue) -> None:
    async with asyncio.timeout(10):
        while held(await queue.stats()) < WINDOW:
            await asyncio.sleep(0.01)


async def ended(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(5):
        await task


def test_more_jobs_than_the_window_holds_wait_for_room_and_none_is_dropped(narrow: Bench) -> None:
    def slowly(source: JobSource) -> None:
        for delivery in source.take(count=2, block_s=0.05):
            time.sleep(0.002)
            commit(source, delivery)

    async def scenario(queue: JobQueue) -> None:
        waited_before_s, most = waited_s(), WINDOW
        submitting = asyncio.create_task(queue.submit(0, jobs(50)))
        await until_full(queue)
        with working(narrow.source(), slowly):
            while not submitting.done():
                stats = await queue.stats()
                most = max(most, held(stats))
                await asyncio.sleep(0.001)
            await submitting
            assert len(await queue.collect(0, ids(jobs(50)), timeout_s=20)) == 50
        stats = await queue.stats()
        assert most == WINDOW
        assert (stats.committed, stats.duplicates, stats.dead, held(stats)) == (50, 0, 0, 0)
        assert waited_s() > waited_before_s
        assert REGISTRY.get_sample_value("altlas_queue_window_jobs") is not None

    narrow.run(scenario)


def test_updates_share_the_window(narrow: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.submit(0, jobs(3, update=0))
        submitting = asyncio.create_task(queue.submit(1, jobs(4, update=1)))
        await until_full(queue)
        source = narrow.source()
        for delivery in take(source, 2):
            commit(source, delivery)
        await ended(submitting)
        assert held(await queue.stats()) == WINDOW

    narrow.run(scenario)


def test_jobs_that_are_up_or_done_take_no_room(narrow: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        source = narrow.source()
        await queue.submit(0, jobs(WINDOW))
        for delivery in take(source, 2):
            commit(source, delivery)
        await queue.submit(0, jobs(WINDOW + 2))
        async with asyncio.timeout(5):
            await queue.submit(0, jobs(WINDOW + 2))
        assert held(await queue.stats()) == WINDOW

    narrow.run(scenario)


def test_waiting_for_room_leaves_the_processor_alone(narrow: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        submitting = asyncio.create_task(queue.submit(0, jobs(WINDOW + 1)))
        await until_full(queue)
        before_s = time.process_time()
        await asyncio.wait([submitting], timeout=0.5)
        assert time.process_time() - before_s < 0.1
        source = narrow.source()
        commit(source, take(source, 1)[0])
        await ended(submitting)

    narrow.run(scenario)


def test_a_run_that_vanishes_ends_the_wait(narrow: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        submitting = asyncio.create_task(queue.submit(0, jobs(WINDOW + 1)))
        await until_full(queue)
        await narrow.another_queue().close()
        with pytest.raises(RunLostError, match="not open"):
            await ended(submitting)

    narrow.run(scenario)


def test_a_later_leader_ends_the_wait(narrow: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        queue = narrow.another_queue()
        await queue.lead(owner="here:1")
        submitting = asyncio.create_task(queue.submit(0, jobs(WINDOW + 1)))
        await until_full(queue)
        await narrow.another_queue().lead(owner="here:1")
        with pytest.raises(FencedError):
            await ended(submitting)

    narrow.run(scenario)


def fail_first(source: JobSource) -> None:
    """Fail the first job of update 0, and give the others back."""
    for delivery in source.take(count=WINDOW, block_s=0.05):
        if delivery.job_id == "u0.s0":
            source.fail(delivery, "broken")
        else:
            source.release([delivery])


def test_a_dead_job_of_the_update_ends_the_wait(narrow: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        with working(narrow.source(), fail_first), pytest.raises(DeadJobError, match=r"u0\.s0.*broken"):
            async with asyncio.timeout(10):
                await queue.submit(0, jobs(50))

    narrow.run(scenario)


def test_a_job_that_died_in_an_earlier_try_does_not_end_the_wait(narrow: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        source = narrow.source()
        dead, others = jobs(WINDOW + 1)[:1], jobs(WINDOW + 1)[1:]
        await queue.submit(0, dead)
        for _ in range(3):
            source.fail(take(source, 1)[0], "broken")
        submitting = asyncio.create_task(queue.submit(0, others + dead))
        await until_full(queue)
        for delivery in take(source, WINDOW):
            commit(source, delivery)
        await ended(submitting)
        (again,) = take(source, 1)
        assert (again.job_id, again.deliveries) == ("u0.s0", 1)

    narrow.run(scenario)


def test_a_long_wait_is_reported_and_its_end_too(
    any_server_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_streams, "_REPORT_WAIT_S", 0.0)
    with redis_bench(any_server_url, window_jobs=WINDOW) as bench:

        async def scenario(queue: JobQueue) -> None:
            submitting = asyncio.create_task(queue.submit(7, jobs(WINDOW + 1, update=7)))
            async with asyncio.timeout(10):
                while "waiting for room: 5 of 6 jobs are up and 5 may wait" not in caplog.text:
                    await asyncio.sleep(0.01)
            source = bench.source()
            commit(source, take(source, 1)[0])
            await ended(submitting)
            assert f"run {bench.run_id}, update 7: resumed after" in caplog.text

        bench.run(scenario)
