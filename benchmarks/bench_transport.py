"""Jobs per second through submit, take, commit and collect, for shards of 32 programs of 60 bytes."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportFigures:
    """One measurement; seconds are wall time from the first submit to the last collect."""

    jobs: int
    workers: int
    jobs_per_update: int
    seconds: float
    jobs_per_second: float
    programs_per_second: float


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
                payload = b"r" * (_SHARD_SIZE * _SCORE_BYTES)
                source.commit(Commit(delivery=delivery, payload=payload, scores=scores))


async def _drive(url: str, *, jobs: int, jobs_per_update: int) -> float:
    client = await connect(url)
    queue = RedisJobQueue(client, f"bench-{os.getpid()}-{time.monotonic_ns()}")
    await queue.open(task_digest="bench", task_text="")
    payload = b"p" * (_SHARD_SIZE * (_PROGRAM_BYTES + 16))
    started = time.monotonic()
    for update in range(jobs // jobs_per_update):
        messages = [JobMessage(JobId(f"u{update}.s{shard}"), payload) for shard in range(jobs_per_update)]
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
            print(json.dumps(asdict(measure(url, jobs=options.jobs, workers=options.workers))))
        finally:
            if server is not None:
                server.stop()


if __name__ == "__main__":
    main()
