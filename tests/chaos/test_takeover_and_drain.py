"""Evaluators that end with jobs in hand: killed, another takes the job within 1.5 leases; asked to, at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis.asyncio
from evaluator_process import EvaluatorProcess, descendants, is_alive, wait_until

from altlas.config.sections import RewardSection
from altlas.core.grading import Grading, make_grading
from altlas.core.program import fingerprints
from altlas.rpc.batches import sources_to_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2
from altlas.transport.keys import GROUP, RunKeys
from altlas.transport.ports import JobId, JobMessage
from altlas.transport.redis_client import connect
from altlas.transport.redis_streams import RedisJobQueue

LEASE_S = 2.0
DRAINED_S = 5.0
TASK = """
name = "double"
description = "Print twice the number."
reference = "print(2 * int(input()))"
limits = {cpu_s = 1.5, wall_s = 3}
cases = [{stdin = "4\\n", expected_stdout = "8"}]
"""
# One that is cut short is run once more, see docs/sandbox.md; one that computes for its whole limit is not.
SLOW = "import time; time.sleep(0.4); print(2 * int(input()))  # %d"
ENDLESS = "while True: pass  # %d"


def job(grading: Grading, number: int, program: str, count: int) -> JobMessage:
    """A shard of so many programs, unlike those of every other shard."""
    sources = [(program % (1000 * number + index)).encode() for index in range(count)]
    message = evaluator_pb2.Job(
        job_id=f"u0.s{number}",
        task_digest=grading.digest,
        sources=sources_to_proto(sources),
        fingerprints=b"".join(fingerprints(grading.digest, "python", sources)),
    )
    return JobMessage(JobId(message.job_id), message.SerializeToString())


@dataclass
class Run:
    """A run's queue on a real Redis, and what only Redis itself tells of it."""

    client: redis.asyncio.Redis
    queue: RedisJobQueue
    grading: Grading
    keys: RunKeys

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, url: str, name: str, *, lease_s: float, max_deliveries: int) -> AsyncIterator[Run]:
        async with await connect(url) as client:
            queue = RedisJobQueue(client, name, lease_s=lease_s, max_deliveries=max_deliveries)
            grading = make_grading(TASK, RewardSection(), where="test")
            await queue.open(task_digest=grading.digest, task_text=grading.text)
            yield cls(client, queue, grading, RunKeys(name))
            await queue.close()

    async def holder(self) -> int | None:
        """The process that has a job in hand, by the queue's list of workers."""
        for worker in await self.queue.workers():
            if worker.jobs_pending:
                return int(worker.name.rsplit(".", 2)[1])
        return None

    async def wait_for_holder(self, *others: int, timeout_s: float = 30.0) -> int:
        """Wait until a process besides `others` has a job in hand."""
        async with asyncio.timeout(timeout_s):
            while (pid := await self.holder()) is None or pid in others:
                await asyncio.sleep(0.01)
        return pid

    async def earlier_deliveries(self) -> list[int]:
        """How often each job that waits or is in hand was delivered, as its entry says, without the present time."""
        entries: list[Any] = await self.client.xrange(self.keys.jobs)
        return [int(fields[b"deliveries"]) for _, fields in entries]

    async def wait_for_deliveries(self, counts: Sequence[int], *, timeout_s: float) -> None:
        """Wait until so many jobs are in hand, each delivered so often as Redis has counted."""
        found: list[int] = []
        deadline = time.monotonic() + timeout_s
        while found != counts:
            assert time.monotonic() < deadline, f"delivered {found} times"
            await asyncio.sleep(0.01)
            pending: list[Any] = await self.client.xpending_range(self.keys.jobs, GROUP, "-", "+", 100)
            found = [int(entry["times_delivered"]) for entry in pending]


def test_a_dead_workers_job_is_with_another_within_one_and_a_half_leases(tmp_path: Path, redis_url: str) -> None:
    luck = random.Random(4)

    async def kill_twice(run: Run, by_pid: Mapping[int, EvaluatorProcess]) -> None:
        dead: list[int] = []
        for _ in range(2):
            holder = await run.wait_for_holder(*dead)
            await asyncio.to_thread(wait_until, lambda: by_pid[holder].sample("slots_busy") == 1)  # noqa: B023
            # Renewals come at thirds of a lease: a kill just before one leaves the job to others sooner.
            await asyncio.sleep(luck.uniform(0, LEASE_S / 3))
            assert await run.holder() == holder, "the job was done before the kill"
            by_pid[holder].process.kill()
            killed_at = time.monotonic()
            dead.append(holder)
            await run.wait_for_holder(*dead)
            assert time.monotonic() - killed_at <= 1.5 * LEASE_S

    async def main(evaluators: Sequence[EvaluatorProcess]) -> None:
        async with Run.opened(redis_url, "takeover", lease_s=LEASE_S, max_deliveries=3) as run:
            message = job(run.grading, 0, SLOW, 8)
            await run.queue.submit(0, [message])
            await kill_twice(run, {evaluator.pid: evaluator for evaluator in evaluators})
            await run.queue.collect(0, [message.job_id], timeout_s=40)
            stats = await run.queue.stats()
        assert (stats.committed, stats.duplicates, stats.reclaimed, stats.dead) == (1, 0, 2, 0)
        assert (stats.waiting, stats.in_hand) == (0, 0)

    with contextlib.ExitStack() as stack:
        evaluators = [
            stack.enter_context(EvaluatorProcess(tmp_path, ("sandbox.slots=1",), name=name, redis_url=redis_url))
            for name in ("e0", "e1", "e2")
        ]
        for evaluator in evaluators:
            evaluator.wait_until_ready()
        asyncio.run(main(evaluators))


def timed_end(evaluator: EvaluatorProcess) -> tuple[int, float]:
    """Send SIGTERM; return the exit status and the seconds until it came."""
    began = time.monotonic()
    code = evaluator.terminate(timeout_s=30)
    return code, time.monotonic() - began


def test_sigterm_commits_what_can_be_done_in_time_and_gives_the_rest_back(tmp_path: Path, redis_url: str) -> None:
    """Two jobs that end soon, and some of programs that run into their limit one after another, for 20 s each."""

    async def drain(run: Run, name: str) -> None:
        with EvaluatorProcess(tmp_path, ("sandbox.slots=4",), name=name, redis_url=redis_url) as evaluator:
            await asyncio.to_thread(evaluator.wait_until_ready)
            # At once, and not after a lease.
            await run.wait_for_deliveries([1] * 4, timeout_s=5)
            family = set(descendants(evaluator.pid))
            code, seconds = await asyncio.to_thread(timed_end, evaluator)
            assert (code, any(is_alive(pid) for pid in family)) == (0, False), evaluator.log_path.read_text()
        assert seconds < DRAINED_S
        assert not any(await run.earlier_deliveries())
        assert await run.queue.workers() == []
        stats = await run.queue.stats()
        # The short ones, but on a machine that has no time even for them.
        assert stats.committed in (1, 2)
        assert (stats.waiting, stats.in_hand) == (6 - stats.committed, 0)
        assert (stats.reclaimed, stats.duplicates, stats.dead) == (0, 0, 0)

    async def main() -> None:
        # A job that counts two deliveries is dead. The lease is longer than the test.
        async with Run.opened(redis_url, "drain", lease_s=100.0, max_deliveries=1) as run:
            short = [job(run.grading, number, SLOW, 1) for number in range(2)]
            long = [job(run.grading, number, ENDLESS, 50) for number in range(2, 6)]
            await run.queue.submit(0, [*short, *long])
            await drain(run, "first")
            await drain(run, "second")

    asyncio.run(main())


@pytest.mark.parametrize("has_queue", [False, True])
def test_sigterm_cuts_calls_that_take_longer_and_their_callers_may_repeat_them(
    tmp_path: Path, redis_url: str, has_queue: bool
) -> None:
    failures: list[grpc.StatusCode] = []

    def call(evaluator: EvaluatorProcess, sources: Sequence[str]) -> None:
        try:
            evaluator.execute(*sources)
        except grpc.RpcError as error:
            failures.append(error.code())  # type: ignore[attr-defined]  # every RpcError of a stub is a Call too

    settings = ("sandbox.slots=1",)
    with EvaluatorProcess(tmp_path, settings, redis_url=redis_url if has_queue else "") as evaluator:
        evaluator.wait_until_ready()
        caller = threading.Thread(target=call, args=(evaluator, [ENDLESS % number for number in range(20)]))
        caller.start()
        wait_until(lambda: evaluator.sample("slots_busy") == 1)
        code, seconds = timed_end(evaluator)
        caller.join()
    assert code == 0, evaluator.log_path.read_text()
    assert seconds < DRAINED_S
    assert failures in ([grpc.StatusCode.UNAVAILABLE], [grpc.StatusCode.CANCELLED])
