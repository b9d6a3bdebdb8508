"""The coordinator's process: a server around CoordinatorServicer, with channels to the other roles and to Redis."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack

from prometheus_client import REGISTRY

from altlas.config.sections import Config
from altlas.obs.process import serve_metrics
from altlas.obs.progress import LAST_PROGRESS
from altlas.rpc.channel import connect
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.coordinator.v1 import coordinator_pb2, coordinator_pb2_grpc
from altlas.rpc.security import load_security
from altlas.rpc.server import RoleServer
from altlas.transport.metrics import LEASE
from altlas.transport.ports import JobQueue
from altlas.transport.redis_client import connect as connect_redis
from altlas.transport.redis_streams import RedisJobQueue
from altlas.transport.registry import RedisRunRegistry
from altlas_coordinator.scrape import RunsCollector
from altlas_coordinator.servicer import CoordinatorServicer
from altlas_coordinator.session import Peers


async def serve(
    config: Config,
    *,
    listen: str,
    redis_url: str,
    trainer: str,
    generators: Sequence[str],
    metrics_port: int | None,
    name: str = "",
    adopt: bool = True,
    first: coordinator_pb2.CreateRunRequest | None = None,
) -> None:
    """Serve until SIGTERM, then leave the runs at their next update boundary, with checkpoints.

    Args:
        config: limits and addresses; a run brings its own configuration.
        listen, redis_url, trainer, generators, metrics_port: addresses.
        name: under which the runs are led, and which no other coordinator may have at the same time; default: host and
            address.
        adopt: go on with the runs that a coordinator of this name left under way.
        first: a run to start by itself, unless the same request has made one before.

    Raises:
        ConfigError: an address is taken, or a file of the security section is wrong.
        TransientError: Redis cannot be reached.
    """
    security = load_security(config.security)
    server = RoleServer(
        "coordinator",
        listen=listen,
        service_names=[coordinator_pb2.DESCRIPTOR.services_by_name["CoordinatorService"].full_name],
        security=security,
    )
    client = await connect_redis(redis_url, config.security)
    crashes: list[BaseException] = []

    def open_queue(spec: common_pb2.RunSpec) -> JobQueue:
        return RedisJobQueue(
            client,
            spec.run_id,
            lease_s=config.transport.lease_s,
            max_deliveries=config.transport.max_deliveries,
            window_jobs=config.transport.window_jobs,
        )

    def on_crash(error: BaseException) -> None:
        crashes.append(error)
        server.stop()

    async with AsyncExitStack() as channels:
        peers = Peers(
            [await channels.enter_async_context(connect(address, security)) for address in generators],
            await channels.enter_async_context(connect(trainer, security)),
        )
        servicer = CoordinatorServicer(
            peers=peers,
            open_queue=open_queue,
            registry=RedisRunRegistry(client),
            owner=name or f"{socket.gethostname()} {listen}",
            on_crash=on_crash,
        )
        coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(servicer, server.grpc)
        collector = RunsCollector(servicer.runs, asyncio.get_running_loop())
        LAST_PROGRESS.labels("coordinator").set_function(collector.last_progress)
        LEASE.set(config.transport.lease_s)
        serve_metrics(metrics_port, role="coordinator", not_ready=collector.not_ready)
        if adopt:
            await servicer.adopt()
        if first is not None:
            await servicer.create(first)
        # Not before it knows its runs, or the queue's counts would begin too low and seem to rise.
        REGISTRY.register(collector)
        await server.start()
        await server.run(on_drain=servicer.drain)
    await client.aclose()
    if crashes:
        raise crashes[0]
