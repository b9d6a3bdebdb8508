"""An evaluator as a process: what it tells about itself, and what is left when it, or a part of it, is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from evaluator_process import EvaluatorProcess, descendants, is_alive, wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc

from altlas.config.sections import RewardSection
from altlas.core.grading import Grading, make_grading
from altlas.core.program import fingerprints
from altlas.core.score import Score
from altlas.rpc.batches import scores_from_proto, sources_to_proto
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas.transport.ports import JobId, JobMessage, QueueStats
from altlas.transport.redis_client import connect
from altlas.transport.redis_streams import RedisJobQueue

STATUS = common_pb2.ProgramStatus
SLEEPER = "import time\nprint('begun', flush=True)\ntime.sleep(0.5)\nprint('done')"
PHASES = ("queue_seconds", "fork_seconds", "run_seconds", "collect_seconds")
SHARD_TASK = """
name = "double"
description = "Print twice the number."
reference = "print(2 * int(input()))"
limits = {cpu_s = 1, wall_s = 2}
cases = [{stdin = "1\\n", expected_stdout = "2"}, {stdin = "4\\n", expected_stdout = "8"}]
held_out = [{stdin = "21\\n", expected_stdout = "42"}]
"""


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvaluatorProcess]:
    with EvaluatorProcess(tmp_path_factory.mktemp("evaluator"), ("sandbox.slots=2",)) as running:
        running.wait_until_ready()
        yield running


def health(evaluator: EvaluatorProcess) -> int:
    with evaluator.connect() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status)


def test_metrics_show_what_was_run_and_where_the_time_went(evaluator: EvaluatorProcess) -> None:
    requested = [
        evaluator_pb2.ExecuteProgram(source=b"print(1)"),
        evaluator_pb2.ExecuteProgram(source=b"x = ("),
        evaluator_pb2.ExecuteProgram(source=b"x = ["),
        evaluator_pb2.ExecuteProgram(source=b"while True: pass"),
        evaluator_pb2.ExecuteProgram(source=b"1 / 0"),
        evaluator_pb2.ExecuteProgram(source=b"console.log(6 * 7)", language="javascript"),
    ]
    before = evaluator.samples()
    with evaluator.connect() as channel:
        stub: Any = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
        request = evaluator_pb2.ExecuteRequest(programs=requested, limits=common_pb2.Limits(cpu_s=0.3, wall_s=2))
        response = stub.Execute(request, timeout=30)
        with pytest.raises(grpc.RpcError):
            stub.Execute(evaluator_pb2.ExecuteRequest(), timeout=30)
        tier = stub.GetCapabilities(evaluator_pb2.GetCapabilitiesRequest(), timeout=30).tier
    assert response.executions[5].stdout == b"42\n"
    evaluator.wait_until_idle()
    after = evaluator.samples()
    gained = {key: value - before.get(key, 0) for key, value in after.items()}

    def programs(status: str, language: str) -> float:
        return gained.get(("altlas_evaluator_programs_total", (("language", language), ("status", status))), 0)

    assert programs("ok", "python") in (1, 2)  # perhaps with a canary
    assert programs("syntax_error", "python") == 2
    assert programs("timeout", "python") == 1
    assert programs("runtime_error", "python") == 1
    assert programs("ok", "javascript") == 1
    done = sum(gained[key] for key in gained if key[0] == "altlas_evaluator_programs_total")
    for phase in PHASES:
        assert gained[f"altlas_evaluator_{phase}_count", ()] == done, phase
    assert 0.3 <= gained["altlas_evaluator_run_seconds_sum", ()] < 3
    assert gained["altlas_evaluator_fork_seconds_sum", ()] > 0
    assert gained["altlas_evaluator_launcher_restarts_total", ()] == 0
    assert gained["altlas_evaluator_sandbox_faults_total", ()] == 0
    assert after["altlas_evaluator_tier", (("tier", tier),)] == 1
    assert after["altlas_evaluator_slots", ()] == 2
    method = ("method", "/altlas.rpc.evaluator.v1.EvaluatorService/Execute")
    for code in ("OK", "INVALID_ARGUMENT"):
        assert gained["altlas_rpc_calls_total", (("code", code), method)] == 1


def test_gauges_show_what_runs_and_what_waits(evaluator: EvaluatorProcess) -> None:
    caller = threading.Thread(target=evaluator.execute, args=[SLEEPER] * 4)
    caller.start()
    wait_until(lambda: evaluator.sample("slots_busy") == 2 and evaluator.sample("waiting") == 2)
    assert evaluator.sample("call_programs") == 4
    assert evaluator.sample("call_bytes") > 4 * len(SLEEPER)
    caller.join()
    evaluator.wait_until_idle()


def test_a_silent_connection_holds_up_no_probe(evaluator: EvaluatorProcess) -> None:
    with socket.create_connection(("127.0.0.1", evaluator.metrics_port)):
        assert evaluator.get("/healthz") == (200, "ok\n")
        assert evaluator.get("/readyz") == (200, "ready\n")


@pytest.mark.parametrize("victim", ["launcher", "program"])
def test_a_killed_part_costs_a_repeat_and_no_result(evaluator: EvaluatorProcess, victim: str) -> None:
    evaluator.execute("", "", "", "")
    evaluator.wait_until_idle()
    idle = set(descendants(evaluator.pid))
    faults, restarts = evaluator.sample("sandbox_faults_total"), evaluator.sample("launcher_restarts_total")
    results: list[evaluator_pb2.Execution] = []
    caller = threading.Thread(target=lambda: results.extend(evaluator.execute(*[SLEEPER] * 2)))
    caller.start()
    running: set[int] = set()
    wait_until(lambda: running.update(set(descendants(evaluator.pid)) - idle) or len(running) == 2)
    for pid in idle if victim == "launcher" else running:
        with contextlib.suppress(ProcessLookupError):  # a program of the readiness check comes and goes
            os.kill(pid, signal.SIGKILL)
    caller.join()
    assert [(item.status, item.stdout) for item in results] == [(STATUS.PROGRAM_STATUS_OK, b"begun\ndone\n")] * 2
    assert not any(is_alive(pid) for pid in running)
    if victim == "launcher":
        assert evaluator.sample("sandbox_faults_total") - faults == 2
        assert evaluator.sample("launcher_restarts_total") - restarts == 2
    evaluator.wait_until_idle()


def test_readiness_follows_what_programs_do(evaluator: EvaluatorProcess) -> None:
    """Launchers that die as soon as they start: up, but not ready, with the reason; ready again when they live."""
    is_over = threading.Event()

    def kill_launchers() -> None:
        while not is_over.is_set():
            for pid in descendants(evaluator.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    assert health(evaluator) == health_pb2.HealthCheckResponse.SERVING
    faults = evaluator.sample("sandbox_faults_total")
    killer = threading.Thread(target=kill_launchers)
    killer.start()
    try:
        wait_until(lambda: evaluator.get("/readyz")[0] == 503)
        status, reason = evaluator.get("/readyz")
        assert (status, "canary came back sandbox_error" in reason) == (503, True), reason
        assert evaluator.get("/healthz") == (200, "ok\n")
        wait_until(lambda: health(evaluator) == health_pb2.HealthCheckResponse.NOT_SERVING)
        assert evaluator.sample("sandbox_faults_total") - faults >= 2
    finally:
        is_over.set()
        killer.join()
    wait_until(lambda: evaluator.get("/readyz") == (200, "ready\n"))
    wait_until(lambda: health(evaluator) == health_pb2.HealthCheckResponse.SERVING)
    assert [item.stdout for item in evaluator.execute("print(1)")] == [b"1\n"]


def make_shards(grading: Grading, shards: int, programs: int) -> list[JobMessage]:
    """Shards of programs that take a while, so that a kill finds some in hand."""
    messages = []
    for shard in range(shards):
        sources = [
            b"import time; time.sleep(0.03); print(%d * int(input()))  # %d" % (number % 3, shard * programs + number)
            for number in range(programs)
        ]
        job = evaluator_pb2.Job(
            job_id=f"u0.s{shard}",
            task_digest=grading.digest,
            sources=sources_to_proto(sources),
            fingerprints=b"".join(fingerprints(grading.digest, "python", sources)),
        )
        messages.append(JobMessage(JobId(job.job_id), job.SerializeToString()))
    return messages


class Run:
    """One run's queue on a real Redis, driven from a test that is not asynchronous."""

    def __init__(self, url: str, name: str, *, lease_s: float) -> None:
        self.grading = make_grading(SHARD_TASK, RewardSection(), where="test")
        self._url, self._name, self._lease_s = url, name, lease_s

    def _with_queue(self, act: Any) -> Any:
        async def main() -> Any:
            async with await connect(self._url) as client:
                return await act(RedisJobQueue(client, self._name, lease_s=self._lease_s, max_deliveries=3))

        return asyncio.run(main())

    def submit(self, messages: Sequence[JobMessage]) -> None:
        async def act(queue: RedisJobQueue) -> None:
            await queue.open(task_digest=self.grading.digest, task_text=self.grading.text)
            await queue.submit(0, messages)

        self._with_queue(act)

    def stats(self) -> QueueStats:
        stats: QueueStats = self._with_queue(lambda queue: queue.stats())
        return stats

    def collect(self, messages: Sequence[JobMessage]) -> dict[str, list[Score]]:
        """Wait for every result; the scores of each job."""
        ids = [message.job_id for message in messages]
        found: Mapping[JobId, bytes] = self._with_queue(lambda queue: queue.collect(0, ids, timeout_s=60))
        results = [evaluator_pb2.JobResult.FromString(payload) for payload in found.values()]
        batches = {result.job_id: scores_from_proto(result.scores) for result in results}
        return {job_id: [scores.score(row) for row in range(len(scores))] for job_id, scores in batches.items()}

    def close(self) -> None:
        self._with_queue(lambda queue: queue.close())


@pytest.mark.parametrize("tier", ["namespaces", "landlock"])
def test_an_evaluator_killed_in_the_middle_of_a_shard_loses_nothing(tmp_path: Path, redis_url: str, tier: str) -> None:
    settings = ("sandbox.slots=1", f"sandbox.tier={tier}")
    runs = {name: Run(redis_url, f"{tier}-{name}", lease_s=1.0) for name in ("calm", "killed")}
    messages = make_shards(runs["calm"].grading, shards=3, programs=4)
    with EvaluatorProcess(tmp_path, settings, redis_url=redis_url) as first:
        first.wait_until_ready()
        runs["calm"].submit(messages)
        calm = runs["calm"].collect(messages)
        runs["calm"].close()
        runs["killed"].submit(messages)
        wait_until(lambda: runs["killed"].stats().committed >= 1 and first.sample("slots_busy") == 1)
        family = set(descendants(first.pid))
        assert family
        first.process.kill()
        first.process.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in family), what="the end of the family")
    # On the same socket, whose file is the one thing that a killed process cannot take along.
    with EvaluatorProcess(tmp_path, settings, redis_url=redis_url) as second:
        second.wait_until_ready()
        killed = runs["killed"].collect(messages)
        stats = runs["killed"].stats()
        assert second.terminate(timeout_s=20) == 0
    runs["killed"].close()
    assert killed == calm
    assert (stats.committed, stats.waiting, stats.in_hand, stats.dead, stats.duplicates) == (3, 0, 0, 0, 0)
    assert stats.reclaimed >= 1, "the kill hit no shard in hand"


def test_sigterm_finishes_what_is_in_hand(tmp_path: Path, redis_url: str) -> None:
    run = Run(redis_url, "drained", lease_s=15.0)
    messages = make_shards(run.grading, shards=6, programs=6)
    with EvaluatorProcess(tmp_path, ("sandbox.slots=2",), redis_url=redis_url) as evaluator:
        evaluator.wait_until_ready()
        run.submit(messages)
        results: list[evaluator_pb2.Execution] = []
        caller = threading.Thread(target=lambda: results.extend(evaluator.execute(*[SLEEPER] * 3)))
        caller.start()
        wait_until(lambda: evaluator.sample("call_programs") == 3 and run.stats().in_hand > 0)
        family = set(descendants(evaluator.pid))
        assert evaluator.terminate(timeout_s=15) == 0
        caller.join()
    assert [item.stdout for item in results] == [b"begun\ndone\n"] * 3
    assert not any(is_alive(pid) for pid in family)
    stats = run.stats()
    assert (stats.in_hand, stats.dead, stats.committed + stats.waiting) == (0, 0, 6)
    assert stats.waiting > 0, "everything was done before the signal"
    with EvaluatorProcess(tmp_path, ("sandbox.slots=2",), name="next", redis_url=redis_url):
        assert len(run.collect(messages)) == 6  # well within the lease: nothing was left in dead hands
    assert run.stats().reclaimed == 0
    run.close()
