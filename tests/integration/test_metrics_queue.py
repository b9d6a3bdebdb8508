"""What a scrape of the coordinator says of the queue, Redis or its twin: redelivery, restarts and an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from queue_bench import Bench, MemoryBench, commit, jobs, redis_bench, take

from altlas.config.sections import Config
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas.transport.embedded import EmbeddedRedis
from altlas.transport.ports import JobQueue
from altlas.transport.redis_client import connect
from altlas.transport.redis_streams import RedisJobQueue
from altlas_coordinator.runs import ActiveRun
from altlas_coordinator.scrape import RunsCollector

COUNTS = ("issued", "committed", "duplicate", "reclaimed", "dead")


@pytest.fixture(params=["memory", "redis"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = (
        nullcontext(MemoryBench())
        if request.param == "memory"
        else redis_bench(request.getfixturevalue("redis_url"), window_jobs=10_000)
    )
    with made as bench:
        yield bench


def active_run(queue: JobQueue, *, name: str = "run", has_ended: bool = False) -> ActiveRun:
    state = coordinator_pb2.RUN_STATE_FINISHED if has_ended else coordinator_pb2.RUN_STATE_RUNNING
    return ActiveRun(spec=common_pb2.RunSpec(run_id=name), config=Config(), gradings=[], queue=queue, state=state)


async def scrape(collector: RunsCollector) -> dict[str, float]:
    """Every sample without labels, by its name; asked as the metrics' server asks, from a thread of its own."""
    registry = CollectorRegistry()
    registry.register(collector)
    families = await asyncio.to_thread(lambda: list(registry.collect()))
    return {sample.name: sample.value for family in families for sample in family.samples}


def counts(samples: dict[str, float]) -> tuple[float, ...]:
    return tuple(samples[f"altlas_coordinator_jobs_{name}_total"] for name in COUNTS)


def test_a_job_is_counted_once_whatever_becomes_of_it_and_whoever_asks(bench: Bench) -> None:
    async def scenario(queue: JobQueue) -> None:
        collector = RunsCollector({"run": active_run(queue)}, asyncio.get_running_loop())
        lost, heir = bench.source(), bench.source()
        await queue.submit(0, jobs(3))
        await queue.submit(0, jobs(3))
        (first,) = take(lost, 1)
        samples = await scrape(collector)
        assert counts(samples) == (3, 0, 0, 0, 0)
        assert (samples["altlas_queue_depth_jobs"], samples["altlas_queue_pending_jobs"]) == (2, 1)
        bench.let_leases_run_out()
        age_s = (await scrape(collector))["altlas_queue_oldest_job_seconds"]
        assert age_s >= bench.lease_s, "the lease ran out since"
        taken = {delivery.job_id: delivery for delivery in take(heir, 3)}
        assert commit(heir, taken.pop(first.job_id))
        assert not commit(lost, first)
        await queue.submit(0, jobs(3))
        done, unlucky = taken.values()
        assert commit(heir, done)
        heir.fail(unlucky, "first")
        for attempt in ("second", "third"):
            heir.fail(*take(heir, 1), attempt)
        expected = (3, 2, 1, 1, 1)
        samples = await scrape(collector)
        assert counts(samples) == expected
        assert (samples["altlas_queue_depth_jobs"], samples["altlas_queue_oldest_job_seconds"]) == (0, 0)
        restarted = RunsCollector({"run": active_run(bench.another_queue())}, asyncio.get_running_loop())
        assert counts(await scrape(restarted)) == expected
        await queue.submit(0, jobs(3))
        assert counts(await scrape(restarted)) == (4, *expected[1:]), "the dead job was put up again"
        await queue.close()
        over = {"run": active_run(queue, has_ended=True)}
        samples = await scrape(RunsCollector(over, asyncio.get_running_loop()))
        assert counts(samples) == (4, *expected[1:]), "a run's end takes nothing away"
        assert (samples["altlas_coordinator_runs_active"], samples["altlas_queue_depth_jobs"]) == (0, 0)

    bench.run(scenario)


def test_without_redis_what_is_not_known_is_left_out_and_what_was_counted_stays(tmp_path: Path) -> None:
    async def scenario(server: EmbeddedRedis) -> None:
        client = await connect(server.url)
        queue = RedisJobQueue(client, "run")
        await queue.open(task_digest="d", task_text="text")
        await queue.submit(0, jobs(2))
        loop = asyncio.get_running_loop()
        known, unknown = (RunsCollector({"run": active_run(queue)}, loop) for _ in range(2))
        assert (await scrape(known))["altlas_queue_depth_jobs"] == 2
        server.stop()
        after_known, after_unknown = await asyncio.gather(scrape(known), scrape(unknown))
        assert counts(after_known) == (2, 0, 0, 0, 0)
        for samples in (after_known, after_unknown):
            assert not [name for name in samples if name.startswith("altlas_queue_")]
            assert samples["altlas_coordinator_runs_active"] == 1
        assert not [name for name in after_unknown if "_jobs_" in name]
        await client.aclose()

    with EmbeddedRedis(tmp_path) as server:
        asyncio.run(scenario(server))
