"""Workers are killed with SIGKILL in the middle of jobs: no result is lost and none is counted twice."""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
import sys

from altlas.transport.ports import JobId, JobMessage
from altlas.transport.redis_client import connect
from altlas.transport.redis_streams import RedisJobQueue

JOBS = 600
KILLS = 12
WORKERS = 3

# Some milliseconds of arithmetic per job, so that most kills hit a job in hand.
WORKER = """
import hashlib, sys
from altlas.transport.ports import Commit
from altlas.transport.redis_client import connect_blocking
from altlas.transport.redis_streams import RedisJobSource
source = RedisJobSource(connect_blocking(sys.argv[1]))
print("ready", flush=True)
while True:
    for delivery in source.take(count=2, block_s=1.0):
        hashlib.pbkdf2_hmac("sha256", delivery.payload, b"", 5000)
        result = hashlib.sha256(delivery.payload).digest()
        source.commit(Commit(delivery=delivery, payload=result, scores={delivery.payload: result}))
"""


def start(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WORKER, url], stdout=subprocess.PIPE, text=True)


def end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait()
    assert worker.stdout is not None
    worker.stdout.close()


async def wait_for_commits(queue: RedisJobQueue, count: int) -> None:
    async with asyncio.timeout(60):
        while (await queue.stats()).committed < count:
            await asyncio.sleep(0.005)


def test_killed_workers_lose_nothing_and_double_nothing(redis_url: str) -> None:
    luck = random.Random(11)
    payloads = [f"job {number}".encode() for number in range(JOBS)]
    messages = [JobMessage(JobId(f"u0.s{number}"), payload) for number, payload in enumerate(payloads)]
    workers = [start(redis_url) for _ in range(WORKERS)]

    async def main() -> None:
        async with await connect(redis_url) as client:
            queue = RedisJobQueue(client, "chaos", lease_s=0.5, max_deliveries=10)
            await queue.open(task_digest="d", task_text="t")
            await queue.submit(0, messages)
            for kill in range(KILLS):
                await wait_for_commits(queue, (kill + 1) * JOBS // (KILLS + 1))
                victim = luck.randrange(WORKERS)
                end(workers[victim])
                workers[victim] = start(redis_url)
                # A coordinator that was restarted puts everything up again.
                await queue.submit(0, messages)
            found = await queue.collect(0, [message.job_id for message in messages], timeout_s=60)
            stats = await queue.stats()
            scores = await queue.known_scores(payloads)
            await queue.close()
        results = [hashlib.sha256(payload).digest() for payload in payloads]
        assert [found[message.job_id] for message in messages] == results
        assert [scores[payload] for payload in payloads] == results
        assert (stats.committed, stats.waiting, stats.in_hand, stats.dead) == (JOBS, 0, 0, 0)
        assert stats.reclaimed > 0, "no kill hit a job in hand: the drill drilled nothing"

    try:
        asyncio.run(main())
    finally:
        for worker in workers:
            end(worker)
