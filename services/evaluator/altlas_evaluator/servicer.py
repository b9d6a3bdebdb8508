"""EvaluatorService: the same engine for callers who have no Redis.

Invariants: no call begins work that the queue has no room for; a call that is cancelled, cut or past its deadline
leaves nothing waiting and nothing running; a stream holds no more than a window of programs, so that flow control
holds its caller back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio

from altlas.config.sections import RewardSection
from altlas.core.program import Execution, Limits, Program
from altlas.core.score import Score
from altlas.core.task import Task, parse_task
from altlas.errors import ConfigError, OverloadedError, ProtocolError, SandboxError
from altlas.rpc.convert import execution_to_proto, limits_from_proto, limits_to_proto, score_to_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas_evaluator.engine import Batch, Executor
from altlas_evaluator.scoring import TaskScorer

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MAX_PROGRAMS = 10_000
_WINDOW_PER_SLOT = 16

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class EvaluatorServicer(evaluator_pb2_grpc.EvaluatorServiceServicer):
    """The evaluator's RPCs."""

    def __init__(self, executor: Executor, *, reward: RewardSection) -> None:
        self._executor = executor
        self._reward = reward
        self._window = _WINDOW_PER_SLOT * executor.slots
        # Its threads only wait for programs and grade them; the slots' own run them.
        self._scoring = ThreadPoolExecutor(4 * executor.slots, thread_name_prefix="score")

    def close(self) -> None:
        """End the threads, once no call is in progress."""
        self._scoring.shutdown()

    async def Execute(self, request: evaluator_pb2.ExecuteRequest, context: Context) -> evaluator_pb2.ExecuteResponse:
        """Run programs; see the proto."""
        _check_count(len(request.programs))
        limits = limits_from_proto(request.limits, self._executor.default_limits)
        submissions = self._executor.submit_now([_program(item) for item in request.programs], limits)
        try:
            executions = await asyncio.gather(*map(asyncio.wrap_future, submissions))
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
        _check_count(len(request.sources))
        task = self._task(request.task_toml)
        self._executor.require_room(len(request.sources))
        scores = await self._score(task, request.sources)
        return evaluator_pb2.EvaluateResponse(
            scores=[score_to_proto(score) for score in scores], tier=self._executor.tier
        )

    def ExecuteStream(
        self, requests: AsyncIterator[evaluator_pb2.ExecuteStreamRequest], context: Context
    ) -> AsyncIterator[evaluator_pb2.ExecuteStreamResponse]:
        """Run programs as they come; see the proto."""
        return _answer_all(requests, self._answer_execute, window=self._window)

    async def EvaluateStream(
        self, requests: AsyncIterator[evaluator_pb2.EvaluateStreamRequest], context: Context
    ) -> AsyncIterator[evaluator_pb2.EvaluateStreamResponse]:
        """Score programs as they come; see the proto."""
        first = await anext(aiter(requests), None)
        if first is None or not first.task_toml:
            raise ProtocolError("the first message of EvaluateStream must carry task_toml")
        task = self._task(first.task_toml)

        async def items() -> AsyncIterator[evaluator_pb2.EvaluateStreamRequest]:
            if first.HasField("source"):
                yield first
            async for request in requests:
                if request.task_toml:
                    raise ProtocolError("task_toml belongs in the first message alone; open another stream")
                yield request

        async def answer(request: evaluator_pb2.EvaluateStreamRequest) -> evaluator_pb2.EvaluateStreamResponse:
            response = evaluator_pb2.EvaluateStreamResponse(index=request.index, tier=self._executor.tier)
            try:
                if not request.HasField("source"):
                    raise ConfigError("the message has no source")
                response.score.CopyFrom(score_to_proto((await self._score(task, [request.source]))[0]))
            except (ConfigError, SandboxError) as error:
                response.error = str(error)
            return response

        async for response in _answer_all(items(), answer, window=self._window):
            yield response

    async def GetCapabilities(
        self, request: evaluator_pb2.GetCapabilitiesRequest, context: Context
    ) -> evaluator_pb2.GetCapabilitiesResponse:
        """Say what this evaluator can do and how it confines programs."""
        return evaluator_pb2.GetCapabilitiesResponse(
            tier=self._executor.tier,
            layers=self._executor.layers,
            languages=self._executor.languages,
            slots=self._executor.slots,
            ceiling=limits_to_proto(self._executor.ceiling),
        )

    async def _answer_execute(self, request: evaluator_pb2.ExecuteStreamRequest) -> evaluator_pb2.ExecuteStreamResponse:
        response = evaluator_pb2.ExecuteStreamResponse(index=request.index, tier=self._executor.tier)
        try:
            if not request.HasField("program"):
                raise ConfigError("the message has no program")
            limits = limits_from_proto(request.limits, self._executor.default_limits)
            execution = await self._execute(_program(request.program), limits)
            response.execution.CopyFrom(execution_to_proto(execution))
        except (ConfigError, SandboxError) as error:
            response.error = str(error)
        return response

    async def _execute(self, program: Program, limits: Limits) -> Execution:
        try:
            submission = self._executor.submit_now([program], limits)[0]
        except OverloadedError:  # wait for room, which must not hold up the event loop
            submission = await asyncio.to_thread(self._executor.submit, program, limits)
        try:
            return await asyncio.wrap_future(submission)
        except BaseException:
            self._executor.cancel([submission])
            raise

    async def _score(self, task: Task, sources: Sequence[bytes]) -> list[Score]:
        batch = Batch(self._executor)
        scorer = TaskScorer(batch, self._reward)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._scoring, scorer.score, task, list(sources))
        except (CancelledError, asyncio.CancelledError):
            batch.cancel()
            raise

    def _task(self, text: str) -> Task:
        task = parse_task(text, where="task_toml")
        self._executor.check(Program(source=b"", language=task.language), task.program_limits)
        return task


async def _answer_all(
    requests: AsyncIterator[Item], answer: Callable[[Item], Any], *, window: int
) -> AsyncIterator[Any]:
    """Yield answers as they end. Answers not yet read count for the window: a slow reader stops new work."""
    ready: asyncio.Queue[Any] = asyncio.Queue()
    room = asyncio.Semaphore(window)
    end = object()

    async def work(request: Item) -> None:
        await ready.put(await answer(request))

    async def read(group: asyncio.TaskGroup) -> None:
        async for request in requests:
            await room.acquire()
            group.create_task(work(request))

    async def read_all() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                await read(group)
        except BaseExceptionGroup as errors:
            await ready.put(errors.exceptions[0])
        except Exception as error:
            await ready.put(error)
        else:
            await ready.put(end)

    reader = asyncio.ensure_future(read_all())
    try:
        while (item := await ready.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item
            room.release()
    finally:
        reader.cancel()
        await asyncio.wait([reader])


def _program(item: evaluator_pb2.ExecuteProgram) -> Program:
    return Program(source=item.source, language=item.language or "python", stdin=item.stdin)


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_PROGRAMS:
        raise ProtocolError(f"{count} programs in one call: send 1 to {MAX_PROGRAMS}")
