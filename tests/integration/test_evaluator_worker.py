"""The evaluator's worker and canary in this process, where a job or the sandbox goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from evaluator_process import wait_until

from altlas.config.sections import RewardSection, SandboxSection
from altlas.core.grading import Grading, make_grading
from altlas.core.program import Limits, Program, fingerprints
from altlas.rpc.batches import scores_from_proto, sources_to_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2
from altlas.transport.memory import MemoryJobQueue, MemoryTransport
from altlas.transport.ports import DeadJobError, JobId, JobMessage
from altlas_evaluator.canary import Canary
from altlas_evaluator.engine import Executor
from altlas_evaluator.sandbox import supervisor
from altlas_evaluator.worker import Worker

TASK = """
name = "double"
description = "Print twice the number."
reference = "print(2 * int(input()))"
limits = {cpu_s = LIMIT, wall_s = 4}
cases = [{stdin = "1\\n", expected_stdout = "2"}]
"""
RIGHT = b"print(2 * int(input()))"


def grading_with(cpu_s: float) -> Grading:
    return make_grading(TASK.replace("LIMIT", str(cpu_s)), RewardSection(), where="test")


def job(grading: Grading, number: int, sources: Sequence[bytes]) -> JobMessage:
    message = evaluator_pb2.Job(
        job_id=f"u0.s{number}",
        task_digest=grading.digest,
        sources=sources_to_proto(sources),
        fingerprints=b"".join(fingerprints(grading.digest, "python", sources)),
    )
    return JobMessage(JobId(message.job_id), message.SerializeToString())


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(SandboxSection(slots=1, cpu_s=2.0, wall_s=4.0, source_bytes=1000)) as running:
        yield running


@contextlib.contextmanager
def working(transport: MemoryTransport, executor: Executor) -> Iterator[tuple[Worker, threading.Thread]]:
    worker = Worker(transport.source(), executor, name="test")
    thread = threading.Thread(target=worker.run)
    thread.start()
    yield worker, thread
    worker.stop()
    thread.join()


def submit(queue: MemoryJobQueue, grading: Grading, messages: Sequence[JobMessage]) -> None:
    async def main() -> None:
        await queue.open(task_digest=grading.digest, task_text=grading.text)
        await queue.submit(0, messages)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("cpu_s", "source", "reason"),
    [
        (99.0, RIGHT, "ConfigError: .*cpu_s = 99.0 is above the ceiling"),
        (1.0, b"#" * 1001, "ConfigError: .*sandbox.source_bytes"),
    ],
)
def test_a_job_that_this_evaluator_may_not_run_is_given_back_and_others_are_done(
    executor: Executor, cpu_s: float, source: bytes, reason: str
) -> None:
    transport = MemoryTransport(max_deliveries=2)
    bad, good = grading_with(cpu_s), grading_with(0.5)
    with working(transport, executor):
        submit(transport.queue("bad"), bad, [message := job(bad, 0, [source])])
        with pytest.raises(DeadJobError, match=reason):
            asyncio.run(transport.queue("bad").collect(0, [message.job_id], timeout_s=20))
        submit(transport.queue("good"), good, [message := job(good, 0, [RIGHT])])
        found = asyncio.run(transport.queue("good").collect(0, [message.job_id], timeout_s=20))
    scores = scores_from_proto(evaluator_pb2.JobResult.FromString(found[message.job_id]).scores)
    assert scores.solved.tolist() == [True]


def test_a_job_given_back_ends_at_once_and_is_not_counted_as_delivered(executor: Executor) -> None:
    transport = MemoryTransport(max_deliveries=1)
    grading = grading_with(2.0)
    queue = transport.queue("run")
    with working(transport, executor) as (worker, thread):
        submit(queue, grading, [job(grading, 0, [b"while True: pass # %d" % number for number in range(50)])])
        wait_until(lambda: executor.counters().busy == 1)
        worker.stop()
        worker.give_back()
        thread.join(timeout=10)
        assert not thread.is_alive()
    stats = asyncio.run(queue.stats())
    assert (stats.waiting, stats.in_hand, stats.dead) == (1, 0, 0)
    assert executor.run([Program(source=b"print(1)")], Limits())[0].stdout == b"1\n"


@contextlib.contextmanager
def watched(executor: Executor, *, silence_s: float = 60.0) -> Iterator[tuple[Canary, list[bool]]]:
    changes: list[bool] = []
    canary = Canary(executor, every_s=0.02, silence_s=silence_s)
    canary.on_change = changes.append
    canary.start()
    try:
        yield canary, changes
    finally:
        canary.stop()


def becomes(canary: Canary, *, is_ready: bool) -> Callable[[], bool]:
    return lambda: (not canary.not_ready()) is is_ready


def test_a_stopped_launcher_is_told_and_so_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "GRACE_S", 0.1)
    monkeypatch.setattr(supervisor, "ATTEMPTS", 1)
    with Executor(SandboxSection(slots=1, cpu_s=0.5, wall_s=0.5)) as executor:
        canary = Canary(executor)
        assert canary.not_ready() == "the canary has not come back yet"
        with watched(executor) as (canary, changes):
            wait_until(becomes(canary, is_ready=True))
            (pid,) = executor.launcher_pids()
            os.killpg(pid, signal.SIGSTOP)
            wait_until(lambda: changes == [True, False, True])
    assert changes == [True, False, True]


def test_silence_is_told_while_it_lasts(executor: Executor) -> None:
    with watched(executor, silence_s=0.3) as (canary, changes):
        wait_until(becomes(canary, is_ready=True))
        submission = executor.submit(Program(source=b"import time\ntime.sleep(1.5)"), Limits(wall_s=3))
        wait_until(becomes(canary, is_ready=False))
        assert "neither the canary nor any other program came back" in canary.not_ready()
        submission.result()
        wait_until(becomes(canary, is_ready=True))
    assert changes == [True, False, True]


def test_a_full_queue_is_not_silence() -> None:
    """The canary finds no room for long, while programs come back: busy, not dead."""
    with (
        Executor(SandboxSection(slots=1, queue_programs=2)) as executor,
        watched(executor, silence_s=0.5) as (canary, changes),
    ):
        wait_until(becomes(canary, is_ready=True))
        executor.run([Program(source=b"import time\ntime.sleep(0.05)")] * 30, Limits())
        assert not canary.not_ready()
        assert changes == [True]


def test_stopping_does_not_wait_for_a_canary_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    with Executor(SandboxSection(slots=1, cpu_s=2, wall_s=30)) as executor, watched(executor) as (canary, _):
        wait_until(becomes(canary, is_ready=True))
        (pid,) = executor.launcher_pids()
        os.killpg(pid, signal.SIGSTOP)
        wait_until(lambda: executor.counters().busy == 1)
        started = time.monotonic()
        canary.stop()
        assert time.monotonic() - started < 5
