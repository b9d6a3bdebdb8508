"""The evaluator's server and worker, around an executor that is already running (see app.py for why)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import redis

from altlas.config.sections import Config
from altlas.obs.process import serve_metrics
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas.rpc.security import load_security
from altlas.rpc.server import RoleServer
from altlas.transport.redis_client import connect_blocking
from altlas.transport.redis_source import RedisJobSource
from altlas_evaluator import metrics
from altlas_evaluator.canary import Canary
from altlas_evaluator.engine import Executor
from altlas_evaluator.servicer import EvaluatorServicer
from altlas_evaluator.worker import Worker

# What is in hand at SIGTERM has this long to be finished, so that the process is gone within 5 s, well before whoever
# sent the signal loses patience (docker after 10 s). Jobs are given back after it, calls fail and may be repeated.
JOB_DRAIN_S = 2.5
CALL_DRAIN_S = 3.0


async def serve_with(
    executor: Executor, config: Config, *, listen: str, redis_url: str, metrics_port: int | None
) -> None:
    """Serve gRPC and, where there is a redis_url, work on its jobs, until SIGTERM.

    Raises:
        ConfigError: an address is taken, or a file of the security section is wrong.
        AccessError: Redis does not let this user do what an evaluator does.
        TransientError: Redis cannot be reached at the start.
    """
    server = RoleServer(
        "evaluator",
        listen=listen,
        service_names=[evaluator_pb2.DESCRIPTOR.services_by_name["EvaluatorService"].full_name],
        security=load_security(config.security),
    )
    servicer = EvaluatorServicer(executor, reward=config.reward, queue_programs=config.sandbox.queue_programs)
    evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(servicer, server.grpc)
    metrics.watch(executor, servicer.admission)
    canary = Canary(executor)
    checks: list[Callable[[], str]] = [canary.not_ready]
    serve_metrics(metrics_port, role="evaluator", not_ready=lambda: next(filter(None, (ask() for ask in checks)), ""))
    loop = asyncio.get_running_loop()

    def tell_health(is_ready: bool) -> None:
        asyncio.run_coroutine_threadsafe(server.set_serving(is_ready), loop)

    canary.on_change = tell_health
    try:
        if redis_url:
            await _serve_and_work(server, canary, executor, connect_blocking(redis_url, config.security), checks)
        else:
            await _serve(server, canary)
    finally:
        await asyncio.to_thread(canary.stop)
        servicer.close()


async def _serve(server: RoleServer, canary: Canary) -> None:
    await server.start()
    canary.start()
    await server.run(on_drain=lambda: server.grpc.stop(grace=CALL_DRAIN_S))


async def _serve_and_work(
    server: RoleServer, canary: Canary, executor: Executor, client: redis.Redis, checks: list[Callable[[], str]]
) -> None:
    source = RedisJobSource(client)
    worker = Worker(source, executor, name=source.worker)
    checks.append(worker.not_ready)
    await server.start()
    canary.start()
    working = asyncio.ensure_future(asyncio.to_thread(worker.run))
    # A worker that dies takes the process with it: an evaluator that only looks alive is worse than none.
    working.add_done_callback(lambda _: server.stop())

    async def drain() -> None:
        worker.stop()
        calls = asyncio.ensure_future(server.grpc.stop(grace=CALL_DRAIN_S))
        _, unfinished = await asyncio.wait([working], timeout=JOB_DRAIN_S)
        if unfinished:
            worker.give_back()
            await asyncio.wait([working])
        await calls

    await server.run(on_drain=drain)
    source.close()
    client.close()
    await working
