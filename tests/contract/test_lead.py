"""One coordinator per run: who leads, for how long, and what a queue that does not lead any more is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from queue_bench import Bench, commit, ids, jobs, take

from altlas.errors import FencedError
from altlas.transport.ports import JobQueue, LeaseHeldError, RunLostError


def test_who_leads_keeps_others_out_and_its_fence_grows(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        first, other = bench.another_queue(), bench.another_queue()
        fence = await first.lead(owner="here:1")
        with pytest.raises(LeaseHeldError, match=rf"run {bench.run_id} is led by here:1, whose lease lasts") as caught:
            await other.lead(owner="there:1")
        assert caught.value.holder == "here:1"
        assert 0 < caught.value.remaining_s <= bench.lease_s
        await first.yield_lead()
        assert await other.lead(owner="there:1") > fence

    bench.run(scenario)


def test_a_restarted_coordinator_takes_its_own_lease_over_at_once(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        before, after = bench.another_queue(), bench.another_queue()
        earlier = await before.lead(owner="here:1")
        fence = await after.lead(owner="here:1")
        assert fence > earlier
        with pytest.raises(FencedError, match=rf"fence {fence}, of here:1; fence {earlier} changes nothing"):
            await before.keep_lead()
        # Nor may it take the lease from its successor.
        await before.yield_lead()
        await after.keep_lead()
        with pytest.raises(LeaseHeldError):
            await before.lead(owner="there:1")

    bench.run(scenario)


def test_a_fence_is_larger_than_one_known_from_elsewhere(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        queue = bench.another_queue()
        # As of a checkpoint that was written when the server's clock stood later.
        known = await queue.lead(owner="here:1") + 3_600_000_000
        assert await queue.lead(owner="here:1", above=known) == known + 1
        await queue.keep_lead()
        assert await queue.lead(owner="here:1") == known + 2

    bench.run(scenario)


def test_a_lease_that_ran_out_is_another_coordinators(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        slow, quick = bench.another_queue(), bench.another_queue()
        await slow.lead(owner="slow:1")
        bench.let_leases_run_out()
        fence = await quick.lead(owner="quick:1")
        with pytest.raises(FencedError, match=rf"fence {fence}, of quick:1"):
            await slow.keep_lead()

    bench.run(scenario)


def test_a_lease_that_ran_out_is_renewed_while_no_one_else_leads(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        queue, other = bench.another_queue(), bench.another_queue()
        await queue.lead(owner="here:1")
        bench.let_leases_run_out()
        await queue.keep_lead()
        with pytest.raises(LeaseHeldError):
            await other.lead(owner="there:1")

    bench.run(scenario)


STALE_ACTS: dict[str, Callable[[JobQueue], Awaitable[None]]] = {
    "open": lambda queue: queue.open(task_digest="other", task_text="other"),
    "submit": lambda queue: queue.submit(0, jobs(9)),
    "forget": lambda queue: queue.forget(0),
    "close": lambda queue: queue.close(),
    "keep_lead": lambda queue: queue.keep_lead(),
}


@pytest.mark.parametrize("act", STALE_ACTS)
def test_a_stale_leader_is_refused_and_harms_nothing(bench: Bench, act: str) -> None:
    async def scenario(_: JobQueue) -> None:
        stale, leader, source = bench.another_queue(), bench.another_queue(), bench.source()
        await stale.lead(owner="here:1")
        await stale.open(task_digest="d", task_text="text")
        fence = await leader.lead(owner="here:1")
        await leader.submit(0, jobs(3))
        first, _second = take(source, 2)
        assert commit(source, first)
        before = await leader.stats()
        with pytest.raises(FencedError, match=rf"run {bench.run_id} is led by fence {fence}"):
            await STALE_ACTS[act](stale)
        assert await leader.stats() == before
        for delivery in [_second, *take(source, 1)]:
            assert commit(source, delivery)
        assert len(await leader.collect(0, ids(jobs(3)), timeout_s=5)) == 3
        await leader.keep_lead()

    bench.run(scenario)


def test_a_leader_works_as_a_queue_without_a_fence_does(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        queue, source = bench.another_queue(), bench.source()
        await queue.lead(owner="here:1")
        await queue.open(task_digest="d", task_text="text")
        await queue.submit(0, jobs(2))
        for delivery in take(source, 2):
            commit(source, delivery)
        assert len(await queue.collect(0, ids(jobs(2)), timeout_s=5)) == 2
        await queue.forget(0)
        await queue.close()

    bench.run(scenario)


def test_closing_gives_the_lease_up_and_keeps_the_fence(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        queue, other = bench.another_queue(), bench.another_queue()
        fence = await queue.lead(owner="here:1")
        await queue.close()
        assert await other.lead(owner="there:1") > fence
        with pytest.raises(FencedError):
            await queue.open(task_digest="d", task_text="text")

    bench.run(scenario)


def test_a_queue_that_does_not_lead_leaves_the_lease_alone(bench: Bench) -> None:
    async def scenario(plain: JobQueue) -> None:
        leader = bench.another_queue()
        await leader.lead(owner="here:1")
        await plain.yield_lead()
        await plain.close()
        with pytest.raises(LeaseHeldError):
            await plain.lead(owner="there:1")
        with pytest.raises(FencedError, match="does not lead it: call lead first"):
            await plain.keep_lead()
        await leader.yield_lead()
        with pytest.raises(FencedError, match="does not lead it: call lead first"):
            await leader.keep_lead()

    bench.run(scenario)


def test_lost_data_are_put_back_by_keep_lead_and_the_next_fence_is_larger(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        queue, other = bench.another_queue(), bench.another_queue()
        fence = await queue.lead(owner="here:1")
        bench.lose_everything()
        await queue.keep_lead()
        with pytest.raises(LeaseHeldError, match="here:1"):
            await other.lead(owner="there:1")
        bench.let_leases_run_out()
        assert await other.lead(owner="there:1") > fence
        with pytest.raises(FencedError):
            await queue.keep_lead()

    bench.run(scenario)


def test_lost_data_are_put_back_by_open(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        queue, other, source = bench.another_queue(), bench.another_queue(), bench.source()
        await queue.lead(owner="here:1")
        await queue.open(task_digest="d", task_text="text")
        await queue.submit(0, jobs(1))
        bench.lose_everything()
        with pytest.raises(RunLostError):
            await queue.submit(0, jobs(1))
        await queue.open(task_digest="d", task_text="text")
        with pytest.raises(LeaseHeldError, match="here:1"):
            await other.lead(owner="there:1")
        await queue.submit(0, jobs(1))
        assert commit(source, take(source, 1)[0])

    bench.run(scenario)


def test_a_fence_grows_even_when_no_one_put_the_lost_one_back(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        queue, other = bench.another_queue(), bench.another_queue()
        fence = await queue.lead(owner="here:1")
        bench.lose_everything()
        later = await other.lead(owner="there:1")
        assert later > fence
        with pytest.raises(FencedError, match=rf"fence {later}, of there:1"):
            await queue.keep_lead()

    bench.run(scenario)


def test_a_worker_commits_whoever_leads_by_then(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        before, after, source = bench.another_queue(), bench.another_queue(), bench.source()
        await before.lead(owner="here:1")
        await before.submit(0, jobs(1))
        (delivery,) = take(source, 1)
        await after.lead(owner="here:1")
        assert commit(source, delivery)
        await after.submit(0, jobs(1))
        assert await after.collect(0, ids(jobs(1)), timeout_s=5) == {"u0.s0": b"result of payload 0"}

    bench.run(scenario)
