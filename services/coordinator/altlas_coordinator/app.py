"""The coordinator's process: a server around CoordinatorServicer, with channels to the other roles and to Redis."""

from __future__ import annotations

from altlas.config.sections import Config
from altlas.obs.process import serve_metrics
from altlas.rpc.channel import connect
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.coordinator.v1 import coordinator_pb2, coordinator_pb2_grpc
from altlas.rpc.server import RoleServer
from altlas.transport.ports import JobQueue
from altlas.transport.redis_client import connect as connect_redis
from altlas.transport.redis_streams import RedisJobQueue
from altlas_coordinator.servicer import CoordinatorServicer


async def serve(
    config: Config, *, listen: str, redis_url: str, trainer: str, generator: str, metrics_port: int | None
) -> None:
    """Serve until SIGTERM, then stop the runs at their next update boundary, with checkpoints.

    Raises:
        ConfigError: an address is taken.
        TransientError: Redis cannot be reached.
    """
    server = RoleServer(
        "coordinator",
        listen=listen,
        service_names=[coordinator_pb2.DESCRIPTOR.services_by_name["CoordinatorService"].full_name],
    )
    client = await connect_redis(redis_url)
    crashes: list[BaseException] = []

    def open_queue(spec: common_pb2.RunSpec) -> JobQueue:
        return RedisJobQueue(
            client,
            spec.run_id,
            lease_s=config.transport.lease_s,
            max_deliveries=config.transport.max_deliveries,
        )

    def on_crash(error: BaseException) -> None:
        crashes.append(error)
        server.stop()

    async with connect(generator) as generator_channel, connect(trainer) as trainer_channel:
        servicer = CoordinatorServicer(
            generator=generator_channel, trainer=trainer_channel, open_queue=open_queue, on_crash=on_crash
        )
        coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(servicer, server.grpc)
        serve_metrics(metrics_port, role="coordinator")
        await server.start()
        await server.run(on_drain=servicer.drain)
    await client.aclose()
    if crashes:
        raise crashes[0]
