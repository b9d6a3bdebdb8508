"""brainf through `altlas execute`, `altlas score` and the evaluator's RPCs."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from evaluator_process import EvaluatorProcess

from altlas.config.sections import RewardSection, SandboxSection
from altlas.core.task import parse_task
from altlas.errors import ConfigError
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas_evaluator.engine import Executor
from altlas_evaluator.stream import stream_execute, stream_score

TASK = """
name = "echo"
description = "Write the input."
language = "brainf"
vocabulary = "brainf"
cases = [{ input = [3], expected = [3] }, { input = [5], expected = [5] }]
held_out = [{ input = [7], expected = [7] }]
"""


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(SandboxSection(slots=1)) as running:
        yield running


def execute(executor: Executor, *records: Any, language: str = "brainf") -> list[dict[str, Any]]:
    output = io.BytesIO()
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    stream_execute(io.BytesIO(lines), output, executor, language=language)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_execute_answers_with_integers(executor: Executor) -> None:
    assert execute(
        executor,
        {"id": "a", "source": ",[.,].", "input": [300, -1, 0, 9]},
        {"id": 2, "source": "+[.]", "max_steps": 6},
        {"source": "[", "require_correct_syntax": True},
        {"source": "-.", "base": 27},
        {"source": ".", "language": "brainf"},
    ) == [
        {"id": "a", "status": "ok", "output": [300, -1, 0], "steps": 9},
        {"id": 2, "status": "step_limit", "output": [1, 1], "steps": 6},
        {"id": None, "status": "syntax_error", "output": [], "steps": 0},
        {"id": None, "status": "ok", "output": [26], "steps": 2},
        {"id": None, "status": "ok", "output": [0], "steps": 1},
    ]


def test_languages_may_be_mixed_in_a_stream(executor: Executor) -> None:
    answers = execute(
        executor,
        {"source": "print(1)"},
        {"source": "+.", "language": "brainf"},
        {"source": "print(2)"},
        language="python",
    )
    assert [answer.get("stdout", answer.get("output")) for answer in answers] == ["1\n", [1], "2\n"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stdin": "x"}, "stdin: not for programs in brainf"),
        ({"limits": {"cpu_s": 1}}, "limits: not for programs in brainf"),
        ({"language": "python", "input": [1], "base": 2}, "input, base: not for programs in python"),
        ({"input": [1, "2"]}, "input.1: Input should be a valid integer"),
        ({"input": [1 << 63]}, "input.0: "),
        ({"base": 0}, "base: "),
        ({"max_steps": 0}, "max_steps: "),
        ({"max_steps": 1_000_001}, "max_steps: "),
        ({"source": "+" * ((1 << 20) + 1)}, "the source has 1,048,577 bytes"),
        ({"language": "cobol"}, "language 'cobol' is unknown"),
    ],
)
def test_a_wrong_record_is_told_what_is_wrong(executor: Executor, fields: dict[str, Any], message: str) -> None:
    wrong, right = execute(executor, {"id": 1, "source": "."} | fields, {"id": 2, "source": "."})
    assert (wrong["line"], wrong["id"]) == (1, 1)
    assert message in wrong["error"]
    assert right["output"] == [0]


def test_an_unknown_language_is_refused_with_those_that_are_known(executor: Executor) -> None:
    with pytest.raises(ConfigError, match=r"'cobol' is unknown; choose from python, .*brainf"):
        execute(executor, language="cobol")


def test_score_answers_with_the_reward_and_the_first_output(executor: Executor) -> None:
    output = io.BytesIO()
    lines = b'{"id": 1, "source": ",."}\n{"id": 2, "source": "+[]"}\n{"id": 3, "source": ".", "language": "python"}\n'
    task = parse_task(TASK, where="echo.toml")
    stream_score(io.BytesIO(lines), output, executor, task=task, reward=RewardSection())
    solved, endless, other = [json.loads(line) for line in output.getvalue().splitlines()]
    assert (solved["reward"], solved["solved"], solved["verified"], solved["cases_passed"]) == (1.0, True, True, 2)
    assert (solved["status"], solved["stdout"]) == ("ok", "3")
    assert (endless["status"], endless["reward"], endless["solved"]) == ("timeout", -0.25, False)
    assert other["error"] == "language 'python' is not the task's, brainf"


def test_the_service_scores_and_does_not_execute_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    with EvaluatorProcess(tmp_path_factory.mktemp("evaluator"), ("sandbox.slots=1",)) as evaluator:
        evaluator.wait_until_ready()
        with evaluator.connect() as channel:
            stub: Any = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
            assert "brainf" in stub.GetCapabilities(evaluator_pb2.GetCapabilitiesRequest(), timeout=30).languages

            request = evaluator_pb2.EvaluateRequest(task_toml=TASK, sources=[b",.", b"+[]", b"."])
            scores = stub.Evaluate(request, timeout=60).scores
            assert [score.verified for score in scores] == [True, False, False]
            assert [score.reward for score in scores] == pytest.approx([1.0, -0.25, (2 - 8 / 256) / 8])
            assert scores[1].status == common_pb2.ProgramStatus.PROGRAM_STATUS_TIMEOUT

            stream = [
                evaluator_pb2.EvaluateStreamRequest(task_toml=TASK, index=0, source=b",."),
                evaluator_pb2.EvaluateStreamRequest(index=1, source=b"+" * ((1 << 20) + 1)),
                evaluator_pb2.EvaluateStreamRequest(index=2, source=b""),
            ]
            answers = {answer.index: answer for answer in stub.EvaluateStream(iter(stream), timeout=60)}
            assert answers[0].score.solved
            assert "the source has 1,048,577 bytes" in answers[1].error
            assert not answers[2].score.solved

            program = evaluator_pb2.ExecuteProgram(source=b".", language="brainf")
            with pytest.raises(grpc.RpcError) as refused:
                stub.Execute(evaluator_pb2.ExecuteRequest(programs=[program]), timeout=30)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "use Evaluate with a task" in refused.value.details()
            streamed = stub.ExecuteStream(iter([evaluator_pb2.ExecuteStreamRequest(program=program)]), timeout=30)
            assert ["use Evaluate with a task" in answer.error for answer in streamed] == [True]

            too_large = evaluator_pb2.EvaluateRequest(task_toml=TASK, sources=[b"", b"+" * ((1 << 20) + 1)])
            with pytest.raises(grpc.RpcError, match=r"sources\[1\]: the source has"):
                stub.Evaluate(too_large, timeout=30)
