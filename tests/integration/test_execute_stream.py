"""`altlas execute` and `altlas score` as streams: one answer a line, in order, at once."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import pytest

from altlas.config.sections import RewardSection, SandboxSection
from altlas.core.program import Execution, ProgramStatus
from altlas.core.task import Task, parse_task
from altlas.errors import ConfigError, SandboxError
from altlas_evaluator import stream
from altlas_evaluator.engine import Executor
from altlas_evaluator.sandbox.supervisor import Slot
from altlas_evaluator.scoring import TaskScorer
from altlas_evaluator.stream import stream_execute, stream_score

ADD = """
name = "add"
description = "Print the sum of two numbers."
reference = "print(int(input()) + int(input()))"
[[cases]]
stdin = "1\\n2\\n"
expected_stdout = "3"
[[cases]]
stdin = "10\\n20\\n"
expected_stdout = "30"
[[held_out]]
stdin = "5\\n6\\n"
expected_stdout = "11"
"""


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(SandboxSection(slots=2)) as running:
        yield running


@pytest.fixture
def task() -> Task:
    return parse_task(ADD, where="add.toml")


def encode(records: list[Any]) -> bytes:
    return b"".join((item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n" for item in records)


def execute(executor: Executor, *records: Any) -> list[dict[str, Any]]:
    output = io.BytesIO()
    stream_execute(io.BytesIO(encode(list(records))), output, executor)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def score(executor: Executor, task: Task, *records: Any) -> list[dict[str, Any]]:
    output = io.BytesIO()
    stream_score(io.BytesIO(encode(list(records))), output, executor, task=task, reward=RewardSection())
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_execute_answers_in_order_with_every_field(executor: Executor) -> None:
    records = [
        {"id": "slow", "source": "import time\ntime.sleep(0.2)\nprint('late')"},
        {"id": 2, "source": "print(input())", "stdin": "grüße"},
        {"id": 3, "source": "x = ("},
        {"id": 4, "source": "while True: pass", "limits": {"cpu_s": 0.1}},
        {"source": "print(1)"},
    ]
    answers = execute(executor, *records)
    assert [item["id"] for item in answers] == ["slow", 2, 3, 4, None]
    assert [item["status"] for item in answers] == ["ok", "ok", "syntax_error", "timeout", "ok"]
    assert set(answers[0]) == {
        "id", "status", "exit_code", "stdout", "stderr", "cpu_s", "wall_s", "peak_memory_bytes",
    }  # fmt: skip
    assert (answers[1]["stdout"], answers[1]["exit_code"]) == ("grüße\n", 0)
    assert answers[3]["exit_code"] is None


def test_bytes_travel_as_base64(executor: Executor) -> None:
    source = base64.b64encode(b"import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read() + b'\\xff')").decode()
    stdin = base64.b64encode(b"\x00\xfe").decode()
    (answer,) = execute(executor, {"id": 1, "source_base64": source, "stdin_base64": stdin})
    assert "stdout" not in answer
    assert base64.b64decode(answer["stdout_base64"]) == b"\x00\xfe\xff"


def test_text_cut_within_a_character_stays_text(executor: Executor) -> None:
    (answer,) = execute(executor, {"id": 1, "source": "print('é' * 100)", "limits": {"output_bytes": 31}})
    assert (answer["status"], answer["stdout"]) == ("output_limit", "é" * 15)


@pytest.mark.parametrize(
    ("line", "record_id", "message"),
    [
        (b"not json", None, "JSON"),
        (b"", None, "JSON"),
        (b"\xff\xfe", None, "JSON"),
        (b'{"id": 1, "source": "x"', None, "JSON"),
        (b"[1]", None, "object"),
        (b"[" * 5000, None, "JSON"),
        ({"id": 1}, 1, "source or source_base64"),
        ({"id": 1, "source": "", "source_base64": ""}, 1, "source or source_base64"),
        ({"id": 1, "source": 5}, 1, "source"),
        ({"id": 1, "source_base64": "%%"}, 1, "source_base64"),
        ({"id": 1, "source": "", "stdin_base64": "%"}, 1, "stdin_base64"),
        ({"id": 1, "source": "", "stdin": "", "stdin_base64": ""}, 1, "not both"),
        ({"id": 1, "source": "", "sauce": 1}, 1, "sauce: unknown key"),
        ({"id": 1, "source": "", "limits": {"cpu": 1}}, 1, "limits.cpu: unknown key"),
        ({"id": 1, "source": "", "limits": {"cpu_s": "1"}}, 1, "limits.cpu_s"),
        ({"id": 1, "source": "", "limits": {"cpu_s": True}}, 1, "limits.cpu_s"),
        ({"id": 1, "source": "", "limits": {"cpu_s": 0}}, 1, "limits.cpu_s"),
        ({"id": 1, "source": "", "limits": {"wall_s": -1}}, 1, "limits.wall_s"),
        ({"id": 1, "source": "", "limits": {"cpu_s": float("nan")}}, 1, "limits.cpu_s"),
        ({"id": 1, "source": "", "limits": {"cpu_s": float("inf")}}, 1, "limits.cpu_s"),
        ({"id": 1, "source": "", "limits": {"memory_bytes": 1.5}}, 1, "limits.memory_bytes"),
        ({"id": 1, "source": "", "limits": {"memory_bytes": 10**30}}, 1, "memory_bytes"),
        ({"id": 1, "source": "", "limits": {"cpu_s": 3}}, 1, "ceiling"),
        ({"id": 1, "source": "", "limits": []}, 1, "limits"),
        ({"id": 1, "source": "", "language": "cobol"}, 1, "cobol"),
        ({"id": 1, "source": "x" * ((1 << 20) + 1)}, 1, "source_bytes"),
        ({"id": [1], "source": ""}, None, "id"),
        ({"id": True, "source": ""}, None, "id"),
        (b'{"id": 1, "source": "\\ud800"}', 1, "JSON"),
    ],
)
def test_wrong_line_gets_an_error_record_and_the_next_is_answered(
    executor: Executor, line: Any, record_id: Any, message: str
) -> None:
    good = {"id": "good", "source": "print(1)"}
    before, error, after = execute(executor, good, line, good)
    assert before["stdout"] == after["stdout"] == "1\n"
    assert set(error) == {"line", "id", "error"}
    assert (error["line"], error["id"]) == (2, record_id)
    assert message in error["error"]


def test_line_that_is_too_long_is_skipped(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LINE_BYTES", 100)
    good = {"id": 1, "source": "print(1)"}
    answers = execute(executor, good, {"id": 2, "source": "#" * 500}, good)
    assert [item.get("stdout") for item in answers] == ["1\n", None, "1\n"]
    assert "longer than 100" in answers[1]["error"]


def pipe() -> tuple[BinaryIO, BinaryIO]:
    reader, writer = os.pipe()
    return os.fdopen(reader, "rb"), os.fdopen(writer, "wb", buffering=0)


def test_each_line_is_answered_before_the_next_is_typed(executor: Executor) -> None:
    their_input, keyboard = pipe()
    screen, their_output = pipe()
    thread = threading.Thread(target=stream_execute, args=(their_input, their_output, executor))
    thread.start()
    for number in range(3):
        keyboard.write(encode([{"id": number, "source": f"print({number})"}]))
        assert json.loads(screen.readline())["stdout"] == f"{number}\n"
    keyboard.close()
    thread.join()
    for end in (their_input, their_output, screen):
        end.close()


def test_many_lines_keep_their_order(executor: Executor) -> None:
    answers = execute(executor, *({"id": n, "source": f"print({n})"} for n in range(200)))
    assert [(item["id"], item["stdout"]) for item in answers] == [(n, f"{n}\n") for n in range(200)]


def test_unknown_language_is_refused_before_reading(executor: Executor) -> None:
    with pytest.raises(ConfigError, match="cobol"):
        stream_execute(io.BytesIO(), io.BytesIO(), executor, language="cobol")


def test_score_adds_the_grade(executor: Executor, task: Task) -> None:
    answers = score(
        executor,
        task,
        {"id": "right", "source": "print(int(input()) + int(input()))"},
        {"id": "constant", "source": "print(3)"},
        {"id": "learned by heart", "source": "print(3 if input() == '1' else 30)"},
        {"id": "broken", "source": "print("},
        b"junk",
        {"id": "stdin", "source": "", "stdin": "1"},
    )
    right, constant, by_heart, broken, junk, extra = answers
    assert (right["reward"], right["solved"], right["verified"]) == (1.0, True, True)
    assert (right["cases_passed"], right["cases"], right["stdout"]) == (2, 2, "3\n")
    assert set(right["components"]) == {"syntax", "runs", "similarity", "exact"}
    assert (constant["reward"], constant["solved"], constant["cases_passed"]) == (0.3, False, 1)
    assert (by_heart["reward"], by_heart["solved"], by_heart["verified"]) == (1.0, True, False)
    assert (broken["status"], broken["reward"]) == ("syntax_error", 0.0)
    assert junk["line"] == 5
    assert "stdin: unknown key" in extra["error"]


def test_fault_of_the_sandbox_has_no_reward(executor: Executor, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Execution(status=ProgramStatus.SANDBOX_ERROR, stderr=b"the launcher died")
    monkeypatch.setattr(Slot, "run_cases", lambda *_: [fault])
    (answer,) = score(executor, task, {"id": 1, "source": "print(3)"})
    assert (answer["status"], answer["reward"]) == ("sandbox_error", None)
    assert "the launcher died" in answer["error"]
    with pytest.raises(SandboxError, match="the launcher died"):
        TaskScorer(executor, RewardSection()).score(task, [b"print(3)"])


def test_scorer_runs_equal_and_broken_sources_once(executor: Executor, task: Task) -> None:
    before = sum(executor.counters().programs.values())
    sources = [b"input(); print(3)", b"print(", b"input(); print(3)", b"print(", b"input(); print(3)"]
    scores = TaskScorer(executor, RewardSection()).score(task, sources)
    assert scores[0] == scores[2] == scores[4]
    assert scores[1] == scores[3]
    assert sum(executor.counters().programs.values()) - before == 3


def test_task_above_the_ceiling_is_refused(executor: Executor, task: Task) -> None:
    greedy = parse_task(ADD.replace("[[cases]]", "[limits]\ncpu_s = 99.0\n[[cases]]", 1), where="greedy.toml")
    with pytest.raises(ConfigError, match="cpu_s"):
        TaskScorer(executor, RewardSection()).score(greedy, [b"print(3)"])
    with pytest.raises(ConfigError, match="cpu_s"):
        score(executor, greedy, {"id": 1, "source": "print(3)"})
