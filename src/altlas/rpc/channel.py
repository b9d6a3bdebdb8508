"""Channels to other roles, and calls on them whose failures are AltlasErrors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from altlas.errors import AccessError, TransientError
from altlas.rpc.errors import from_rpc_error
from altlas.rpc.interceptors import token_interceptors
from altlas.rpc.security import Security, is_unix

MESSAGE_LIMIT_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
KEEPALIVE_MS = 10_000

_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    # A proxy from the environment has no business between roles.
    ("grpc.enable_http_proxy", 0),
    # Without a cap a peer that was away for long is found again only minutes after its return.
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A host that falls silent ends no connection: a call would wait for it until its deadline, while others are there.
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_MS // 2),
    ("grpc.http2.max_pings_without_data", 0),
)

T = TypeVar("T")


def connect(address: str, security: Security | None = None, *, token: str = "") -> grpc.aio.Channel:
    """Return a channel to HOST:PORT or unix:PATH. Connects when first used.

    With certificates in `security` the server has to prove that it is HOST, and is shown ours; a unix socket stays
    plaintext. Calls show `token`, which is the coordinator's and nobody else's business.
    """
    interceptors = token_interceptors(token) if token else None
    certificates = security.certificates if security else None
    if certificates is None or is_unix(address):
        return grpc.aio.insecure_channel(address, options=_OPTIONS, interceptors=interceptors)
    credentials = grpc.ssl_channel_credentials(certificates.authorities, certificates.key, certificates.certificate)
    return grpc.aio.secure_channel(address, credentials, options=_OPTIONS, interceptors=interceptors)


async def call(awaitable: Awaitable[T], *, peer: str) -> T:
    """Await a unary call.

    Raises:
        AltlasError: the class that the server raised, or TransientError when it could not be reached in time.
    """
    try:
        return await awaitable
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer=peer) from error


async def stream(responses: AsyncIterator[T], *, peer: str) -> AsyncIterator[T]:
    """Iterate over a streaming call; raises as `call` does."""
    try:
        async for response in responses:
            yield response
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer=peer) from error


async def wait_until_serving(
    address: str,
    security: Security | None = None,
    *,
    role: str,
    timeout_s: float,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Wait until a role's health service says SERVING; `check` runs between tries and may raise.

    Raises:
        AccessError: what answers there cannot prove who it is.
        TransientError: not serving within timeout_s.
    """
    deadline = time.monotonic() + timeout_s
    async with connect(address, security) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # the stubs know no methods of it
        while True:
            check()
            try:
                reply = await health.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
                if reply.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.aio.AioRpcError as error:
                failure = from_rpc_error(error, peer=f"{role} at {address}")
                if isinstance(failure, AccessError):
                    raise failure from error
                # Else it is not up yet: the deadline below decides.
            if time.monotonic() > deadline:
                raise TransientError(f"{role} at {address} did not come up within {timeout_s:.0f} s")
            await asyncio.sleep(0.05)
