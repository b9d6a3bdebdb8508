"""The evaluator's server and worker, around an executor that is already running (see app.py for why)."""

from __future__ import annotations

import asyncio

from altlas.config.sections import Config
from altlas.obs.process import serve_metrics
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas.rpc.server import RoleServer
from altlas.transport.redis_client import connect_blocking
from altlas.transport.redis_streams import RedisJobSource
from altlas_evaluator.engine import Executor
from altlas_evaluator.servicer import EvaluatorServicer
from altlas_evaluator.worker import Worker


async def serve_with(
    executor: Executor, config: Config, *, listen: str, redis_url: str, metrics_port: int | None
) -> None:
    """Serve gRPC and, where there is a redis_url, work on its jobs, until SIGTERM.

    Raises:
        ConfigError: an address is taken.
        TransientError: Redis cannot be reached at the start.
    """
    server = RoleServer(
        "evaluator",
        listen=listen,
        service_names=[evaluator_pb2.DESCRIPTOR.services_by_name["EvaluatorService"].full_name],
    )
    servicer = EvaluatorServicer(executor, sandbox=config.sandbox, reward=config.reward)
    evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(servicer, server.grpc)
    serve_metrics(metrics_port, role="evaluator")
    if not redis_url:
        await server.start()
        await server.run()
        return
    client = connect_blocking(redis_url)
    source = RedisJobSource(client)
    worker = Worker(source, executor, name=source.worker)
    await server.start()
    working = asyncio.ensure_future(asyncio.to_thread(worker.run))
    # A worker that dies takes the process with it: an evaluator that only looks alive is worse than none.
    working.add_done_callback(lambda _: server.stop())

    async def drain() -> None:
        worker.stop()
        await asyncio.wait([working])

    await server.run(on_drain=drain)
    source.close()
    client.close()
    await working
