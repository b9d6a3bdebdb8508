"""EvaluatorService: the same engine for callers who have no Redis."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc
import grpc.aio

from altlas.config.sections import RewardSection, SandboxSection
from altlas.core.program import Limits, Program
from altlas.core.task import parse_task
from altlas.errors import ProtocolError
from altlas.rpc.convert import execution_to_proto, limits_from_proto, limits_to_proto, score_to_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas_evaluator import metrics
from altlas_evaluator.engine import Executor
from altlas_evaluator.scoring import TaskScorer

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MAX_PROGRAMS = 10_000


class EvaluatorServicer(evaluator_pb2_grpc.EvaluatorServiceServicer):
    """The evaluator's RPCs."""

    def __init__(self, executor: Executor, *, sandbox: SandboxSection, reward: RewardSection) -> None:
        self._executor = executor
        self._ceiling = Limits(
            cpu_s=sandbox.cpu_s,
            wall_s=sandbox.wall_s,
            memory_bytes=sandbox.memory_bytes,
            output_bytes=sandbox.output_bytes,
        )
        self._reward = reward

    async def Evaluate(
        self, request: evaluator_pb2.EvaluateRequest, context: Context
    ) -> evaluator_pb2.EvaluateResponse:
        """Run and score programs on a task; see the proto."""
        _check_count(len(request.sources))
        task = parse_task(request.task_toml, where="task_toml")
        scorer = TaskScorer(self._executor, self._reward)
        scores = await asyncio.to_thread(scorer.score, task, list(request.sources))
        return evaluator_pb2.EvaluateResponse(
            scores=[score_to_proto(score) for score in scores], tier=self._executor.tier
        )

    async def Execute(self, request: evaluator_pb2.ExecuteRequest, context: Context) -> evaluator_pb2.ExecuteResponse:
        """Run programs; see the proto."""
        _check_count(len(request.programs))
        programs = [
            Program(source=item.source, language=item.language or "python", stdin=item.stdin)
            for item in request.programs
        ]
        limits = limits_from_proto(request.limits, self._ceiling)
        executions = await asyncio.to_thread(self._executor.run, programs, limits)
        for execution in executions:
            metrics.PROGRAMS.labels(execution.status.value).inc()
        return evaluator_pb2.ExecuteResponse(
            executions=[execution_to_proto(execution) for execution in executions], tier=self._executor.tier
        )

    async def GetCapabilities(
        self, request: evaluator_pb2.GetCapabilitiesRequest, context: Context
    ) -> evaluator_pb2.GetCapabilitiesResponse:
        """Say what this evaluator can do and how it confines programs."""
        return evaluator_pb2.GetCapabilitiesResponse(
            tier=self._executor.tier,
            layers=self._executor.layers,
            languages=self._executor.languages,
            slots=self._executor.slots,
            ceiling=limits_to_proto(self._ceiling),
        )


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_PROGRAMS:
        raise ProtocolError(f"{count} programs in one call: send 1 to {MAX_PROGRAMS}")
