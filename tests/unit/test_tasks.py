"""Built-in tasks are sound, found by name, and faults of tasks are found."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.core.task import Task, parse_task
from altlas.errors import TaskError, VocabularyError
from altlas.tasks import list_tasks, load_task, load_vocabulary_text
from altlas.tasks.check import check_task

BASICS = {
    "hello_world",
    "add_two_numbers",
    "concatenate_strings",
    "conditional_check",
    "sum_loop",
    "function_with_return",
    "list_operations",
}


STDIN = {
    "abs",
    "add_input",
    "count_char",
    "count_words",
    "countdown",
    "double",
    "echo",
    "factorial",
    "first_word",
    "fizzbuzz_line",
    "greet",
    "is_even",
    "is_palindrome",
    "last_char",
    "length",
    "max_input",
    "min_of_three",
    "repeat",
    "reverse",
    "sign",
    "spell_out",
    "square",
    "sum_to_n",
    "swap_lines",
}
PYTHON = [reference for reference in list_tasks() if load_task(reference)[0].language == "python"]


def run_here(source: str, stdin: str) -> str | None:
    """What a program of ours prints; None when it fails."""
    lines = iter(stdin.splitlines())
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            exec(compile(source, "program", "exec"), {"input": lambda: next(lines)})
    except (Exception, RecursionError):
        return None
    return output.getvalue()


def scorer(task: Task) -> Callable[[Sequence[str]], list[Score]]:
    def passes(source: str, stdin: str, expected: str) -> bool:
        output = run_here(source, stdin)
        return output is not None and output.rstrip() == expected.rstrip()

    def score(sources: Sequence[str]) -> list[Score]:
        scores = []
        for source in sources:
            passed = [passes(source, case.stdin, case.expected_stdout) for case in task.cases]
            held_out = [passes(source, case.stdin, case.expected_stdout) for case in task.held_out]
            scores.append(
                Score(
                    status=ProgramStatus.OK,
                    reward=float(all(passed)),
                    cases_passed=sum(passed),
                    cases=len(passed),
                    solved=all(passed),
                    verified=all(passed) and all(held_out),
                )
            )
        return scores

    return score


def failures(task: Task, *, max_tokens: int = 40) -> set[str]:
    findings = check_task(task, vocabulary_text=load_vocabulary_text(""), max_tokens=max_tokens, score=scorer(task))
    assert all(finding.detail for finding in findings if not finding.ok)
    return {finding.name for finding in findings if not finding.ok}


def test_the_packs_hold_the_tasks_of_the_plan() -> None:
    packs = [task.split("/") for task in list_tasks()]
    assert {name for pack, name in packs if pack == "basics"} == BASICS
    assert {name for pack, name in packs if pack == "javascript"} == BASICS
    assert {name for pack, name in packs if pack == "stdin"} == STDIN


@pytest.mark.parametrize("reference", PYTHON)
def test_a_built_in_python_task_is_sound(reference: str) -> None:
    task, _ = load_task(reference)
    assert task.name == reference.partition("/")[2]
    assert failures(task, max_tokens=task.max_tokens) == set()
    if any(case.stdin for case in task.cases):
        assert 5 <= len(task.cases) <= 10
        assert len(task.held_out) >= (8 if reference.startswith("stdin/") else 4)


@pytest.mark.parametrize("reference", PYTHON)
def test_the_reference_gives_the_expected_output_under_python(reference: str) -> None:
    task, _ = load_task(reference)
    for case in (*task.cases, *task.held_out):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", task.reference],
            input=case.stdin,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.rstrip() == case.expected_stdout.rstrip()


@pytest.mark.parametrize(
    ("reference", "shortcut"),
    [
        ("basics/add_two_numbers", "print(int(input()) + 3)"),
        ("basics/add_two_numbers", "print(max(int(input()), int(input())))"),
        ("basics/add_two_numbers", "print(input() + input())"),
        ("basics/concatenate_strings", "print(input(), input())"),
        ("basics/conditional_check", "print('hello' if int(input()) > 4 else 'world')"),
        ("basics/conditional_check", "print('hello' if int(input()) > 6 else 'world')"),
        ("basics/conditional_check", "print('hello' if int(input()) % 2 == 0 else 'world')"),
        ("basics/conditional_check", "print('hello' if len(input()) > 1 else 'world')"),
        ("basics/sum_loop", "x = 0\nfor i in range(9):\n    x += i\nprint(15)"),
        ("basics/sum_loop", "print(int(input()) * 3)"),
        ("basics/function_with_return", "x = int(input())\nprint(x * x + 1)"),
        ("basics/list_operations", "print([int(input()), int(input())])"),
        ("basics/list_operations", "print([input(), input()][::-1])"),
        ("stdin/echo", "print(input()[0:4])"),
        ("stdin/add_input", "print(int(input()) - int(input()))"),
        ("stdin/max_input", "print(max(input(), input()))"),
        ("stdin/max_input", "print(max([int(input()), 0]))"),
        ("stdin/reverse", "print(input())"),
        ("stdin/reverse", "x = input()\nprint(x[1] + x[0])"),
        ("stdin/min_of_three", "print(min(int(input()), int(input())))"),
        ("stdin/min_of_three", "x = int(input())\nprint(min(int(input()), int(input())))"),
        ("stdin/min_of_three", "print(min(input(), input(), input()))"),
        ("stdin/abs", "print(max(int(input()), 0))"),
        ("stdin/abs", "print(input()[-1:])"),
        ("stdin/is_even", "print(int(input()) % 4 == 0)"),
        ("stdin/is_even", "print(int(input()) % 3 == 2)"),
        ("stdin/count_char", "print(input().count('e'))"),
        ("stdin/count_char", "print(len(input()) // 2)"),
        ("stdin/sum_to_n", "n = int(input())\nprint(n * n // 2)"),
        ("stdin/sum_to_n", "n = int(input())\nprint(n * 2 - 1)"),
        ("stdin/factorial", "n = int(input())\nprint(n * (n + 1) // 2)"),
        ("stdin/factorial", "x = 1\nfor i in range(int(input())):\n    x += x\nprint(x)"),
        ("stdin/fizzbuzz_line", "n = int(input())\nprint('Fizz' if n % 3 == 0 else n)"),
        (
            "stdin/fizzbuzz_line",
            "n = int(input())\nx = 'Fizz' if n % 3 == 0 else n\nprint('Buzz' if n % 5 == 0 else x)",
        ),
        ("stdin/double", "print(input() * 2)"),
        ("stdin/double", "n = int(input())\nprint(n * n)"),
        ("stdin/square", "print(int(input()) * 2)"),
        ("stdin/last_char", "print(input()[1])"),
        ("stdin/length", "print(len(input()) % 9)"),
        ("stdin/repeat", "print(input() * 2)"),
        ("stdin/sign", "print(1 if int(input()) > 0 else 0)"),
        ("stdin/sign", "n = int(input())\nprint(n if n < 1 else 1)"),
        ("stdin/swap_lines", "print(input(), input())"),
        ("stdin/is_palindrome", "x = input()\nprint(x[0] == x[-1])"),
        ("stdin/countdown", "for i in range(int(input())):\n    print(i)"),
        ("stdin/spell_out", "x = input()\nprint(x[0])\nprint(x[1])"),
        ("stdin/first_word", "print(input()[:5])"),
        ("stdin/first_word", "print(input().split()[-1])"),
        ("stdin/count_words", "print(len(input()) // 4)"),
    ],
)
def test_shortcuts_do_not_solve(reference: str, shortcut: str) -> None:
    task, _ = load_task(reference)
    assert not scorer(task)([shortcut])[0].solved


def test_an_unknown_task_is_answered_with_near_names() -> None:
    with pytest.raises(TaskError, match=r"'basics/hello_wrld'; did you mean basics/hello_world or .*altlas tasks list"):
        load_task("basics/hello_wrld")
    with pytest.raises(TaskError, match=r"did you mean .*stdin/reverse"):
        load_task("reverse")
    with pytest.raises(TaskError, match="did you mean basics/hello_world or javascript/hello_world"):
        load_task("hello_world")
    with pytest.raises(TaskError, match="no task 'zzzz'; `altlas tasks list`"):
        load_task("zzzz")


def test_a_task_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    _, text = load_task("stdin/echo")
    path = tmp_path / "mine.toml"
    path.write_text(text)
    task, loaded = load_task(str(path))
    assert (task.name, loaded) == ("echo", text)
    with pytest.raises(TaskError, match=r"cannot read the task file .*other\.toml"):
        load_task(str(tmp_path / "other.toml"))
    path.write_text("name = ")
    with pytest.raises(TaskError, match=r"mine\.toml: not valid TOML"):
        load_task(str(path))


def changed(built_in: str, **fields: object) -> Task:
    task, _ = load_task(built_in)
    return Task.model_validate(task.model_dump() | fields)


@pytest.mark.parametrize(
    ("task", "failed"),
    [
        (changed("stdin/echo", reference="print(input().upper())"), "the vocabulary expresses the reference"),
        (changed("stdin/echo", reference="input()\nprint(input())"), "the grammar accepts the reference"),
        (changed("stdin/echo", reference="print('hello')"), "the reference solves every case"),
        (changed("stdin/echo", held_out=()), "a task with input has held-out cases"),
        (changed("stdin/echo", held_out=load_task("stdin/echo")[0].cases[:1]), "held-out inputs are new"),
        (
            changed("stdin/echo", held_out=[{"stdin": "q\n", "expected_stdout": "other\n"}]),
            "the reference passes the held-out cases",
        ),
        (changed("basics/hello_world", cases=[{"expected_stdout": ""}]), "the empty program does not solve it"),
    ],
)
def test_an_unsound_task_is_told_what_is_wrong(task: Task, failed: str) -> None:
    assert failed in failures(task)


def test_a_reference_longer_than_the_budget_of_tokens_is_found() -> None:
    task, _ = load_task("basics/sum_loop")
    assert failures(task, max_tokens=20) == {"the reference fits sampling.max_tokens"}


def test_a_score_that_calls_a_constant_solved_is_found() -> None:
    task, _ = load_task("stdin/echo")

    def lenient(sources: Sequence[str]) -> list[Score]:
        return [Score(status=ProgramStatus.OK, reward=1.0, solved=bool(source), verified=True) for source in sources]

    findings = check_task(task, vocabulary_text=load_vocabulary_text(""), max_tokens=40, score=lenient)
    assert {finding.name for finding in findings if not finding.ok} == {"no constant program solves it"}


def test_a_task_that_names_an_unknown_vocabulary_is_an_error() -> None:
    with pytest.raises(VocabularyError, match="no vocabulary 'pythn'; did you mean 'python'"):
        failures(changed("stdin/echo", vocabulary="pythn"))


def test_a_language_that_cannot_be_run_is_one_of_the_problems(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('language = "cobol"\n' + load_task("stdin/echo")[1].replace("description", "descripton", 1))
    with pytest.raises(TaskError, match=r"description: .*language: 'cobol' is unknown; choose from python, javascript"):
        load_task(str(path), languages=["python", "javascript"])


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "9" * 5000, "x ="])
def test_what_is_not_toml_is_a_task_error(text: str) -> None:
    with pytest.raises(TaskError, match=r"^here: not valid TOML: "):
        parse_task(text, where="here")
