"""What is put in an executor's queue: a program with its inputs, and the future of what comes of it."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

from altlas.core.program import Execution, Limits, Program
from altlas_evaluator.sandbox.supervisor import Slot, Ticket

Answer = TypeVar("Answer")


class Work(Future[Answer]):
    """A program that waits or runs.

    Attributes:
        ticket: aborts it once it runs.
        slot: where it runs, once it does.
        submitted_at: when it was put in the queue, by time.perf_counter.
    """

    def __init__(self, program: Program, inputs: Sequence[bytes], limits: Limits) -> None:
        super().__init__()
        self.program = program
        self.inputs = inputs
        self.limits = limits
        self.ticket = Ticket()
        self.slot: Slot | None = None
        self.submitted_at = time.perf_counter()

    @abstractmethod
    def answer(self, executions: list[Execution]) -> None:
        """Set the result."""


class Submission(Work[Execution]):
    """The execution to be of a program; `Executor.cancel` ends it early."""

    def __init__(self, program: Program, limits: Limits) -> None:
        super().__init__(program, [program.stdin], limits)

    def answer(self, executions: list[Execution]) -> None:
        self.set_result(executions[0])


class CasesSubmission(Work[list[Execution]]):
    """The executions to be of a program, one per input; `Executor.cancel` ends it early."""

    def answer(self, executions: list[Execution]) -> None:
        self.set_result(executions)


AnySubmission: TypeAlias = Work[Any]
