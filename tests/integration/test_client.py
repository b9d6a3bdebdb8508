"""The Python client against evaluators that are processes of their own, and against servers that fail as told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altlas.client import AsyncEvaluator, Evaluator, Limits, Program, ProgramStatus, RefusedProgramError, Task
from altlas.client.batches import Batch
from altlas.client.task_text import write_task
from altlas.core.task import parse_task
from altlas.errors import (
    AltlasError,
    ConfigError,
    OverloadedError,
    ProtocolError,
    SandboxError,
    TaskError,
    TransientError,
)
from altlas.rpc.channel import wait_until_serving
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas.rpc.server import RoleServer

ALTLAS = Path(sys.executable).with_name("altlas")
ENDLESS = "while True: pass"
# Longer than any test: a program that is not killed holds its slot until the test fails.
LONG = Limits(cpu_s=300, wall_s=300)
SETTINGS = ("--set", "sandbox.slots=2", "--set", "sandbox.cpu_s=300", "--set", "sandbox.wall_s=300")


def start_evaluator(address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [ALTLAS, "serve", "evaluator", "--listen", address, *SETTINGS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={key: value for key, value in os.environ.items() if not key.startswith("ALTLAS_")},
    )


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    finally:
        process.kill()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an evaluator that all tests of this file share."""
    where = f"unix:{tmp_path_factory.mktemp('evaluator')}/s"
    process = start_evaluator(where)
    try:
        asyncio.run(wait_until_serving(where, role="evaluator", timeout_s=60))
        yield where
    finally:
        end(process)


@pytest.fixture(scope="module")
def evaluator(address: str) -> Iterator[Evaluator]:
    with Evaluator(address) as client:
        yield client


def test_results_come_in_order_and_bytes_as_they_are(evaluator: Evaluator) -> None:
    echo = b"import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read() + b'\\xff')"
    sources = ["import time\ntime.sleep(0.3)\nprint('late')", *(f"print({n})" for n in range(200))]
    executions = evaluator.execute([*sources, Program(source=echo, stdin=b"\x00\xfe")])
    assert executions[0].stdout == b"late\n"
    assert [int(execution.stdout) for execution in executions[1:-1]] == list(range(200))
    assert executions[-1].stdout == b"\x00\xfe\xff"
    assert {execution.exit_code for execution in executions} == {0}
    assert evaluator.execute([]) == []


def test_language_and_input_go_with_every_source(evaluator: Evaluator) -> None:
    executions = evaluator.execute(["console.log(6 * 7)", Program(source=b"print(input())")], language="javascript")
    assert (executions[0].stdout, executions[1].status) == (b"42\n", ProgramStatus.RUNTIME_ERROR)
    assert [item.stdout for item in evaluator.execute(["print(input())"] * 2, stdin="grüße")] == [
        "grüße\n".encode()
    ] * 2


def test_statuses_and_limits(evaluator: Evaluator) -> None:
    limits = Limits(cpu_s=0.2, wall_s=5, memory_bytes=64 << 20, output_bytes=1000)
    sources = {
        "print('ok')": ProgramStatus.OK,
        "x = (": ProgramStatus.SYNTAX_ERROR,
        "\ud800": ProgramStatus.SYNTAX_ERROR,
        "1 / 0": ProgramStatus.RUNTIME_ERROR,
        ENDLESS: ProgramStatus.TIMEOUT,
        "x = bytearray(1 << 28)": ProgramStatus.MEMORY_LIMIT,
        "print('x' * 2000)": ProgramStatus.OUTPUT_LIMIT,
    }
    executions = evaluator.execute(list(sources), limits=limits)
    assert [execution.status for execution in executions] == list(sources.values())
    assert b"ZeroDivisionError" in executions[3].stderr
    assert executions[4].exit_code is None
    assert executions[4].cpu_s >= 0.2
    assert executions[6].stdout == b"x" * 1000


def test_capabilities(evaluator: Evaluator) -> None:
    has = evaluator.capabilities()
    assert (has.slots, has.ceiling.cpu_s, has.ceiling.processes) == (2, 300, 0)
    assert has.tier in {"namespaces", "landlock"}
    assert has.layers
    assert {"python", "javascript"} <= set(has.languages)


DOUBLE = Task(
    name="double",
    description='Print "twice" the\tnumber.\x7f \\ \U0001f600',
    reference="print(2 * int(input()))",
    cases=({"stdin": "2\n", "expected_stdout": "4\n"}, {"stdin": "-3\n", "expected_stdout": "-6"}),
    held_out=({"stdin": "5\n", "expected_stdout": "10"},),
    reward={"constant_cap": 0.25},
)


def test_scores_of_a_task_however_it_is_named(evaluator: Evaluator, tmp_path: Path) -> None:
    sources = ["print(2 * int(input()))", b"print(4)", "x = (", "print(2 * int(input()))"]
    file = tmp_path / "double.toml"
    file.write_text(write_task(DOUBLE), encoding="utf-8")
    scores = evaluator.evaluate(DOUBLE, sources)
    assert scores == evaluator.evaluate(file, sources) == evaluator.evaluate(str(file), sources)
    assert [score.reward == 1.0 for score in scores] == [True, False, False, True]
    assert [score.solved for score in scores] == [score.verified for score in scores] == [True, False, False, True]
    assert [score.cases_passed for score in scores] == [2, 1, 0, 2]
    assert 0 < scores[1].reward <= 0.25
    assert scores[2].status is ProgramStatus.SYNTAX_ERROR
    (score,) = evaluator.evaluate("stdin/add_input", ["print(int(input()) + int(input()))"])
    assert score.verified


@given(text=st.text(st.characters(exclude_categories=["Cs"])), number=st.floats(min_value=1e-9, max_value=1e9))
def test_a_task_written_as_toml_is_read_back_equal(text: str, number: float) -> None:
    task = DOUBLE.model_copy(update={"description": text, "limits": DOUBLE.limits.model_copy(update={"cpu_s": number})})
    assert parse_task(write_task(task), where="here") == task


def test_a_refused_program_is_named_and_the_client_goes_on(evaluator: Evaluator) -> None:
    large = "#" * (2 << 20)
    with pytest.raises(RefusedProgramError, match=r"program 3: .*source_bytes") as caught:
        evaluator.execute(["print(1)"] * 3 + [large] + [ENDLESS] * 8, limits=LONG)
    assert caught.value.index == 3
    with pytest.raises(RefusedProgramError, match=r"program 1: .*source_bytes"):
        evaluator.evaluate("basics/hello_world", ["print(1)", large])
    with pytest.raises(RefusedProgramError, match=r"program 0: .*at most"):
        evaluator.execute(["#" * (64 << 20)])
    with pytest.raises(RefusedProgramError, match="'cobol' is unknown"):
        evaluator.execute(["print(1)"], language="cobol")
    with pytest.raises(RefusedProgramError, match="ceiling"):
        evaluator.execute(["print(1)"], limits=Limits(cpu_s=301))
    assert evaluator.execute(["print(1)"], timeout_s=60)[0].stdout == b"1\n"  # nothing endless holds the slots


def test_other_mistakes_have_their_own_error(evaluator: Evaluator) -> None:
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        ("print(1)", {}, "a list of programs"),
        (["1", None], {}, "program 1 is NoneType"),
        ([Program(source="1")], {}, "program 0: source and stdin of a Program are bytes"),
        (["1"], {"stdin": 1}, "stdin is int"),
        (["1"], {"limits": Limits(open_files=-1)}, "open_files"),
        (["1"], {"timeout_s": 0}, "timeout_s"),
    ]
    for sources, arguments, message in wrong:
        with pytest.raises(ConfigError, match=message):
            evaluator.execute(sources, **arguments)
    with pytest.raises(ConfigError, match="a list of programs"):
        evaluator.evaluate("basics/hello_world", "print(1)")
    with pytest.raises(TaskError, match="did you mean basics/hello_world"):
        evaluator.evaluate("basics/helo_world", [""])
    greedy = DOUBLE.model_copy(update={"limits": DOUBLE.limits.model_copy(update={"cpu_s": 301.0})})
    with pytest.raises(ConfigError, match="ceiling"):
        evaluator.evaluate(greedy, [""])
    for address in ("", "127.0.0.1", "http://127.0.0.1:50054", "unix:"):
        with pytest.raises(ConfigError, match="HOST:PORT or unix:PATH"):
            Evaluator(address)


def test_an_address_without_an_evaluator(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    where = f"unix:{tmp_path}/nobody"
    with Evaluator(where, away_s=0.2) as client, pytest.raises(TransientError, match=r"away_s = 0\.2") as caught:
        client.execute(["print(1)"] * 3)
    assert caught.value.__notes__ == ["3 of 3 programs had no result yet"]
    with Evaluator(where) as client, pytest.raises(TransientError, match=r"timeout_s = 0\.2"):
        client.capabilities(timeout_s=0.2)
    assert f"waiting for the evaluator at {where}" in caplog.text


def test_threads_share_one_client(evaluator: Evaluator) -> None:
    def run(thread: int) -> list[int]:
        return [int(item.stdout) for item in evaluator.execute([f"print({thread} * 100 + {n})" for n in range(25)])]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(run, range(16)))
    assert answers == [[thread * 100 + n for n in range(25)] for thread in range(16)]


def test_calls_of_one_loop_run_side_by_side(address: str) -> None:
    async def body() -> None:
        async with AsyncEvaluator(address) as client:
            executions, scores, has = await asyncio.gather(
                client.execute([f"print({n})" for n in range(50)]),
                client.evaluate("basics/hello_world", ["print('hello world')", "print(1)"]),
                client.capabilities(),
            )
        assert [int(execution.stdout) for execution in executions] == list(range(50))
        assert [score.solved for score in scores] == [True, False]
        assert has.slots == 2
        with pytest.raises(AltlasError, match="closed"):
            await client.capabilities()

    asyncio.run(body())


def test_the_blocking_client_works_inside_a_running_event_loop(evaluator: Evaluator) -> None:
    async def cell() -> bytes:
        return evaluator.execute(["print(1)"])[0].stdout

    assert asyncio.run(cell()) == b"1\n"


def test_cancelling_a_call_kills_what_it_runs(address: str) -> None:
    async def body() -> None:
        async with AsyncEvaluator(address) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await client.execute([ENDLESS] * 50, limits=LONG)
            assert (await client.execute(["print(1)"], timeout_s=60))[0].stdout == b"1\n"

    asyncio.run(body())


def test_a_call_past_its_deadline_kills_what_it_runs(evaluator: Evaluator) -> None:
    with pytest.raises(TransientError, match=r"timeout_s = 0\.5") as caught:
        evaluator.execute([ENDLESS] * 50, limits=LONG, timeout_s=0.5)
    assert caught.value.__notes__ == ["50 of 50 programs had no result yet"]
    assert evaluator.execute(["print(1)"], timeout_s=60)[0].stdout == b"1\n"


def test_closing_ends_the_calls_of_other_threads(address: str) -> None:
    threads = set(threading.enumerate())
    client = Evaluator(address)
    client.capabilities()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.execute, [ENDLESS] * 4, limits=LONG)
        while not client._client._calls:
            os.sched_yield()
        client.close()
        with pytest.raises(AltlasError, match="closed"):
            running.result(timeout=30)
    client.close()
    with pytest.raises(AltlasError, match="closed"):
        client.execute(["print(1)"])
    assert set(threading.enumerate()) <= threads


def test_a_fork_is_told_to_make_its_own(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator.capabilities()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(AltlasError, match="forked"):
            evaluator.capabilities()
        evaluator.close()  # what the parent uses is left alone
    assert evaluator.capabilities().slots == 2


def test_a_process_may_end_without_closing_and_loads_nothing_heavy(address: str) -> None:
    code = f"""
import sys, threading
from altlas.client import Evaluator
evaluator = Evaluator({address!r})
dropped = Evaluator({address!r})
dropped.capabilities()
del dropped
assert threading.active_count() == 1
print(evaluator.execute(["print(1)"])[0].stdout, sorted({{"torch", "numpy", "lark"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'1\\n' []\n", "")


def test_an_evaluator_killed_and_restarted_in_the_middle_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed at the 200th answer: the answered are kept, the others come from its successor."""
    caplog.set_level("INFO")
    address = f"unix:{tmp_path}/s"
    processes = [start_evaluator(address)]
    take, taken = Batch.take, []

    async def take_and_kill(batch: Batch[Any, Any], stub: Any, response: Any, **arguments: Any) -> None:
        await take(batch, stub, response, **arguments)
        taken.append(response.index)
        if len(taken) == 200:
            processes[0].send_signal(signal.SIGKILL)
            processes[0].wait()
            processes.append(start_evaluator(address))

    monkeypatch.setattr(Batch, "take", take_and_kill)
    try:
        with Evaluator(address) as client:
            executions = client.execute([f"print({n})" for n in range(1000)], timeout_s=100)
    finally:
        for process in processes[-1:]:
            end(process)
    assert [int(execution.stdout) for execution in executions] == list(range(1000))
    assert len(processes) == 2
    assert sorted(taken) == list(range(1000))
    assert "waiting for" in caplog.text
    assert "resumed after" in caplog.text


class Told(evaluator_pb2_grpc.EvaluatorServiceServicer):
    """Answers as told. `answer` makes the answers to one stream, or raises."""

    def __init__(self, answer: Callable[[int], list[Any]], alone: AltlasError | None) -> None:
        self.answer = answer
        self.alone = alone
        self.streams = 0

    async def ExecuteStream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            pass
        self.streams += 1
        for answer in self.answer(self.streams):
            yield answer

    async def Execute(self, request: Any, context: Any) -> Any:
        if self.alone is not None:
            raise self.alone
        return evaluator_pb2.ExecuteResponse(executions=[OK])


OK = evaluator_pb2.Execution(status=common_pb2.PROGRAM_STATUS_OK, stdout=b"fine", exit_code=0)
FAULT = evaluator_pb2.Execution(status=common_pb2.PROGRAM_STATUS_SANDBOX_ERROR, stderr=b"the launcher died")
Response = evaluator_pb2.ExecuteStreamResponse


def with_told(
    tmp_path: Path, body: Callable[[AsyncEvaluator, Told], Awaitable[None]], *, answer: Any, alone: Any = None
) -> None:
    async def run() -> None:
        server = RoleServer("evaluator", listen=f"unix:{tmp_path}/s", service_names=[])
        told = Told(answer, alone)
        evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(told, server.grpc)
        address = await server.start()
        running = asyncio.create_task(server.run())
        async with AsyncEvaluator(address, away_s=5) as client:
            await body(client, told)
        server.stop()
        await running

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answers", "alone", "error", "message"),
    [
        (
            [Response(index=0, execution=OK), Response(index=1, execution=FAULT)],
            None,
            SandboxError,
            "program 1: the la",
        ),
        ([Response(index=1, error="it fell")], SandboxError("x"), SandboxError, "program 1: it fell"),
        ([Response(index=1, error="too large")], ConfigError("x"), RefusedProgramError, "program 1: too large"),
        ([Response(index=7, execution=OK)], None, ProtocolError, "program 7"),
        ([Response(index=0, execution=OK)] * 2, None, ProtocolError, "program 0"),
        ([Response(index=0, execution=OK)], None, ProtocolError, "1 programs not answered"),
        ([Response(index=0, execution=evaluator_pb2.Execution(status=99))], None, ProtocolError, "status 99"),
    ],
)
def test_a_failure_of_the_evaluator_is_an_error_and_never_a_result(
    tmp_path: Path, answers: list[Any], alone: AltlasError | None, error: type[AltlasError], message: str
) -> None:
    async def body(client: AsyncEvaluator, told: Told) -> None:
        with pytest.raises(error, match=message):
            await client.execute(["a", "b"])
        assert told.streams == 1

    with_told(tmp_path, body, answer=lambda stream: answers, alone=alone)


def test_an_error_on_the_stream_that_does_not_come_again_gives_a_result(tmp_path: Path) -> None:
    async def body(client: AsyncEvaluator, told: Told) -> None:
        assert (await client.execute(["a"]))[0].stdout == b"fine"

    with_told(tmp_path, body, answer=lambda stream: [Response(index=0, error="the sandbox failed")])


def overload(*, streams: int, retry_after_s: float) -> Callable[[int], list[Any]]:
    def answer(stream: int) -> list[Any]:
        if stream <= streams:
            raise OverloadedError("no room", retry_after_s=retry_after_s)
        return [Response(index=0, execution=OK)]

    return answer


def test_an_overloaded_evaluator_is_asked_again_when_it_says(tmp_path: Path) -> None:
    async def body(client: AsyncEvaluator, told: Told) -> None:
        began = time.monotonic()
        assert (await client.execute(["a"]))[0].stdout == b"fine"
        assert time.monotonic() - began >= 0.2
        assert told.streams == 3

    with_told(tmp_path, body, answer=overload(streams=2, retry_after_s=0.1))


def test_an_overload_that_outlasts_the_deadline_is_raised_at_once(tmp_path: Path) -> None:
    async def body(client: AsyncEvaluator, told: Told) -> None:
        with pytest.raises(OverloadedError, match="no room") as caught:
            await client.execute(["a"], timeout_s=5)
        assert caught.value.retry_after_s == 20
        assert told.streams == 1

    with_told(tmp_path, body, answer=overload(streams=1, retry_after_s=20))
