"""Servers on real ports for attacks on the wire: evaluators as they are deployed, other roles in a thread."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
from evaluator_process import ALTLAS, EvaluatorProcess, free_port

from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas.rpc.security import Security
from altlas.rpc.server import RoleServer


class PortEvaluator(EvaluatorProcess):
    """An evaluator on a port; callers show `credentials` where there are some."""

    def __init__(
        self, directory: Path, settings: Sequence[str] = (), *, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log_path = directory / "e.log"
        self._credentials = credentials
        command = [ALTLAS, "serve", "evaluator", "--listen", self.address, "--metrics-port", str(self.metrics_port)]
        for setting in settings:
            command += ["--set", setting]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ALTLAS_")}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, env=environment
            )
        self.pid = self.process.pid

    def connect(self) -> grpc.Channel:
        return channel_to(self.address, self._credentials)

    def check_serves(self) -> None:
        """Make a good call on a connection of its own."""
        with self.connect() as channel:
            stub = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
            reply = stub.GetCapabilities(evaluator_pb2.GetCapabilitiesRequest(), timeout=20)
            assert reply.slots == 1


def channel_to(
    address: str,
    credentials: grpc.ChannelCredentials | None,
    *,
    options: Sequence[tuple[str, int]] = (),
    compression: grpc.Compression = grpc.Compression.NoCompression,
) -> grpc.Channel:
    """A channel of its own connection, without the limits that ours sets itself."""
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), *unlimited, *options]
    if credentials is None:
        return grpc.insecure_channel(address, options=own, compression=compression)
    return grpc.secure_channel(address, credentials, options=own, compression=compression)


@contextmanager
def in_thread(
    role: str, service_names: Sequence[str], add: Callable[[RoleServer], None], *, security: Security | None
) -> Iterator[str]:
    """The address of a role's server whose loop runs in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[RoleServer, str]:
        server = RoleServer(role, listen="127.0.0.1:0", service_names=service_names, security=security)
        add(server)
        return server, await server.start()

    server, address = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield address
    finally:
        asyncio.run_coroutine_threadsafe(server.grpc.stop(grace=None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
