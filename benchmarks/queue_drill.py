"""A kill drill of work queues: `python -m benchmarks.queue_drill --jobs 3000 --kills 40 --repeats 3`.

Worker processes work off jobs of some milliseconds; one of them at a time is killed with SIGKILL and replaced. What is
counted in the end: jobs without a result (lost) and results beyond a job's first (doubled). The disciplines are those
of `queue_disciplines`. Exits with 1 when ours, lua_commit, loses or doubles anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from altlas.transport.embedded import EmbeddedRedis
from altlas.transport.redis_client import connect
from benchmarks.queue_disciplines import DISCIPLINES, Discipline, compute, work

WORKERS = 3
_POLL_S = 0.005
# Without a result for this long, with every worker up, no more will come: leases last half a second.
_QUIET_S = 3.0
_STUCK_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What one drill counted. `taken_over`: jobs that passed from a dead worker to another."""

    discipline: str
    jobs: int
    kills: int
    lost: int
    doubled: int
    taken_over: int
    seconds: float


# A server that has imported everything forks the workers: starting anew would take longer than a worker lives.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["benchmarks.queue_disciplines"])


class Workers:
    """So many worker processes; a killed one is replaced at once."""

    def __init__(self, discipline: str, url: str, name: str) -> None:
        self._arguments = (discipline, url, name)
        self._workers = [self._start() for _ in range(WORKERS)]

    def _start(self) -> tuple[BaseProcess, Connection]:
        ready, ready_in_worker = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=work, args=(*self._arguments, ready_in_worker), daemon=True)
        process.start()
        ready_in_worker.close()
        return process, ready

    def ready(self) -> list[int]:
        """Return the places of those that have begun to work."""
        return [place for place, (_, ready) in enumerate(self._workers) if ready.poll()]

    def replace(self, place: int) -> None:
        """Kill one and start another in its place."""
        _end(*self._workers[place])
        self._workers[place] = self._start()

    def end(self) -> None:
        """Kill all."""
        for process, ready in self._workers:
            _end(process, ready)


def _end(process: BaseProcess, ready: Connection) -> None:
    process.kill()
    process.join()
    process.close()
    ready.close()


async def drill(url: str, discipline: str, *, jobs: int, kills: int, seed: int) -> Drill:
    """Run one drill.

    Raises:
        TimeoutError: nothing got on for two minutes.
    """
    began = time.monotonic()
    luck = random.Random(seed)
    name = f"drill-{discipline}-{os.getpid()}-{seed}"
    payloads = [b"job-%d" % number for number in range(jobs)]
    async with await connect(url) as client:
        queue = DISCIPLINES[discipline](client, name)
        await queue.put_up(payloads)
        workers = Workers(discipline, url, name)
        try:
            for _ in range(kills):
                # A quarter of the jobs is left for what is lost and for the end.
                await _until_finished(queue, await queue.finished() + max(1, 3 * jobs // (4 * (kills + 1))))
                workers.replace(luck.choice(await _some_ready(workers, 1)))
                await queue.put_up_again(payloads)
            await _some_ready(workers, WORKERS)
            await _until_quiet(queue, jobs)
        finally:
            workers.end()
        counted = await queue.count()
        await queue.drop()
    right = sum(result == compute(payload) for payload, result in counted.results)
    return Drill(
        discipline=discipline,
        jobs=jobs,
        kills=kills,
        lost=jobs - right,
        doubled=counted.accepted - len(counted.results),
        taken_over=counted.taken_over,
        seconds=time.monotonic() - began,
    )


async def _some_ready(workers: Workers, least: int) -> list[int]:
    async with asyncio.timeout(_STUCK_S):
        while len(ready := workers.ready()) < least:
            await asyncio.sleep(_POLL_S)
        return ready


async def _until_finished(queue: Discipline, count: int) -> None:
    async with asyncio.timeout(_STUCK_S):
        while await queue.finished() < count:
            await asyncio.sleep(_POLL_S)


async def _until_quiet(queue: Discipline, jobs: int) -> None:
    finished, quiet_at = await queue.finished(), time.monotonic() + _QUIET_S
    while finished < jobs and time.monotonic() < quiet_at:
        await asyncio.sleep(_POLL_S)
        if (now := await queue.finished()) > finished:
            finished, quiet_at = now, time.monotonic() + _QUIET_S


@contextlib.contextmanager
def _server(url: str) -> Iterator[str]:
    """Give the address that is named, or a server of our own."""
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="altlas-drill-") as directory, EmbeddedRedis(Path(directory)) as server:
        yield server.url


def main() -> None:
    """Run the drills and print what each counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--discipline", choices=DISCIPLINES, action="append", help="may be repeated; all where none")
    parser.add_argument("--redis-url", default="", help="a server of its own where none")
    parser.add_argument("--json", action="store_true", help="print one JSON object a drill")
    options = parser.parse_args()
    failed = False
    with _server(options.redis_url) as url:
        for discipline in options.discipline or DISCIPLINES:
            for seed in range(options.repeats):
                done = asyncio.run(drill(url, discipline, jobs=options.jobs, kills=options.kills, seed=seed))
                failed |= discipline == "lua_commit" and bool(done.lost or done.doubled)
                print(json.dumps(asdict(done)) if options.json else _line(done), flush=True)
    sys.exit(failed)


def _line(done: Drill) -> str:
    return (
        f"{done.discipline:<15} {done.jobs:,} jobs, {done.kills} kills: lost {done.lost}, doubled {done.doubled} "
        f"(taken over {done.taken_over}), {done.seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
