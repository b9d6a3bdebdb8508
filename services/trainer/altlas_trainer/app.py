"""The trainer's process: a server around TrainerServicer."""

from __future__ import annotations

from altlas.obs.process import serve_metrics
from altlas.rpc.security import Security
from altlas.rpc.server import RoleServer
from altlas.rpc.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from altlas_trainer.servicer import TrainerServicer


async def serve(*, listen: str, metrics_port: int | None, security: Security | None = None) -> None:
    """Serve until SIGTERM.

    Raises:
        ConfigError: an address is taken.
    """
    server = RoleServer(
        "trainer",
        listen=listen,
        service_names=[trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name],
        security=security,
    )
    servicer = TrainerServicer()
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(servicer, server.grpc)
    serve_metrics(metrics_port, role="trainer")
    await server.start()
    await server.run()
    servicer.close()
