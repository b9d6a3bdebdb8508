"""`altlas health`, the check of containers: exit status 0 only for a server that serves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from altlas.cli.main import app
from altlas.errors import ConfigError
from altlas.rpc.health import check_health


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/socket"


@pytest.fixture
def servicer(address: str) -> Iterator[health.HealthServicer]:
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(address)
    server.start()
    yield servicer
    server.stop(grace=None).wait()


def test_a_serving_server_is_healthy(servicer: health.HealthServicer, address: str) -> None:
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    assert CliRunner().invoke(app, ["health", address]).exit_code == 0


def test_a_draining_server_is_not(
    servicer: health.HealthServicer, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert check_health(address, timeout_s=3.0) == 1
    assert f"{address} is NOT_SERVING" in capsys.readouterr().err


def test_no_server_is_not(address: str) -> None:
    result = CliRunner().invoke(app, ["health", address, "--timeout", "1"])
    assert result.exit_code == 1
    assert f"{address} does not answer" in result.stderr


def test_certificates_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALTLAS_SECURITY__TLS_CA", "nowhere.pem")
    with pytest.raises(ConfigError, match=r"security\.tls_cert and security\.tls_key not set"):
        check_health("127.0.0.1:1", timeout_s=1.0)
