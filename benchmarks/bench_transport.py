"""The queue's costs: jobs per second through all of it, what one shard takes, and how much of a run's time that is.

`python -m benchmarks.bench_transport`: add_ms, read_ms and commit_ms are medians of one shard at a time, on one
connection each, with nothing else to do; sum_ms is the median of their sums. The shards are as large as a run's: so
many programs, so many bytes of each on the way there and back.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A job's size. Bytes are of one program: in the job, in the result, and in the score store where there is one."""

    language: str
    programs: int
    job_bytes: int
    result_bytes: int
    stored_bytes: int = 0

    @property
    def job(self) -> bytes:
        return b"p" * (self.programs * self.job_bytes)

    @property
    def result(self) -> bytes:
        return b"r" * (self.programs * self.result_bytes)

    def scores(self) -> dict[bytes, bytes]:
        """Return new entries of the score store."""
        return {os.urandom(16): b"s" * self.stored_bytes for _ in range(self.programs if self.stored_bytes else 0)}


# Full jobs of the default size, with the bytes that stdin/max_input (5 cases) and brainf/dedup (16) put into them.
PYTHON = Shard(language="python", programs=32, job_bytes=67, result_bytes=92, stored_bytes=165)
BRAINF = Shard(language="brainf", programs=1024, job_bytes=45, result_bytes=153)


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


def measure_shard(url: str, shard: Shard, *, shards: int = 500) -> ShardFigures:
    """Time adding, reading and committing a shard apart from each other, `shards` times."""
    rows = asyncio.run(_time_shards(url, shard, shards))
    add, read, commit = (statistics.median(column) * 1000 for column in zip(*rows, strict=True))
    return ShardFigures(
        add_ms=add, read_ms=read, commit_ms=commit, sum_ms=statistics.median(sum(row) for row in rows) * 1000
    )


async def _time_shards(url: str, shard: Shard, shards: int) -> list[tuple[float, float, float]]:
    """Return seconds of adding, reading and committing each shard."""
    rows = []
    with connect_blocking(url) as worker_client:
        async with await connect(url) as client:
            source = RedisJobSource(worker_client)
            queue = RedisJobQueue(client, f"bench-shard-{os.getpid()}-{time.monotonic_ns()}")
            await queue.open(task_digest="bench", task_text="")
            source.take(count=1, block_s=0.01)
            for number in range(shards):
                message = JobMessage(JobId(f"u0.s{number}"), shard.job)
                result, scores = shard.result, shard.scores()
                began = time.perf_counter()
                await queue.submit(0, [message])
                added = time.perf_counter()
                (delivery,) = source.take(count=1, block_s=5.0)
                read = time.perf_counter()
                source.commit(Commit(delivery=delivery, payload=result, scores=scores))
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
        programs_per_second=jobs * PYTHON.programs / seconds,
    )


def _work(url: str, stop: threading.Event) -> None:
    with connect_blocking(url) as client:
        source = RedisJobSource(client)
        while not stop.is_set():
            for delivery in source.take(count=1, block_s=0.2):
                source.commit(Commit(delivery=delivery, payload=PYTHON.result, scores=PYTHON.scores()))


async def _drive(url: str, *, jobs: int, jobs_per_update: int) -> float:
    client = await connect(url)
    queue = RedisJobQueue(client, f"bench-{os.getpid()}-{time.monotonic_ns()}")
    await queue.open(task_digest="bench", task_text="")
    started = time.monotonic()
    for update in range(jobs // jobs_per_update):
        messages = [JobMessage(JobId(f"u{update}.s{shard}"), PYTHON.job) for shard in range(jobs_per_update)]
        await queue.known_scores([os.urandom(16) for _ in range(PYTHON.programs * jobs_per_update)])
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
            parts = {shard.language: asdict(measure_shard(url, shard)) for shard in (PYTHON, BRAINF)}
            print(json.dumps(figures | {"shard": parts}))
        finally:
            if server is not None:
                server.stop()


if __name__ == "__main__":
    main()
