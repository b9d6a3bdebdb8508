"""EvaluatorService: the same engine for callers who have no Redis.

Invariants: no call begins work that there is no room for, by one count for all of them (admission.py); a call that is
cancelled, cut or past its deadline leaves nothing waiting and nothing running; nothing here holds up the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, TypeAlias

import grpc
import grpc.aio

from altlas.config.sections import RewardSection
from altlas.core.program import Execution, Limits, Program
from altlas.core.score import Score
from altlas.core.task import BRAINF, Task, parse_task
from altlas.errors import ConfigError, OverloadedError, ProtocolError, SandboxError
from altlas.rpc.channel import MESSAGE_LIMIT_BYTES
from altlas.rpc.convert import execution_to_proto, limits_from_proto, limits_to_proto, score_to_proto
from altlas.rpc.errors import message
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas_evaluator.admission import Admission
from altlas_evaluator.answers import AnswerStream
from altlas_evaluator.engine import Batch, Executor
from altlas_evaluator.languages.registry import task_languages
from altlas_evaluator.scoring import TaskScorer, check_program
from altlas_evaluator.submission import Submission
from altlas_evaluator.waiting import WaitingThreads

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MAX_PROGRAMS = 10_000
MAX_STREAMS = 1_000
_WINDOW_PER_SLOT = 16
_WINDOW_BYTES = 32 << 20
_BYTES_PER_SLOT = 256 << 20  # in hand: requests, and answers not yet taken
_EXECUTION_BYTES = 128  # more than what an execution's message holds besides its outputs
_THREADS_PER_SLOT = 4


class EvaluatorServicer(evaluator_pb2_grpc.EvaluatorServiceServicer):
    """The evaluator's RPCs. Make it within the event loop that serves them.

    Attributes:
        admission: what the callers have in hand.
    """

    def __init__(self, executor: Executor, *, reward: RewardSection, queue_programs: int) -> None:
        self._executor = executor
        self._reward = reward
        self._most_programs = min(MAX_PROGRAMS, queue_programs)
        self.admission = Admission(
            programs=queue_programs + executor.slots, size_bytes=_BYTES_PER_SLOT * executor.slots
        )
        self._streams = 0
        self._window = _WINDOW_PER_SLOT * executor.slots
        # They wait for programs, parse and grade; the slots' own threads run the programs.
        self._threads = WaitingThreads(_THREADS_PER_SLOT * executor.slots, name="call")

    def close(self) -> None:
        """End the threads, once no call is in progress."""
        self._threads.close()

    async def Execute(self, request: evaluator_pb2.ExecuteRequest, context: Context) -> evaluator_pb2.ExecuteResponse:
        """Run programs; see the proto."""
        self._check_count(len(request.programs))
        limits = limits_from_proto(request.limits, self._executor.default_limits)
        programs = [_program(item) for item in request.programs]
        with self.admission.hold(len(programs), request.ByteSize()), self._naming_programs(programs, limits):
            submissions = self._executor.submit_now(programs, limits)
            try:
                executions = await _gather(submissions)
            except BaseException:
                self._executor.cancel(submissions)
                raise
        return evaluator_pb2.ExecuteResponse(
            executions=[execution_to_proto(execution) for execution in executions], tier=self._executor.tier
        )

    async def Evaluate(
        self, request: evaluator_pb2.EvaluateRequest, context: Context
    ) -> evaluator_pb2.EvaluateResponse:
        """Run and score programs on a task; see the proto."""
        self._check_count(len(request.sources))
        with self.admission.hold(len(request.sources), request.ByteSize()):
            task = await self._threads.run(self._parse, request.task_toml)
            programs = [Program(source=source, language=task.language) for source in request.sources]
            with _naming("sources", programs, lambda program: check_program(program, task, self._executor)):
                scores = await self._score(task, request.sources)
        return evaluator_pb2.EvaluateResponse(
            scores=[score_to_proto(score) for score in scores], tier=self._executor.tier
        )

    async def ExecuteStream(
        self, requests: AsyncIterator[evaluator_pb2.ExecuteStreamRequest], context: Context
    ) -> AsyncIterator[evaluator_pb2.ExecuteStreamResponse]:
        """Run programs as they come; see the proto."""
        with self._counted_stream():
            answers = AnswerStream(
                self._answer_execute, admission=self.admission, window=self._window, window_bytes=_WINDOW_BYTES
            )
            async with contextlib.aclosing(answers.answer_all(requests)) as responses:
                async for response in responses:
                    yield response

    async def EvaluateStream(
        self, requests: AsyncIterator[evaluator_pb2.EvaluateStreamRequest], context: Context
    ) -> AsyncIterator[evaluator_pb2.EvaluateStreamResponse]:
        """Score programs as they come; see the proto."""
        with self._counted_stream():
            first = await anext(aiter(requests), None)
            if first is None or not first.task_toml:
                raise ProtocolError("the first message of EvaluateStream must carry task_toml")
            task = await self._threads.run(self._parse, first.task_toml)

            async def answer(request: evaluator_pb2.EvaluateStreamRequest) -> evaluator_pb2.EvaluateStreamResponse:
                return await self._answer_evaluate(task, request)

            answers = AnswerStream(answer, admission=self.admission, window=self._window, window_bytes=_WINDOW_BYTES)
            async with contextlib.aclosing(answers.answer_all(_sources(first, requests))) as responses:
                async for response in responses:
                    yield response

    async def GetCapabilities(
        self, request: evaluator_pb2.GetCapabilitiesRequest, context: Context
    ) -> evaluator_pb2.GetCapabilitiesResponse:
        """Say what this evaluator can do and how it confines programs."""
        return evaluator_pb2.GetCapabilitiesResponse(
            tier=self._executor.tier,
            layers=self._executor.layers,
            languages=task_languages(),
            slots=self._executor.slots,
            ceiling=limits_to_proto(self._executor.ceiling),
        )

    async def _answer_execute(self, request: evaluator_pb2.ExecuteStreamRequest) -> evaluator_pb2.ExecuteStreamResponse:
        response = evaluator_pb2.ExecuteStreamResponse(index=request.index, tier=self._executor.tier)
        try:
            if not request.HasField("program"):
                raise ConfigError("the message has no program: set program in every message")
            limits = limits_from_proto(request.limits, self._executor.default_limits)
            execution = await self._execute(_program(request.program), limits)
            response.execution.CopyFrom(execution_to_proto(execution))
        except (ConfigError, ProtocolError, SandboxError) as error:
            response.error = message(error)
        return response

    async def _answer_evaluate(
        self, task: Task, request: evaluator_pb2.EvaluateStreamRequest
    ) -> evaluator_pb2.EvaluateStreamResponse:
        response = evaluator_pb2.EvaluateStreamResponse(index=request.index, tier=self._executor.tier)
        try:
            if not request.HasField("source"):
                raise ConfigError("the message has no source: set source in every message but the first")
            response.score.CopyFrom(score_to_proto((await self._score(task, [request.source]))[0]))
        except (ConfigError, SandboxError) as error:
            response.error = message(error)
        return response

    async def _execute(self, program: Program, limits: Limits) -> Execution:
        submission = await self._submit(program, limits)
        try:
            return (await _gather([submission]))[0]
        except BaseException:
            self._executor.cancel([submission])
            raise

    async def _submit(self, program: Program, limits: Limits) -> Submission:
        """Put a program in the queue; where jobs from Redis fill it, wait for room."""
        try:
            return self._executor.submit_now([program], limits)[0]
        except OverloadedError:
            waiting = await self._threads.start(self._executor.submit, program, limits)
        try:
            return await asyncio.wrap_future(waiting)
        except asyncio.CancelledError:
            waiting.add_done_callback(self._drop)  # nobody is there for it when it has room
            raise

    def _drop(self, waiting: Future[Submission]) -> None:
        if not waiting.cancelled() and waiting.exception() is None:
            self._executor.cancel([waiting.result()])

    async def _score(self, task: Task, sources: Sequence[bytes]) -> list[Score]:
        batch = Batch(self._executor)
        scorer = TaskScorer(batch, self._reward)
        try:
            return await self._threads.run(scorer.score, task, list(sources))
        except (CancelledError, asyncio.CancelledError):
            batch.cancel()
            raise

    def _parse(self, text: str) -> Task:
        task = parse_task(text, where="task_toml", languages=task_languages())
        check_program(Program(source=b"", language=task.language), task, self._executor)
        return task

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= self._most_programs:
            raise ProtocolError(
                f"{count:,} programs in one call: send 1 to {self._most_programs:,} (the smaller of {MAX_PROGRAMS:,} "
                "and sandbox.queue_programs), or use a stream"
            )

    def _naming_programs(self, programs: Sequence[Program], limits: Limits) -> contextlib.AbstractContextManager[None]:
        return _naming("programs", programs, lambda program: self._executor.check(program, limits))

    @contextlib.contextmanager
    def _counted_stream(self) -> Iterator[None]:
        if self._streams >= MAX_STREAMS:
            raise OverloadedError(f"{self._streams:,} streams are open, which is the most; try again when others ended")
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1


@contextlib.contextmanager
def _naming(field: str, programs: Sequence[Program], check: Callable[[Program], None]) -> Iterator[None]:
    """Say which of a call's programs an error is about."""
    try:
        yield
    except ConfigError:
        check(Program(source=b""))
        for index, program in enumerate(programs):
            try:
                check(program)
            except ConfigError as error:
                raise ConfigError(f"{field}[{index}]: {error}") from error
        raise


async def _gather(submissions: Sequence[Submission]) -> list[Execution]:
    """Return all executions; raises ProtocolError as soon as their outputs are more than one answer can carry."""
    size_bytes = 0

    async def result(submission: Submission) -> Execution:
        nonlocal size_bytes
        execution = await asyncio.wrap_future(submission)
        size_bytes += len(execution.stdout) + len(execution.stderr) + _EXECUTION_BYTES
        if size_bytes > MESSAGE_LIMIT_BYTES:
            raise ProtocolError(
                f"the programs of this call print more than the {MESSAGE_LIMIT_BYTES >> 20} MiB of one answer: "
                "send fewer in a call or in a stream, or lower limits.output_bytes"
            )
        return execution

    return await asyncio.gather(*map(result, submissions))


async def _sources(
    first: evaluator_pb2.EvaluateStreamRequest, requests: AsyncIterator[evaluator_pb2.EvaluateStreamRequest]
) -> AsyncIterator[evaluator_pb2.EvaluateStreamRequest]:
    if first.HasField("source"):
        yield first
    async for request in requests:
        if request.task_toml:
            raise ProtocolError("task_toml belongs in the first message alone; open another stream for another task")
        yield request


def _program(item: evaluator_pb2.ExecuteProgram) -> Program:
    """Return the program of a message; raises ConfigError for brainf, whose input is no text."""
    if item.language == BRAINF:
        raise ConfigError(
            "brainf programs read and write integers, which Execute does not carry: use Evaluate with a task, or "
            "`altlas execute --language brainf`"
        )
    return Program(source=item.source, language=item.language or "python", stdin=item.stdin)
