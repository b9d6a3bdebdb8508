"""Programs through the sandbox and the scorer: what is run, and what it earns."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from run_processes import children

from altlas.config.sections import RewardSection, SandboxSection
from altlas.core.program import Execution, Limits, Program, ProgramStatus
from altlas.core.task import parse_task
from altlas_evaluator.engine import Executor
from altlas_evaluator.scoring import TaskScorer

DOUBLE = parse_task(
    """
    name = "double"
    description = "Print twice the number."
    reference = "print(2 * int(input()))"
    cases = [{stdin = "1\\n", expected_stdout = "2"}, {stdin = "4\\n", expected_stdout = "8"},
             {stdin = "0\\n", expected_stdout = "0"}]
    held_out = [{stdin = "21\\n", expected_stdout = "42"}]
    """,
    where="test",
)


class CountingExecutor:
    """The executor, with a note of every program that was run."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.ran: list[bytes] = []

    def run_cases(self, programs: Sequence[Program], inputs: Sequence[bytes], limits: Limits) -> list[list[Execution]]:
        self.ran += [program.source for program in programs for _ in inputs]
        return self._executor.run_cases(programs, inputs, limits)


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(SandboxSection(slots=1)) as running:
        yield running


@pytest.mark.parametrize(
    ("source", "runs"),
    [
        (b"print(2 * int(input()))", 4),
        (b"print(int(input()))", 3),
        (b"print(2)", 1),
        (b"while True: pass", 1),
        (b"print(", 1),
        (b"print(open(0).read())", 3),
        (b"1 / 0", 1),
    ],
)
def test_a_program_is_run_as_often_as_its_verdict_needs(executor: Executor, source: bytes, runs: int) -> None:
    counting = CountingExecutor(executor)
    TaskScorer(counting, RewardSection()).score(DOUBLE, [source, source])
    assert counting.ran == [source] * runs


def test_a_program_that_leaves_its_input_unread_scores_as_if_run_on_every_case(executor: Executor) -> None:
    unread, read = TaskScorer(executor, RewardSection()).score(DOUBLE, [b"print(2)", b"input(); print(2)"])
    assert unread == read
    assert (unread.cases_passed, unread.cases, unread.solved) == (1, 3, False)


def test_solved_and_verified_are_told_apart(executor: Executor) -> None:
    honest = b"print(2 * int(input()))"
    learned_by_heart = b"n = int(input()); print({1: 2, 4: 8, 0: 0}.get(n, 7))"
    sound, unsound = TaskScorer(executor, RewardSection()).score(DOUBLE, [honest, learned_by_heart])
    assert (sound.solved, sound.verified, sound.reward) == (True, True, 1.0)
    assert (unsound.solved, unsound.verified) == (True, False)


def test_a_loop_without_end_is_a_timeout_on_every_case(executor: Executor) -> None:
    (score,) = TaskScorer(executor, RewardSection()).score(DOUBLE, [b"while True: pass"])
    assert score.status is ProgramStatus.TIMEOUT
    assert score.components["runs"] == 0.0


BUSY = parse_task(
    """
    name = "busy"
    description = "Compute for a while."
    reference = "print(sum(range(10**6)) % 7)"
    cases = [{expected_stdout = "0"}]
    limits = {wall_s = 1.0}
    """,
    where="test",
)


def stop_next_program(launcher: int, ready: threading.Event, stopped: list[int]) -> None:
    """Stop the next program that a launcher runs, as a machine without time for it would."""
    there = set(children(launcher))
    ready.set()
    deadline = time.monotonic() + 20
    while not stopped and time.monotonic() < deadline:
        for pid in children(launcher).keys() - there:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)


def test_a_program_that_the_machine_held_up_is_run_again(executor: Executor) -> None:
    source = BUSY.reference.encode()
    counting = CountingExecutor(executor)
    ready, stopped = threading.Event(), list[int]()
    thread = threading.Thread(target=stop_next_program, args=(executor.launcher_pids()[0], ready, stopped))
    thread.start()
    assert ready.wait(20)
    (score,) = TaskScorer(counting, RewardSection()).score(BUSY, [source])
    thread.join()
    assert stopped
    assert counting.ran == [source] * 2
    assert (score.status, score.solved) == (ProgramStatus.OK, True)


def test_a_program_that_sleeps_is_a_timeout_at_its_second_run(executor: Executor) -> None:
    source = b"import time\ntime.sleep(9)"
    counting = CountingExecutor(executor)
    (score,) = TaskScorer(counting, RewardSection()).score(BUSY, [source])
    assert counting.ran == [source] * 2
    assert score.status is ProgramStatus.TIMEOUT
