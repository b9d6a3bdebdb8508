"""Asks a server's standard health service whether it serves: the check of docker-compose.yml.

python -m altlas.rpc.health HOST:PORT

Certificates are those of the environment, ALTLAS_SECURITY__TLS_CA and its like: a container asks its own server with
what that server has.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from altlas.config.loader import load_config
from altlas.errors import ConfigError
from altlas.rpc.security import Certificates, is_unix, load_security

_TIMEOUT_S = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when the server at the address serves; else print why not and return 1."""
    parser = argparse.ArgumentParser(prog="python -m altlas.rpc.health", description=__doc__)
    parser.add_argument("address", help="HOST:PORT or unix:PATH")
    address = parser.parse_args(arguments).address
    try:
        config = load_config(config_file=None, environ=os.environ, overrides=[])
        channel = _connect(address, load_security(config.security).certificates)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    with channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stubs name no methods
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            print(f"{address} does not answer: {error.details()}", file=sys.stderr)
            return 1
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        print(f"{address} is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}", file=sys.stderr)
        return 1
    return 0


def _connect(address: str, certificates: Certificates | None) -> grpc.Channel:
    options = [("grpc.enable_http_proxy", 0)]
    if certificates is None or is_unix(address):
        return grpc.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(certificates.authorities, certificates.key, certificates.certificate)
    return grpc.secure_channel(address, credentials, options=options)


if __name__ == "__main__":
    sys.exit(main())
