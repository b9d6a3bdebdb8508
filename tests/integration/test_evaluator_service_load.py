"""Calls that end early, readers that are slow, and more calls than there is room for, against a real evaluator."""

from __future__ import annotations

import asyncio
import collections
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from evaluator_process import EvaluatorProcess, descendants, is_alive, wait_until

from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas_evaluator.servicer import MAX_STREAMS

SETTINGS = ("sandbox.slots=2", "sandbox.queue_programs=64", "sandbox.cpu_s=30", "sandbox.wall_s=60")
TASK = """
name = "double"
description = "Print twice the number."
reference = "print(2 * int(input()))"
limits = {cpu_s = 30, wall_s = 60}
cases = [{stdin = "1\\n", expected_stdout = "2"}, {stdin = "4\\n", expected_stdout = "8"}]
"""
RIGHT = b"print(2 * int(input()))"
ENDLESS = b"while True: pass"
LONG = common_pb2.Limits(cpu_s=30, wall_s=60)
RETRY_AFTER = "retry-after-ms"


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvaluatorProcess]:
    with EvaluatorProcess(tmp_path_factory.mktemp("evaluator"), SETTINGS) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture
def channel(evaluator: EvaluatorProcess) -> Iterator[grpc.Channel]:
    with evaluator.connect() as opened:
        yield opened


@pytest.fixture(autouse=True)
def alive_afterwards(evaluator: EvaluatorProcess) -> Iterator[None]:
    """After every row: a right answer to a good request, and nothing that runs, waits or is held."""
    yield
    assert [item.stdout for item in evaluator.execute("print(6 * 7)", "print(7 * 8)")] == [b"42\n", b"56\n"]
    evaluator.wait_until_idle()
    assert evaluator.process.poll() is None


def execute(*sources: bytes) -> evaluator_pb2.ExecuteRequest:
    programs = [evaluator_pb2.ExecuteProgram(source=source) for source in sources]
    return evaluator_pb2.ExecuteRequest(programs=programs, limits=LONG)


def execute_message(index: int, source: bytes) -> evaluator_pb2.ExecuteStreamRequest:
    program = evaluator_pb2.ExecuteProgram(source=source)
    return evaluator_pb2.ExecuteStreamRequest(index=index, program=program, limits=LONG)


def evaluate_message(index: int, source: bytes) -> evaluator_pb2.EvaluateStreamRequest:
    return evaluator_pb2.EvaluateStreamRequest(index=index, source=source, task_toml="" if index else TASK)


def left_open(message: Callable[[int, bytes], Any], ended: threading.Event) -> Iterator[Any]:
    """More endless programs than there are slots, and no end of the stream."""
    for index in range(8):
        yield message(index, ENDLESS)
    ended.wait()


def start_execute(stub: Any, timeout: float, ended: threading.Event) -> Any:
    return stub.Execute.future(execute(*[ENDLESS] * 8), timeout=timeout)


def start_evaluate(stub: Any, timeout: float, ended: threading.Event) -> Any:
    sources = [ENDLESS + b" # %d" % number for number in range(8)]
    return stub.Evaluate.future(evaluator_pb2.EvaluateRequest(task_toml=TASK, sources=sources), timeout=timeout)


def start_execute_stream(stub: Any, timeout: float, ended: threading.Event) -> Any:
    return stub.ExecuteStream(left_open(execute_message, ended), timeout=timeout)


def start_evaluate_stream(stub: Any, timeout: float, ended: threading.Event) -> Any:
    return stub.EvaluateStream(left_open(evaluate_message, ended), timeout=timeout)


@pytest.mark.parametrize("start", [start_execute, start_evaluate, start_execute_stream, start_evaluate_stream])
@pytest.mark.parametrize("end", ["deadline", "cancel", "cut"])
def test_a_call_that_ends_early_takes_its_programs_along(evaluator: EvaluatorProcess, start: Any, end: str) -> None:
    evaluator.execute("", "", "", "")  # both slots have a launcher
    idle = set(descendants(evaluator.pid))
    ended = threading.Event()
    with evaluator.connect() as channel:
        call = start(evaluator_pb2_grpc.EvaluatorServiceStub(channel), 1.0 if end == "deadline" else 60, ended)
        wait_until(lambda: evaluator.sample("slots_busy") == 2 and evaluator.sample("call_programs") == 8)
        programs: set[int] = set()
        wait_until(lambda: programs.update(set(descendants(evaluator.pid)) - idle) or len(programs) >= 2)
        if end == "cancel":
            call.cancel()
        elif end == "cut":
            channel.close()
        wait_until(lambda: not any(is_alive(pid) for pid in programs), timeout_s=5, what="the end of the programs")
        ended.set()
        if end != "cut":
            code = {"deadline": grpc.StatusCode.DEADLINE_EXCEEDED, "cancel": grpc.StatusCode.CANCELLED}[end]
            assert call.code() is code


def test_a_caller_that_is_killed_takes_its_programs_along(evaluator: EvaluatorProcess) -> None:
    script = """
import sys, grpc
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
programs = [evaluator_pb2.ExecuteProgram(source=b"while True: pass")] * 8
request = evaluator_pb2.ExecuteRequest(programs=programs, limits=common_pb2.Limits(cpu_s=30, wall_s=60))
evaluator_pb2_grpc.EvaluatorServiceStub(grpc.insecure_channel(sys.argv[1])).Execute(request, timeout=300)
"""
    with subprocess.Popen([sys.executable, "-c", script, evaluator.address]) as caller:
        wait_until(lambda: evaluator.sample("slots_busy") == 2 and evaluator.sample("call_programs") == 8)
        caller.kill()
    wait_until(evaluator.is_idle, timeout_s=5, what="the end of the programs")


def test_a_slow_reader_holds_up_itself_alone(evaluator: EvaluatorProcess, channel: grpc.Channel) -> None:
    stub: Any = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
    much = evaluator_pb2.ExecuteProgram(source=b"print('x' * 900_000)")
    limits = common_pb2.Limits(output_bytes=1 << 20)
    messages = (
        evaluator_pb2.ExecuteStreamRequest(index=index, program=much, limits=limits) for index in itertools.count()
    )
    done_before, rss_before = evaluator.programs_done(), evaluator.rss_bytes()
    call = stub.ExecuteStream(messages, timeout=120)
    looks: collections.deque[tuple[float, float]] = collections.deque(maxlen=30)

    def has_halted() -> bool:
        looks.append((evaluator.sample("call_programs"), evaluator.sample("waiting")))
        return len(looks) == looks.maxlen and set(looks) == {(32.0, 0.0)}

    wait_until(has_halted, what="the halt of the stream")
    assert evaluator.programs_done() - done_before < 100
    assert evaluator.rss_bytes() - rss_before < 150 << 20
    assert [item.stdout for item in evaluator.execute("print(1)")] == [b"1\n"]
    answers = list(itertools.islice(call, 100))
    assert len({answer.index for answer in answers}) == 100
    assert {len(answer.execution.stdout) for answer in answers} == {900_001}
    call.cancel()


def test_ten_thousand_calls_at_once_are_served_or_refused_with_a_hint(evaluator: EvaluatorProcess) -> None:
    async def flood() -> list[Any]:
        async with grpc.aio.insecure_channel(evaluator.address) as channel:
            stub: Any = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
            executing = execute(b"print(1)")
            evaluating = evaluator_pb2.EvaluateRequest(task_toml=TASK, sources=[RIGHT])
            pairs = ((stub.Execute(executing, timeout=60), stub.Evaluate(evaluating, timeout=60)) for _ in range(5000))
            return await asyncio.gather(*itertools.chain.from_iterable(pairs), return_exceptions=True)

    rss_before = evaluator.rss_bytes()
    outcomes = asyncio.run(flood())
    refusals = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert {refusal.code() for refusal in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    for refusal in refusals:
        assert "try again in" in (refusal.details() or "")
        hints = dict(refusal.trailing_metadata() or ())
        assert hints["altlas-error"] == "OverloadedError"
        assert 1 <= int(hints[RETRY_AFTER]) <= 30_000
    executed = [outcome for outcome in outcomes if isinstance(outcome, evaluator_pb2.ExecuteResponse)]
    evaluated = [outcome for outcome in outcomes if isinstance(outcome, evaluator_pb2.EvaluateResponse)]
    assert len(executed) + len(evaluated) + len(refusals) == 10_000
    assert executed
    assert evaluated
    assert all(response.executions[0].stdout == b"1\n" for response in executed)
    assert all(response.scores[0].solved for response in evaluated)
    assert evaluator.rss_bytes() - rss_before < 300 << 20


@pytest.mark.parametrize("kind", ["execute", "evaluate"])
def test_more_streams_than_may_wait_are_all_served_in_turn(evaluator: EvaluatorProcess, kind: str) -> None:
    """100 streams of 8 programs, where 64 programs may wait: nothing is refused, starved or stuck."""
    message = execute_message if kind == "execute" else evaluate_message
    source = b"print(1)" if kind == "execute" else RIGHT

    async def one(method: Any) -> list[int]:
        call = method((message(index, source) for index in range(9)), timeout=100)
        return sorted([answer.index async for answer in call])

    async def main() -> list[list[int]]:
        async with grpc.aio.insecure_channel(evaluator.address) as channel:
            stub: Any = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
            method = stub.ExecuteStream if kind == "execute" else stub.EvaluateStream
            return await asyncio.gather(*(one(method) for _ in range(100)))

    assert asyncio.run(main()) == [list(range(9))] * 100


def test_streams_beyond_the_most_are_refused(evaluator: EvaluatorProcess) -> None:
    async def main() -> None:
        async with grpc.aio.insecure_channel(evaluator.address) as channel:
            stub: Any = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
            calls = [stub.ExecuteStream(timeout=60) for _ in range(MAX_STREAMS + 20)]
            codes = [asyncio.ensure_future(call.code()) for call in calls]
            refused, _ = await asyncio.wait(codes, return_when=asyncio.FIRST_COMPLETED)
            while len(refused) < 20:
                refused |= (await asyncio.wait(set(codes) - refused, return_when=asyncio.FIRST_COMPLETED))[0]
            assert {code.result() for code in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            for call in calls:
                call.cancel()
            await asyncio.wait(codes)

    asyncio.run(main())


def test_a_full_queue_makes_streams_wait_and_calls_try_again(tmp_path: Path) -> None:
    """One slot and room for one: each call is refused or served, each program of a stream is served."""
    with EvaluatorProcess(tmp_path, ("sandbox.slots=1", "sandbox.queue_programs=1")) as tiny, tiny.connect() as channel:
        tiny.wait_until_ready()
        stub: Any = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
        task = TASK.replace("limits", "# limits")
        scoring = stub.EvaluateStream(
            (
                evaluator_pb2.EvaluateStreamRequest(index=n, source=RIGHT, task_toml="" if n else task)
                for n in range(60)
            ),
            timeout=60,
        )
        running = stub.ExecuteStream(
            (
                evaluator_pb2.ExecuteStreamRequest(index=n, program=evaluator_pb2.ExecuteProgram(source=b"print(1)"))
                for n in range(60)
            ),
            timeout=60,
        )
        assert sorted(answer.index for answer in scoring if answer.score.solved) == list(range(60))
        assert sorted(answer.index for answer in running if answer.execution.stdout == b"1\n") == list(range(60))
        tiny.wait_until_idle()
