"""Asks a server's standard health service whether it serves: `altlas health`, the check of every container.

It runs every few seconds beside its server: the configuration, which takes longer to load than the rest together, is
read only where the environment names certificates. These are ALTLAS_SECURITY__TLS_CA and its like: a container asks
its own server with what that server has.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SETTINGS = "ALTLAS_SECURITY__"


def check_health(address: str, *, timeout_s: float) -> int:
    """Return 0 when the server at HOST:PORT or unix:PATH serves; else print why not and return 1.

    Raises:
        ConfigError: the certificates that the environment names are wrong.
    """
    with _connect(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stubs name no methods
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            print(f"{address} does not answer: {error.details()}", file=sys.stderr)
            return 1
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        print(f"{address} is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}", file=sys.stderr)
        return 1
    return 0


def _connect(address: str) -> grpc.Channel:
    options = [("grpc.enable_http_proxy", 0)]
    if address.startswith("unix:") or not any(name.startswith(_SETTINGS) for name in os.environ):
        return grpc.insecure_channel(address, options=options)
    from altlas.config.loader import load_config
    from altlas.rpc.security import load_security

    config = load_config(config_file=None, environ=os.environ, overrides=[])
    certificates = load_security(config.security).certificates
    if certificates is None:
        return grpc.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(certificates.authorities, certificates.key, certificates.certificate)
    return grpc.secure_channel(address, credentials, options=options)
