"""The queue's costs for shards of 32 programs of 60 bytes: jobs per second through all of it, and what one shard takes.

`python -m benchmarks.bench_transport`: add_ms, read_ms and commit_ms are medians of one shard at a time, on one
connection each, with nothing else to do; sum_ms is the median of their sums.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from altlas.transport.embedded import EmbeddedRedis
from altlas.transport.ports import Commit, JobId, JobMessage
from altlas.transport.redis_client import connect, connect_blocking
from altlas.transport.redis_streams import RedisJobQueue, RedisJobSource

_SHARD_SIZE = 32
_PROGRAM_BYTES = 60
_SCORE_BYTES = 80
_JOB_PAYLOAD = b"p" * (_SHARD_SIZE * (_PROGRAM_BYTES + 16))
_RESULT_PAYLOAD = b"r" * (_SHARD_SIZE * _SCORE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportFigures:
    """One measurement; seconds are wall time from the first submit to the last collect."""

    jobs: int
    workers: int
    jobs_per_update: int
    seconds: float
    jobs_per_second: float
    programs_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFigures:
    """Median milliseconds of one shard; their sum's median is not the sum of the medians."""

    add_ms: float
    read_ms: float
    commit_ms: float
    sum_ms: float


def measure_shard(url: str, *, shards: int = 500) -> ShardFigures:
    """Time adding, reading and committing a shard apart from each other, `shards` times."""
    rows = asyncio.run(_time_shards(url, shards))
    add, read, commit = (statistics.median(column) * 1000 for column in zip(*rows, strict=True))
    return ShardFigures(
        add_ms=add, read_ms=read, commit_ms=commit, sum_ms=statistics.median(sum(row) for row in rows) * 1000
    )


async def _time_shards(url: str, shards: int) -> list[tuple[float, float, float]]:
    """Return seconds of adding, reading and committing each shard."""
    rows = []
    with connect_blocking(url) as worker_client:
        async with await connect(url) as client:
            source = RedisJobSource(worker_client)
            queue = RedisJobQueue(client, f"bench-shard-{os.getpid()}-{time.monotonic_ns()}")
            await queue.open(task_digest="bench", task_text="")
            source.take(count=1, block_s=0.01)
            for number in range(shards):
                message = JobMessage(JobId(f"u0.s{number}"), _JOB_PAYLOAD)
                scores = {os.urandom(16): b"s" * _SCORE_BYTES for _ in range(_SHARD_SIZE)}
                began = time.perf_counter()
                await queue.submit(0, [message])
                added = time.perf_counter()
                (delivery,) = source.take(count=1, block_s=5.0)
                read = time.perf_counter()
                source.commit(Commit(delivery=delivery, payload=_RESULT_PAYLOAD, scores=scores))
                rows.append((added - began, read - added, time.perf_counter() - read))
            await queue.close()
    return rows


def measure(url: str, *, jobs: int = 2000, workers: int = 1, jobs_per_update: int = 8) -> TransportFigures:
    """Send `jobs` shards through Redis, `jobs_per_update` at a time as the loop does, with do-nothing workers."""
    stop = threading.Event()
    threads = [threading.Thread(target=_work, args=(url, stop)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        seconds = asyncio.run(_drive(url, jobs=jobs, jobs_per_update=jobs_per_update))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return TransportFigures(
        jobs=jobs,
        workers=workers,
        jobs_per_update=jobs_per_update,
        seconds=seconds,
        jobs_per_second=jobs / seconds,
        programs_per_second=jobs * _SHARD_SIZE / seconds,
    )


def _work(url: str, stop: threading.Event) -> None:
    with connect_blocking(url) as client:
        source = RedisJobSource(client)
        while not stop.is_set():
            for delivery in source.take(count=1, block_s=0.2):
                scores = {os.urandom(16): b"s" * _SCORE_BYTES for _ in range(_SHARD_SIZE)}
                source.commit(Commit(delivery=delivery, payload=_RESULT_PAYLOAD, scores=scores))


async def _drive(url: str, *, jobs: int, jobs_per_update: int) -> float:
    client = await connect(url)
    queue = RedisJobQueue(client, f"bench-{os.getpid()}-{time.monotonic_ns()}")
    await queue.open(task_digest="bench", task_text="")
    started = time.monotonic()
    for update in range(jobs // jobs_per_update):
        messages = [JobMessage(JobId(f"u{update}.s{shard}"), _JOB_PAYLOAD) for shard in range(jobs_per_update)]
        await queue.known_scores([os.urandom(16) for _ in range(_SHARD_SIZE * jobs_per_update)])
        await queue.submit(update, messages)
        await queue.collect(update, [message.job_id for message in messages], timeout_s=60)
        await queue.forget(update)
    seconds = time.monotonic() - started
    await queue.close()
    await client.aclose()
    return seconds


def main() -> None:
    """Measure against an embedded server, or the one that is named, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis-url", default="")
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="altlas-bench-") as data_dir:
        server = None if options.redis_url else EmbeddedRedis(Path(data_dir))
        try:
            if server is not None:
                server.start()
            url = options.redis_url if server is None else server.url
            figures = asdict(measure(url, jobs=options.jobs, workers=options.workers))
            print(json.dumps(figures | asdict(measure_shard(url))))
        finally:
            if server is not None:
                server.stop()


if __name__ == "__main__":
    main()
