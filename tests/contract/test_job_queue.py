"""What every job queue promises of jobs, asked of the memory twin and of every server alike."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest
from queue_bench import Bench, MemoryBench, commit, ids, jobs, redis_bench, take

from altlas.errors import ConfigError, TransientError
from altlas.transport.memory import MemoryTransport
from altlas.transport.ports import Commit, DeadJobError, JobId, JobQueue, JobSource, RunLostError


def test_a_submitted_job_comes_back_with_its_result(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        messages, source = jobs(5), bench.source()
        await queue.submit(0, messages)
        assert (await queue.stats()).waiting == 5
        taken = take(source, 5)
        assert sorted(delivery.payload for delivery in taken) == sorted(message.payload for message in messages)
        assert {delivery.deliveries for delivery in taken} == {1}
        assert {delivery.run_id for delivery in taken} == {bench.run_id}
        assert (await queue.stats()).in_hand == 5
        assert all(commit(source, delivery) for delivery in taken)
        found = await queue.collect(0, ids(messages), timeout_s=5)
        assert found == {message.job_id: b"result of " + message.payload for message in messages}
        stats = await queue.stats()
        assert (stats.waiting, stats.in_hand, stats.committed, stats.duplicates) == (0, 0, 5, 0)

    bench.run(scenario)


def test_take_gives_at_most_count_and_nothing_when_there_is_nothing(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        source = bench.source()
        assert list(source.take(count=4, block_s=0.01)) == []
        await queue.submit(0, jobs(5))
        assert len(source.take(count=2, block_s=5)) == 2

    bench.run(scenario)


def test_collect_wakes_when_the_last_result_arrives(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        messages, source = jobs(2), bench.source()
        await queue.submit(0, messages)
        first, last = take(source, 2)
        commit(source, first)
        collecting = asyncio.create_task(queue.collect(0, ids(messages), timeout_s=20))
        done, _ = await asyncio.wait([collecting], timeout=0.05)
        assert not done
        started = time.monotonic()
        await asyncio.to_thread(commit, source, last)
        assert len(await collecting) == 2
        # Half the slice in which a collector looks by itself: it was woken.
        assert time.monotonic() - started < 0.5

    bench.run(scenario)


def test_collect_times_out_with_a_transient_error(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.submit(0, jobs(1))
        with pytest.raises(TransientError, match=r"update 0.*within 0\.02 s"):
            await queue.collect(0, ids(jobs(1)), timeout_s=0.02)

    bench.run(scenario)


def test_collect_of_nothing_is_empty(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.submit(0, [])
        assert await queue.collect(0, [], timeout_s=0.01) == {}

    bench.run(scenario)


def test_updates_are_collected_side_by_side(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        source = bench.source()
        await queue.submit(0, jobs(3, update=0))
        await queue.submit(1, jobs(3, update=1))
        collecting = [asyncio.create_task(queue.collect(u, ids(jobs(3, update=u)), timeout_s=20)) for u in (0, 1)]
        for delivery in reversed(await asyncio.to_thread(take, source, 6)):
            await asyncio.to_thread(commit, source, delivery)
        zero, one = await asyncio.gather(*collecting)
        assert set(zero) == set(ids(jobs(3, update=0)))
        assert set(one) == set(ids(jobs(3, update=1)))

    bench.run(scenario)


@pytest.mark.parametrize("state", ["waiting", "in hand", "committed"])
def test_a_job_submitted_twice_is_one_job(bench: Bench, state: str) -> None:
    async def scenario(queue: JobQueue) -> None:
        messages, source = jobs(1), bench.source()
        await queue.submit(0, messages)
        if state == "waiting":
            await queue.submit(0, messages)
        (delivery,) = take(source, 1)
        if state == "in hand":
            await queue.submit(0, messages)
        assert commit(source, delivery)
        if state == "committed":
            await queue.submit(0, messages)
        assert list(source.take(count=1, block_s=0.01)) == []
        stats = await queue.stats()
        assert (stats.waiting, stats.in_hand, stats.committed) == (0, 0, 1)

    bench.run(scenario)


def test_a_batch_that_names_a_job_twice_puts_it_up_once(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.submit(0, jobs(1) + jobs(1))
        assert (await queue.stats()).waiting == 1

    bench.run(scenario)


def test_the_first_commit_wins(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        source = bench.source()
        await queue.submit(0, jobs(1))
        (delivery,) = take(source, 1)
        assert commit(source, delivery, b"first") is True
        assert commit(source, delivery, b"second") is False
        assert await queue.collect(0, [delivery.job_id], timeout_s=5) == {delivery.job_id: b"first"}
        stats = await queue.stats()
        assert (stats.committed, stats.duplicates) == (1, 1)

    bench.run(scenario)


def test_an_expired_lease_goes_to_another_worker_and_the_late_commit_counts_if_first(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        slow, quick = bench.source(), bench.source()
        await queue.submit(0, jobs(1))
        (first,) = take(slow, 1)
        assert list(quick.take(count=1, block_s=0.01)) == []
        bench.let_leases_run_out()
        (second,) = take(quick, 1)
        assert (second.job_id, second.payload, second.deliveries) == (first.job_id, first.payload, 2)
        assert commit(slow, first, b"slow") is True
        assert commit(quick, second, b"quick") is False
        assert await queue.collect(0, [first.job_id], timeout_s=5) == {first.job_id: b"slow"}
        stats = await queue.stats()
        assert (stats.committed, stats.duplicates, stats.reclaimed) == (1, 1, 1)
        assert (stats.waiting, stats.in_hand) == (0, 0)

    bench.run(scenario)


def test_more_jobs_than_one_scan_holds_are_taken_over(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        lost, heir = bench.source(), bench.source()
        await queue.submit(0, jobs(60))
        take(lost, 60)
        bench.let_leases_run_out()
        assert {delivery.job_id for delivery in take(heir, 60)} == set(ids(jobs(60)))

    bench.run(scenario)


def test_a_stale_worker_can_neither_renew_nor_fail_nor_release_what_was_taken_over(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        stale, heir = bench.source(), bench.source()
        await queue.submit(0, jobs(1))
        (old,) = take(stale, 1)
        bench.let_leases_run_out()
        (held,) = take(heir, 1)
        stale.fail(old, "late")
        stale.release([old])
        stale.renew([old])
        stats = await queue.stats()
        assert (stats.waiting, stats.in_hand, stats.dead) == (0, 1, 0)
        heir.release([held])
        assert (await queue.stats()).waiting == 1

    bench.run(scenario)


def test_a_job_without_luck_is_dead_after_three_deliveries(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        source = bench.source()
        await queue.submit(0, jobs(2))
        for attempt in (1, 2, 3):
            for delivery in take(source, 2):
                if delivery.job_id == "u0.s0":
                    assert delivery.deliveries == attempt
                    source.fail(delivery, f"sandbox broke, attempt {attempt}")
                else:
                    source.release([delivery])
        with pytest.raises(DeadJobError, match=r"u0\.s0.*3 deliveries.*sandbox broke, attempt 3") as caught:
            await queue.collect(0, ids(jobs(2)), timeout_s=5)
        assert caught.value.errors == {"u0.s0": "sandbox broke, attempt 3"}
        stats = await queue.stats()
        assert (stats.dead, stats.committed, stats.waiting) == (1, 0, 1)

    bench.run(scenario)


def test_a_job_that_kills_its_workers_is_dead_and_says_so(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        await queue.submit(0, jobs(1))
        source = bench.source()
        (delivery,) = take(source, 1)
        source.fail(delivery, "first trouble")
        for _ in (2, 3):
            (delivery,) = take(bench.source(), 1)
            bench.let_leases_run_out()
        assert list(bench.source().take(count=1, block_s=0.01)) == []
        with pytest.raises(DeadJobError, match=r"lease ran out at delivery 3.*first trouble"):
            await queue.collect(0, [delivery.job_id], timeout_s=5)
        assert commit(source, delivery) is False

    bench.run(scenario)


def test_a_dead_job_wakes_its_collector(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        source = bench.source()
        await queue.submit(0, jobs(1))
        collecting = asyncio.create_task(queue.collect(0, ids(jobs(1)), timeout_s=20))
        for _ in range(3):
            (delivery,) = await asyncio.to_thread(take, source, 1)
            await asyncio.to_thread(source.fail, delivery, "broken")
        started = time.monotonic()
        with pytest.raises(DeadJobError):
            await collecting
        assert time.monotonic() - started < 0.5

    bench.run(scenario)


def test_a_dead_job_submitted_again_gets_all_its_deliveries_again(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        source = bench.source()
        await queue.submit(0, jobs(1))
        for _ in range(3):
            source.fail(take(source, 1)[0], "broken")
        await queue.submit(0, jobs(1))
        (delivery,) = take(source, 1)
        assert delivery.deliveries == 1
        assert commit(source, delivery)
        assert len(await queue.collect(0, [delivery.job_id], timeout_s=5)) == 1

    bench.run(scenario)


def test_a_released_job_is_at_once_another_workers_and_costs_no_delivery(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        leaver, other = bench.source(), bench.source()
        await queue.submit(0, jobs(3))
        leaver.release(take(leaver, 3))
        leaver.close()
        taken = take(other, 3)
        assert {delivery.deliveries for delivery in taken} == {1}
        assert all(commit(other, delivery) for delivery in taken)
        assert (await queue.stats()).reclaimed == 0

    bench.run(scenario)


def test_forgotten_results_are_gone_and_a_late_commit_does_not_bring_them_back(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        source = bench.source()
        await queue.submit(0, jobs(1))
        (delivery,) = take(source, 1)
        commit(source, delivery)
        await queue.forget(0)
        assert commit(source, delivery) is False
        with pytest.raises(TransientError):
            await queue.collect(0, [delivery.job_id], timeout_s=0.02)

    bench.run(scenario)


def test_scores_are_committed_with_the_result_and_the_first_stays(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        source = bench.source()
        await queue.submit(0, jobs(2))
        first, second = take(source, 2)
        assert await queue.known_scores([b"a", b"b"]) == {}
        source.commit(Commit(delivery=first, payload=b"", scores={b"a": b"1", b"\x00\xff": b"2"}))
        source.commit(Commit(delivery=first, payload=b"", scores={b"late": b"9"}))
        source.commit(Commit(delivery=second, payload=b"", scores={b"a": b"1"}))
        assert await queue.known_scores([b"a", b"\x00\xff", b"late", b"b"]) == {b"a": b"1", b"\x00\xff": b"2"}
        assert await queue.known_scores([]) == {}
        await queue.close()
        assert await queue.known_scores([b"a"]) == {b"a": b"1"}

    bench.run(scenario)


def test_a_closed_run_is_withdrawn_and_can_be_opened_again(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        source = bench.source()
        await queue.submit(0, jobs(2))
        (delivery,) = source.take(count=1, block_s=5)
        await queue.close()
        assert list(source.take(count=1, block_s=0.01)) == []
        assert commit(source, delivery) is False
        source.renew([delivery])
        source.fail(delivery, "late")
        source.release([delivery])
        assert list(await queue.workers()) == []
        with pytest.raises(RunLostError, match="not open"):
            await queue.submit(0, jobs(1))
        with pytest.raises(RunLostError, match="not open"):
            await queue.collect(0, ids(jobs(1)), timeout_s=5)
        await queue.open(task_digest="d", task_text="text")
        await queue.submit(0, jobs(1))
        assert take(source, 1)[0].deliveries == 1

    bench.run(scenario)


def test_tasks_reach_workers_by_digest(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        source = bench.source()
        await queue.open(task_digest="abc", task_text="näme = 1\n")
        assert source.task("abc") == "näme = 1\n"
        with pytest.raises(TransientError, match="no task missing"):
            source.task("missing")

    bench.run(scenario)


def test_workers_are_listed_with_what_they_hold(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        assert list(await queue.workers()) == []
        source = bench.source()
        await queue.submit(0, jobs(2))
        taken = take(source, 2)
        (info,) = await queue.workers()
        assert (info.run_id, info.jobs_pending) == (bench.run_id, 2)
        assert 0 <= info.idle_s < 60
        source.close()
        assert len(await queue.workers()) == 1, "a worker with jobs in hand must not be deleted"
        for delivery in taken:
            commit(source, delivery)
        source.close()
        assert list(await queue.workers()) == []

    bench.run(scenario)


def test_run_names_that_could_break_out_of_a_key_are_refused() -> None:
    with pytest.raises(ConfigError, match="run name"):
        MemoryTransport().queue("a}:b")


def test_renewed_leases_are_not_taken_over() -> None:
    memory = MemoryBench(lease_s=10.0)

    async def scenario(queue: JobQueue) -> None:
        holder, other = memory.transport.source(), memory.transport.source()
        await queue.submit(0, jobs(1))
        (delivery,) = take(holder, 1)
        for _ in range(5):
            memory.now += 9
            holder.renew([delivery])
        assert list(other.take(count=1, block_s=0.01)) == []
        memory.now += 10
        assert take(other, 1)[0].deliveries == 2

    memory.run(scenario)


def test_renewed_leases_are_not_taken_over_on_a_server(any_server_url: str) -> None:
    with redis_bench(any_server_url, lease_s=0.4) as bench:

        async def scenario(queue: JobQueue) -> None:
            holder, other = bench.source(), bench.source()
            await queue.submit(0, jobs(1))
            (delivery,) = take(holder, 1)
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                holder.renew([delivery])
                assert list(other.take(count=1, block_s=0.02)) == []
            bench.let_leases_run_out()
            assert take(other, 1)[0].deliveries == 2, "renewing must not count as a delivery"

        bench.run(scenario)


def test_a_worker_may_find_its_only_run_closed_as_it_looks_for_expired_leases(any_server_url: str) -> None:
    with redis_bench(any_server_url, lease_s=0.1) as bench:

        async def scenario(queue: JobQueue) -> None:
            source = bench.source()
            await queue.submit(0, jobs(1))
            take(source, 1)
            bench.let_leases_run_out()
            await queue.close()
            assert list(source.take(count=1, block_s=0.01)) == []

        bench.run(scenario)


def test_many_workers_with_random_faults_give_each_job_one_result(bench: Bench) -> None:
    """Workers give back, abandon and commit twice at random; only deliveries short of the last one are harmed."""
    count = 240
    committed: list[JobId] = []
    stop = threading.Event()

    def work(source: JobSource, luck: random.Random) -> None:
        while not stop.is_set():
            for delivery in source.take(count=3, block_s=0.05):
                fate = luck.random() if delivery.deliveries == 1 else 1.0
                if fate < 0.1:
                    source.fail(delivery, "unlucky")
                elif fate < 0.2:
                    source.release([delivery])
                elif fate < 0.25:
                    continue
                elif commit(source, delivery):
                    committed.append(delivery.job_id)
                    if fate < 0.4:
                        assert commit(source, delivery, b"again") is False

    async def scenario(queue: JobQueue) -> None:
        messages = jobs(count)
        random.Random(7).shuffle(messages)
        failures: list[BaseException] = []

        def guarded(source: JobSource, luck: random.Random) -> None:
            try:
                work(source, luck)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=guarded, args=(bench.source(), random.Random(seed))) for seed in range(4)]
        for thread in threads:
            thread.start()
        try:
            await queue.submit(0, messages[: count // 2])
            await queue.submit(0, messages)
            clock = asyncio.create_task(_expire_leases(bench))
            found = await queue.collect(0, ids(messages), timeout_s=60)
            clock.cancel()
        finally:
            stop.set()
            for thread in threads:
                await asyncio.to_thread(thread.join)
        assert failures == []
        assert found == {message.job_id: b"result of " + message.payload for message in messages}
        assert sorted(committed) == sorted(ids(messages))
        stats = await queue.stats()
        assert (stats.committed, stats.dead, stats.waiting, stats.in_hand) == (count, 0, 0, 0)
        assert stats.reclaimed > 0
        assert stats.duplicates > 0

    bench.run(scenario)


async def _expire_leases(bench: Bench) -> None:
    """Let time pass now and then; on Redis it passes by itself."""
    while True:
        await asyncio.sleep(0.1)
        await asyncio.to_thread(bench.let_leases_run_out)
