"""Programs on their way to an evaluator: what is sent for each, and what its answer stands for.

Invariant: every program of a batch either waits in `left` or has its one result in `results`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from altlas.client.messages import execution_from_proto
from altlas.core.program import Execution, Limits, Program, ProgramStatus
from altlas.core.score import Score
from altlas.errors import ConfigError, ProtocolError, SandboxError
from altlas.rpc.channel import MESSAGE_LIMIT_BYTES, call
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.convert import limits_to_proto, score_from_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2

Item = TypeVar("Item")
Result = TypeVar("Result")
# What a message holds beside source and input.
_MARGIN_BYTES = 1 << 10


class RefusedProgramError(ConfigError):
    """The evaluator refuses a program of a batch: too large, a limit above its ceiling, a language it does not know.

    Attributes:
        index: which program, counted from 0.
    """

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(f"program {index}: {message}")
        self.index = index


class Batch(ABC, Generic[Item, Result]):
    """A call's programs by index: those without an answer, and the results of the others."""

    def __init__(self, items: Mapping[int, Item]) -> None:
        self.left = dict(items)
        self.results: dict[int, Result] = {}

    @abstractmethod
    def open_stream(self, stub: Any, *, timeout_s: float) -> Any:
        """Return a streaming call that sends everything that is left."""

    @abstractmethod
    def read(self, response: Any) -> Result:
        """Return the result that a response carries.

        Raises:
            SandboxError: the sandbox failed.
        """

    @abstractmethod
    async def ask_alone(self, stub: Any, index: int, *, peer: str, timeout_s: float) -> Result:
        """Run one program by a call of its own, whose error has a class."""

    async def take(self, stub: Any, response: Any, *, peer: str, timeout_s: float) -> None:
        """Take an answer from the stream.

        Raises:
            RefusedProgramError: the evaluator refuses this program.
            SandboxError: the sandbox failed on it.
            ProtocolError: nobody asked for this answer.
        """
        index = response.index
        if index not in self.left:
            raise ProtocolError(f"{peer} answered for program {index}, which it was not asked for")
        try:
            if response.WhichOneof("outcome") == "error":
                # On the stream an error is a text without a class.
                result = await self.ask_alone(stub, index, peer=peer, timeout_s=timeout_s)
            else:
                result = self.read(response)
        except ConfigError as error:
            raise RefusedProgramError(response.error or str(error), index=index) from error
        except SandboxError as error:
            raise SandboxError(f"program {index}: {response.error or error}") from error
        self.results[index] = result
        del self.left[index]


class ExecuteBatch(Batch[Program, Execution]):
    """Programs to run."""

    def __init__(self, programs: Sequence[Program], limits: Limits | None) -> None:
        """Check what can be checked here.

        Raises:
            RefusedProgramError: a program is too large to be sent.
            ConfigError: a limit that cannot be sent.
        """
        for index, program in enumerate(programs):
            _check_size(index, len(program.source) + len(program.stdin))
        try:
            self._limits = None if limits is None else limits_to_proto(limits)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{limits}: {error}") from error
        super().__init__(dict(enumerate(programs)))

    def open_stream(self, stub: Any, *, timeout_s: float) -> Any:
        return stub.ExecuteStream(self._requests(), timeout=timeout_s)

    async def _requests(self) -> AsyncIterator[evaluator_pb2.ExecuteStreamRequest]:
        for index, program in list(self.left.items()):
            yield evaluator_pb2.ExecuteStreamRequest(index=index, program=_to_proto(program), limits=self._limits)

    def read(self, response: evaluator_pb2.ExecuteStreamResponse) -> Execution:
        return _read_execution(response.execution)

    async def ask_alone(self, stub: Any, index: int, *, peer: str, timeout_s: float) -> Execution:
        request = evaluator_pb2.ExecuteRequest(programs=[_to_proto(self.left[index])], limits=self._limits)
        response = await call(stub.Execute(request, timeout=timeout_s), peer=peer)
        return _read_execution(response.executions[0])


class EvaluateBatch(Batch[bytes, Score]):
    """Programs to score on a task. Equal sources are sent once: programs run deterministically."""

    def __init__(self, task_toml: str, sources: Sequence[bytes]) -> None:
        """Check what can be checked here.

        Raises:
            RefusedProgramError: a program is too large to be sent.
        """
        first: dict[bytes, int] = {}
        for index, source in enumerate(sources):
            _check_size(index, len(source))
            first.setdefault(source, index)
        super().__init__({index: source for source, index in first.items()})
        self._task_toml = task_toml
        self._sent_as = [first[source] for source in sources]

    def open_stream(self, stub: Any, *, timeout_s: float) -> Any:
        return stub.EvaluateStream(self._requests(), timeout=timeout_s)

    async def _requests(self) -> AsyncIterator[evaluator_pb2.EvaluateStreamRequest]:
        yield evaluator_pb2.EvaluateStreamRequest(task_toml=self._task_toml)
        for index, source in list(self.left.items()):
            yield evaluator_pb2.EvaluateStreamRequest(index=index, source=source)

    def read(self, response: evaluator_pb2.EvaluateStreamResponse) -> Score:
        return _read_score(response.score)

    async def ask_alone(self, stub: Any, index: int, *, peer: str, timeout_s: float) -> Score:
        request = evaluator_pb2.EvaluateRequest(task_toml=self._task_toml, sources=[self.left[index]])
        response = await call(stub.Evaluate(request, timeout=timeout_s), peer=peer)
        return _read_score(response.scores[0])

    def scores(self) -> list[Score]:
        """Return a score per source, in their order."""
        return [self.results[index] for index in self._sent_as]


def _to_proto(program: Program) -> evaluator_pb2.ExecuteProgram:
    return evaluator_pb2.ExecuteProgram(source=program.source, language=program.language, stdin=program.stdin)


def _read_execution(message: evaluator_pb2.Execution) -> Execution:
    execution = execution_from_proto(message)
    if execution.status is ProgramStatus.SANDBOX_ERROR:
        raise SandboxError(execution.stderr.decode(errors="replace"))
    return execution


def _read_score(message: common_pb2.Score) -> Score:
    score = score_from_proto(message)
    if score.status is ProgramStatus.SANDBOX_ERROR:
        raise SandboxError(score.error)
    return score


def _check_size(index: int, size_bytes: int) -> None:
    most = MESSAGE_LIMIT_BYTES - _MARGIN_BYTES
    if size_bytes > most:
        text = f"source and input have {size_bytes:,} bytes; at most {most:,} can be sent"
        raise RefusedProgramError(text, index=index)
