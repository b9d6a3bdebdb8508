"""One way to serve: health, reflection, interceptors, a bound address that says when it is taken, and a drain on
SIGTERM or SIGINT: not ready first, then calls in progress finish, then the process may exit 0.

Invariant: with certificates, a server on a port speaks to nobody who shows none of an authority that it believes.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from altlas.errors import ConfigError
from altlas.rpc.channel import KEEPALIVE_MS, MESSAGE_LIMIT_BYTES
from altlas.rpc.interceptors import CallInterceptor
from altlas.rpc.security import Certificates, Security, is_of_this_machine, is_unix

LOGGER = logging.getLogger(__name__)
DRAIN_S = 10.0

_OPTIONS = (
    # Two servers must not share a port in silence.
    ("grpc.so_reuseport", 0),
    # Of more than 1,000 calls that wait to be looked at, gRPC cancels some without a word; a role refuses by name.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    # Nothing of ours is compressed; of what is, the limit above counts the bytes that arrive and not what they become.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    # A connection that opens and says nothing holds a descriptor: two minutes of it by default.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A caller of ours asks this often whether we are there; by default that ends its connection.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
)


class RoleServer:
    """A role's gRPC server. Not serving until `start`; `run` returns after a drain.

    With certificates in `security` it asks for them, but on a unix socket; the coordinator asks for the token as well.
    """

    def __init__(
        self, role: str, *, listen: str, service_names: Sequence[str], security: Security | None = None
    ) -> None:
        self.role = role
        self.listen = listen
        self._certificates = None if is_unix(listen) or security is None else security.certificates
        token = security.token if security is not None and role == "coordinator" else ""
        guard = CallInterceptor(has_certificates=self._certificates is not None, token=token)
        self.grpc = grpc.aio.server(interceptors=(guard,), options=_OPTIONS)
        self._service_names = tuple(service_names)
        self._health = HealthServicer()
        self._stopping = asyncio.Event()

    async def start(self) -> str:
        """Binds, starts and reports healthy; returns the address bound, with the port chosen when 0 was asked for.

        Raises:
            ConfigError: the address is taken or not one of this machine's.
        """
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        reflection.enable_server_reflection(
            (*self._service_names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME),
            self.grpc,
        )
        try:
            port = self._add_port()
        except RuntimeError as error:
            raise ConfigError(
                f"{self.role}: cannot listen on {self.listen}: the port is taken or the address is not this machine's; "
                "stop what listens there or choose another with --listen HOST:PORT (port 0 takes a free one)"
            ) from error
        await self.grpc.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        address = self.listen if self.listen.startswith("unix:") else f"{self.listen.rpartition(':')[0]}:{port}"
        LOGGER.info("%s serves on %s", self.role, address)
        return address

    def _add_port(self) -> int:
        if self._certificates is not None:
            return self.grpc.add_secure_port(self.listen, _credentials(self._certificates))
        if not is_of_this_machine(self.listen):
            LOGGER.warning(
                "%s LISTENS IN PLAINTEXT ON %s: WHOEVER REACHES THIS ADDRESS MAY READ AND MAKE CALLS. Set "
                "security.tls_ca, security.tls_cert and security.tls_key (`altlas certs DIR` makes them), or listen on "
                "127.0.0.1 or unix:PATH; see docs/security.md",
                self.role,
                self.listen,
            )
        return self.grpc.add_insecure_port(self.listen)

    async def run(self, *, on_drain: Callable[[], Awaitable[None]] | None = None) -> None:
        """Serves until SIGTERM or SIGINT (or `stop`), then drains: not ready, `on_drain`, calls in progress, done."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        await self._stopping.wait()
        LOGGER.info("%s drains", self.role)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        if on_drain is not None:
            await on_drain()
        await self.grpc.stop(grace=DRAIN_S)
        LOGGER.info("%s has drained", self.role)

    async def set_serving(self, is_serving: bool) -> None:
        """Tells the health service whether the role can do its work; ignored once it drains."""
        if not self._stopping.is_set():
            states = health_pb2.HealthCheckResponse
            await self._set_health(states.SERVING if is_serving else states.NOT_SERVING)

    def stop(self) -> None:
        """Asks `run` to drain and return."""
        self._stopping.set()

    async def _set_health(self, status: int) -> None:
        for name in ("", *self._service_names):
            await self._health.set(name, status)


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(certificates.key, certificates.certificate)],
        root_certificates=certificates.authorities,
        require_client_auth=True,
    )
