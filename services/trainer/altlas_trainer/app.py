"""The trainer's process: a server around TrainerServicer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from altlas.core.device import device_memory_bytes, device_utilisation_ratio
from altlas.obs.devices import watch_devices
from altlas.obs.process import serve_metrics
from altlas.rpc.security import Security
from altlas.rpc.server import RoleServer
from altlas.rpc.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from altlas_trainer.servicer import TrainerServicer

if TYPE_CHECKING:
    from altlas_trainer.replicas import Leader

# Of the time after which the other processes take this one for gone.
_WAIT_SHARE = 0.25


async def serve(
    *, listen: str, metrics_port: int | None, security: Security | None = None, leader: Leader | None = None
) -> None:
    """Serve until SIGTERM; with a `leader`, for all of its processes, which then end too.

    Raises:
        ConfigError: an address is taken.
    """
    server = RoleServer(
        "trainer",
        listen=listen,
        service_names=[trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name],
        security=security,
    )
    servicer = TrainerServicer(leader)
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(servicer, server.grpc)
    watch_devices(device_memory_bytes, device_utilisation_ratio)
    try:
        serve_metrics(metrics_port, role="trainer", not_ready=servicer.progress.not_ready)
        await server.start()
        waiting = (
            None if leader is None else asyncio.create_task(servicer.keep_waiting(leader.patience_s * _WAIT_SHARE))
        )
        await server.run()
        if waiting is not None:
            waiting.cancel()
    finally:
        servicer.close()
