"""Bad requests to a real evaluator: a clear status for each, and the service as well as before."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from evaluator_process import EvaluatorProcess

from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc

SERVICE = "/altlas.rpc.evaluator.v1.EvaluatorService/"
SETTINGS = (
    "sandbox.slots=2",
    "sandbox.queue_programs=64",
    "sandbox.source_bytes=4096",
    "sandbox.cpu_s=5",
    "sandbox.wall_s=10",
)
INVALID = grpc.StatusCode.INVALID_ARGUMENT
OK = common_pb2.ProgramStatus.PROGRAM_STATUS_OK
TASK = """
name = "double"
description = "Print twice the number."
reference = "print(2 * int(input()))"
cases = [{stdin = "1\\n", expected_stdout = "2"}, {stdin = "4\\n", expected_stdout = "8"}]
held_out = [{stdin = "21\\n", expected_stdout = "42"}]
"""
RIGHT = b"print(2 * int(input()))"
WRONG = b"print(int(input()))"
PRINT_MUCH = b"import sys; print('x' * 600_000); print('y' * 600_000, file=sys.stderr)"


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvaluatorProcess]:
    with EvaluatorProcess(tmp_path_factory.mktemp("evaluator"), SETTINGS) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture
def channel(evaluator: EvaluatorProcess) -> Iterator[grpc.Channel]:
    with evaluator.connect() as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return evaluator_pb2_grpc.EvaluatorServiceStub(channel)


@pytest.fixture(autouse=True)
def alive_afterwards(evaluator: EvaluatorProcess, stub: Any) -> Iterator[None]:
    """After every row: right answers to good requests, and nothing that runs, waits or is held."""
    yield
    executed = stub.Execute(execute(b"print(6 * 7)"), timeout=30)
    assert [(item.status, item.stdout) for item in executed.executions] == [(OK, b"42\n")]
    evaluated = stub.Evaluate(evaluate(RIGHT, WRONG), timeout=30)
    assert [(item.verified, item.cases_passed) for item in evaluated.scores] == [(True, 2), (False, 0)]
    evaluator.wait_until_idle()
    assert evaluator.process.poll() is None


def execute(*sources: bytes, **limits: Any) -> evaluator_pb2.ExecuteRequest:
    return evaluator_pb2.ExecuteRequest(
        programs=[evaluator_pb2.ExecuteProgram(source=source) for source in sources],
        limits=common_pb2.Limits(**limits),
    )


def evaluate(*sources: bytes, task_toml: str = TASK) -> evaluator_pb2.EvaluateRequest:
    return evaluator_pb2.EvaluateRequest(task_toml=task_toml, sources=sources)


def in_language(language: str) -> evaluator_pb2.ExecuteRequest:
    return evaluator_pb2.ExecuteRequest(programs=[evaluator_pb2.ExecuteProgram(source=b"", language=language)])


def with_task(task_toml: str) -> evaluator_pb2.EvaluateRequest:
    return evaluate(RIGHT, task_toml=task_toml)


def task_with(line: str) -> evaluator_pb2.EvaluateRequest:
    return with_task(TASK + line)


def limited(**limits: Any) -> evaluator_pb2.ExecuteRequest:
    return execute(b"print(1)", **limits)


@dataclass(frozen=True)
class Row:
    """A request and what its status must say."""

    name: str
    request: Any
    message: str
    code: grpc.StatusCode = INVALID


UNARY = [
    Row("source too large", execute(b"", b" " * 4097), r"programs\[1\]: .*4,097 bytes; sandbox.source_bytes .*4,096"),
    Row("source to score too large", evaluate(b"", b"", b" " * 4097), r"sources\[2\]: .*sandbox.source_bytes"),
    Row(
        "message too large",
        execute(b" " * (64 << 20)),
        r"message larger than max \(\d+ vs. 67108864\)",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ),
    Row("no programs", execute(), "0 programs in one call: send 1 to 64"),
    Row("no sources", evaluate(), "0 programs in one call: send 1 to 64"),
    Row("more programs than can wait", execute(*[b""] * 65), "65 programs in one call: send 1 to 64.*queue_programs"),
    Row("more sources than can wait", evaluate(*[b""] * 65), "65 programs in one call: send 1 to 64.*queue_programs"),
    Row("over 10,000 programs", execute(*[b""] * 10_001), "10,001 programs in one call"),
    Row("over 10,000 sources", evaluate(*[b""] * 10_001), "10,001 programs in one call"),
    Row(
        "more output than fits",
        execute(*[PRINT_MUCH] * 64, output_bytes=1 << 20),
        "print more than the 64 MiB of one answer: send fewer",
    ),
    *(
        Row(f"{name}={value}", limited(**{name: value}), f"limit {name} = .*must be a finite number above 0")
        for name in ("cpu_s", "wall_s")
        for value in (-1.0, 0.0, math.nan, math.inf, -math.inf)
    ),
    *(
        Row(f"{name}=0", limited(**{name: 0}), f"limit {name} = 0 must be a finite number above 0")
        for name in ("memory_bytes", "output_bytes", "open_files")
    ),
    *(
        Row(f"{name} too high", limited(**{name: value}), f"limit {name} = .* above the ceiling: sandbox.{name} = ")
        for name, value in [
            ("cpu_s", 5.001),
            ("wall_s", 1e300),
            ("memory_bytes", 1 << 63),
            ("output_bytes", (1 << 20) + 1),
            ("open_files", 65),
        ]
    ),
    Row("memory below the least", limited(memory_bytes=(1 << 20) - 1), "memory_bytes = .* below the least, 1048576"),
    Row("open files below the least", limited(open_files=7), "open_files = 7 is below the least, 8"),
    Row("a process", limited(processes=1), "limit processes = 1 is not to be had"),
    Row("a file", limited(file_bytes=1), "limit file_bytes = 1 is not to be had"),
    Row("unknown language", in_language("cobol"), r"programs\[0\]: language 'cobol' is unknown; .* python"),
    Row("language without end", in_language("é" * 1_000_000), r"language 'é+ \.\.\.$"),
    Row("empty task", with_task(""), "task_toml: name: Field required; .*cases"),
    Row("task not TOML", with_task("name = "), "task_toml: not valid TOML"),
    Row("task nested without end", with_task("a = " + "[" * 100_000), "task_toml: not valid TOML"),
    Row("task with a number without end", with_task("a = " + "9" * 5000), "task_toml: not valid TOML"),
    Row("task with a field too many", task_with("\nlimits = {cpu = 1}"), "task_toml: limits.cpu: Extra inputs"),
    Row("task without cases", with_task(TASK.replace("cases = [", "cases = [] #[")), "task_toml: .*cases"),
    Row("task in an unknown language", task_with('\nlanguage = "cobol"'), "'cobol' is unknown; choose from python"),
    Row("task above a ceiling", task_with("\nlimits = {cpu_s = 5.5}"), "cpu_s = 5.5 is above the ceiling"),
    Row("task without a limit", task_with("\nlimits = {wall_s = inf}"), "wall_s = inf"),
    Row("task with a limit of nan", task_with("\nlimits = {cpu_s = nan}"), "task_toml: limits.cpu_s"),
    Row("task with 50,000 wrong cases", with_task("cases = [" + "{a = 1}, " * 50_000 + "]"), r"Extra inputs.* \.\.\.$"),
]


@pytest.mark.parametrize("row", UNARY, ids=lambda row: row.name)
def test_a_bad_call_is_refused_by_name(stub: Any, row: Row) -> None:
    method = stub.Execute if isinstance(row.request, evaluator_pb2.ExecuteRequest) else stub.Evaluate
    with pytest.raises(grpc.RpcError) as caught:
        method(row.request, timeout=30)
    assert caught.value.code() is row.code
    assert re.search(row.message, caught.value.details())


# A string that is not UTF-8, a message within the message that is none; GetCapabilities has no field to be wrong.
WRONG_TYPES = {
    "Execute": b"\x0a\x01\xff",
    "Evaluate": b"\x0a\x01\xff",
    "GetCapabilities": b"\xff",
    "ExecuteStream": b"\x12\x01\xff",
    "EvaluateStream": b"\x0a\x01\xff",
}


@pytest.mark.parametrize("method", WRONG_TYPES)
@pytest.mark.parametrize("kind", ["noise", "cut short", "wrong types"])
def test_bytes_that_are_no_message_are_the_callers_fault(channel: grpc.Channel, method: str, kind: str) -> None:
    raw = {"noise": b"\xff\xff\xff", "cut short": b"\x0a\x7f", "wrong types": WRONG_TYPES[method]}[kind]
    with pytest.raises(grpc.RpcError, match=f"{method}: the request is not the message of this method") as caught:
        list(channel.stream_stream(SERVICE + method)(iter([raw]), timeout=10))
    assert caught.value.code() is INVALID


@pytest.mark.parametrize(
    "path", [SERVICE + "Evaluated", "/altlas.rpc.evaluator.v2.EvaluatorService/Evaluate", "/x/" + "y" * 3000]
)
def test_an_unknown_method_is_unimplemented(channel: grpc.Channel, path: str) -> None:
    with pytest.raises(grpc.RpcError, match="no such method here; reflection lists") as caught:
        channel.unary_unary(path)(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_call_without_a_deadline_is_refused(stub: Any) -> None:
    for call in (
        lambda: stub.Execute(execute(b"")),
        lambda: stub.Evaluate(evaluate(RIGHT)),
        lambda: stub.GetCapabilities(evaluator_pb2.GetCapabilitiesRequest()),
        lambda: list(stub.ExecuteStream(iter([]))),
        lambda: list(stub.EvaluateStream(iter([]))),
    ):
        with pytest.raises(grpc.RpcError, match="no deadline: set a timeout on the call") as caught:
            call()
        assert caught.value.code() is INVALID


def test_unset_fields_take_their_defaults(stub: Any) -> None:
    request = evaluator_pb2.ExecuteRequest(programs=[evaluator_pb2.ExecuteProgram()])
    (execution,) = stub.Execute(request, timeout=30).executions
    assert (execution.status, execution.stdout, execution.exit_code) == (OK, b"", 0)


def test_limits_at_the_ceiling_are_granted(stub: Any) -> None:
    ceiling = stub.GetCapabilities(evaluator_pb2.GetCapabilitiesRequest(), timeout=10).ceiling
    request = evaluator_pb2.ExecuteRequest(programs=[evaluator_pb2.ExecuteProgram(source=b"print(1)")], limits=ceiling)
    assert stub.Execute(request, timeout=30).executions[0].stdout == b"1\n"


def first(**fields: Any) -> evaluator_pb2.EvaluateStreamRequest:
    return evaluator_pb2.EvaluateStreamRequest(task_toml=TASK, **fields)


def then(**fields: Any) -> evaluator_pb2.EvaluateStreamRequest:
    return evaluator_pb2.EvaluateStreamRequest(**fields)


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([], "first message of EvaluateStream must carry task_toml"),
        ([then(index=1, source=RIGHT)], "first message of EvaluateStream must carry task_toml"),
        ([first(), then(source=RIGHT), first(source=RIGHT)], "task_toml belongs in the first message alone"),
        ([evaluator_pb2.EvaluateStreamRequest(task_toml="name = ")], "task_toml: not valid TOML"),
        ([evaluator_pb2.EvaluateStreamRequest(task_toml="a = " + "[" * 100_000)], "task_toml: not valid TOML"),
        ([evaluator_pb2.EvaluateStreamRequest(task_toml=TASK + "\nlimits = {cpu_s = 99}")], "above the ceiling"),
    ],
    ids=["nothing", "no task", "task twice", "task not TOML", "task nested without end", "task above a ceiling"],
)
def test_a_bad_stream_is_ended_with_its_reason(stub: Any, requests: list[Any], message: str) -> None:
    with pytest.raises(grpc.RpcError, match=message) as caught:
        list(stub.EvaluateStream(iter(requests), timeout=30))
    assert caught.value.code() is INVALID


def test_a_bad_program_of_a_stream_gets_its_error_and_the_stream_goes_on(stub: Any) -> None:
    def message(index: int, source: bytes = b"print(1)", language: str = "", **limits: Any) -> Any:
        program = evaluator_pb2.ExecuteProgram(source=source, language=language)
        return evaluator_pb2.ExecuteStreamRequest(index=index, program=program, limits=common_pb2.Limits(**limits))

    requests = [
        message(1),
        evaluator_pb2.ExecuteStreamRequest(index=2),
        message(3, b" " * 4097),
        message(4, language="cobol"),
        message(5, cpu_s=math.nan),
        message(6, processes=1),
        message(7),
    ]
    answers = {item.index: item for item in stub.ExecuteStream(iter(requests), timeout=30)}
    assert sorted(answers) == [1, 2, 3, 4, 5, 6, 7]
    for index, error in [(2, "no program"), (3, "source_bytes"), (4, "cobol"), (5, "cpu_s = nan"), (6, "processes")]:
        assert error in answers[index].error
    assert [answers[index].execution.stdout for index in (1, 7)] == [b"1\n", b"1\n"]


def test_a_bad_source_of_a_stream_gets_its_error_and_the_stream_goes_on(stub: Any) -> None:
    requests = [first(), then(index=1), then(index=2, source=b" " * 4097), then(index=3, source=RIGHT)]
    answers = {item.index: item for item in stub.EvaluateStream(iter(requests), timeout=30)}
    assert sorted(answers) == [1, 2, 3]
    assert "no source" in answers[1].error
    assert "source_bytes" in answers[2].error
    assert answers[3].score.verified


def test_a_half_closed_stream_gets_all_its_answers(stub: Any) -> None:
    programs = [evaluator_pb2.ExecuteProgram(source=f"print({index})".encode()) for index in range(100)]
    requests = [evaluator_pb2.ExecuteStreamRequest(index=index, program=item) for index, item in enumerate(programs)]
    answers = {item.index: item.execution.stdout for item in stub.ExecuteStream(iter(requests), timeout=30)}
    assert answers == {index: f"{index}\n".encode() for index in range(100)}
    scored = list(stub.EvaluateStream(iter([first(), *(then(index=n, source=RIGHT) for n in range(50))]), timeout=30))
    assert sorted(item.index for item in scored) == list(range(50))
    assert all(item.score.verified for item in scored)
