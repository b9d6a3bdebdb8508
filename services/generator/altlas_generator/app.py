"""The generator's process: a server around GeneratorServicer, with a channel to the trainer."""

from __future__ import annotations

from altlas.core.device import device_memory_bytes, device_utilisation_ratio
from altlas.obs.devices import watch_devices
from altlas.obs.process import serve_metrics
from altlas.rpc.channel import connect
from altlas.rpc.generator.v1 import generator_pb2, generator_pb2_grpc
from altlas.rpc.security import Security
from altlas.rpc.server import RoleServer
from altlas_generator.servicer import GeneratorServicer


async def serve(*, listen: str, trainer: str, metrics_port: int | None, security: Security | None = None) -> None:
    """Serve until SIGTERM.

    Raises:
        ConfigError: an address is taken.
    """
    server = RoleServer(
        "generator",
        listen=listen,
        service_names=[generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name],
        security=security,
    )
    async with connect(trainer, security) as channel:
        servicer = GeneratorServicer(channel)
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(servicer, server.grpc)
        watch_devices(device_memory_bytes, device_utilisation_ratio)
        serve_metrics(metrics_port, role="generator", not_ready=servicer.progress.not_ready)
        await server.start()
        await server.run()
        servicer.close()
