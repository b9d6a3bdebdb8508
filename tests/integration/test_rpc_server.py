"""What every role's server promises: health, reflection, deadlines, errors that arrive as raised, a drain."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from altlas.errors import AltlasError, CheckpointError, ConfigError, LearningError, TransientError
from altlas.rpc.channel import call, connect, wait_until_serving
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas.rpc.server import RoleServer

SERVICE = "altlas.rpc.evaluator.v1.EvaluatorService"


class Servicer(evaluator_pb2_grpc.EvaluatorServiceServicer):
    """Raises what it is told to; GetCapabilities waits until released."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.entered = asyncio.Event()
        self.release = asyncio.Event()

    async def Execute(self, request: Any, context: Any) -> Any:
        if self.error is not None:
            raise self.error
        return evaluator_pb2.ExecuteResponse(tier="test")

    async def GetCapabilities(self, request: Any, context: Any) -> Any:
        self.entered.set()
        await self.release.wait()
        return evaluator_pb2.GetCapabilitiesResponse(slots=7)


def with_server(tmp_path: Path, servicer_error: BaseException | None, body: Callable[..., Awaitable[None]]) -> None:
    async def run() -> None:
        server = RoleServer("evaluator", listen=f"unix:{tmp_path}/s", service_names=[SERVICE])
        servicer = Servicer(servicer_error)
        evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(servicer, server.grpc)
        address = await server.start()
        running = asyncio.create_task(server.run())
        async with connect(address) as channel:
            await body(channel, server, servicer, running)
        server.stop()
        await running

    asyncio.run(run())


def test_health_and_reflection_answer_without_a_deadline(tmp_path: Path) -> None:
    async def body(channel: grpc.aio.Channel, *_: Any) -> None:
        for name in ("", SERVICE):
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        replies = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
        names = {item.name async for reply in replies for item in reply.list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names

    with_server(tmp_path, None, body)


def test_a_call_without_a_deadline_is_refused(tmp_path: Path) -> None:
    async def body(channel: grpc.aio.Channel, *_: Any) -> None:
        stub = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Execute(evaluator_pb2.ExecuteRequest())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "deadline" in (caught.value.details() or "")
        assert (await stub.Execute(evaluator_pb2.ExecuteRequest(), timeout=5)).tier == "test"

    with_server(tmp_path, None, body)


@pytest.mark.parametrize("kind", [ConfigError, CheckpointError, LearningError, TransientError, AltlasError])
def test_an_error_arrives_as_the_class_that_was_raised(tmp_path: Path, kind: type[AltlasError]) -> None:
    async def body(channel: grpc.aio.Channel, *_: Any) -> None:
        stub = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
        with pytest.raises(kind) as caught:
            await call(stub.Execute(evaluator_pb2.ExecuteRequest(), timeout=5), peer="evaluator")
        assert type(caught.value) is kind
        assert str(caught.value) == "what was wrong"

    with_server(tmp_path, kind("what was wrong"), body)


def test_sigterm_stops_being_ready_and_finishes_the_call_in_progress(tmp_path: Path) -> None:
    async def body(
        channel: grpc.aio.Channel, server: RoleServer, servicer: Servicer, running: asyncio.Task[None]
    ) -> None:
        stub = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
        in_progress = asyncio.ensure_future(stub.GetCapabilities(evaluator_pb2.GetCapabilitiesRequest(), timeout=20))
        await servicer.entered.wait()
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        states = aiter(watch)
        assert (await anext(states)).status == health_pb2.HealthCheckResponse.SERVING
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await anext(states)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        assert not running.done()
        servicer.release.set()
        assert (await in_progress).slots == 7
        await running

    with_server(tmp_path, None, body)


def test_a_taken_port_is_an_error_that_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        async def run() -> None:
            server = RoleServer("trainer", listen=address, service_names=[])
            with pytest.raises(ConfigError, match=r"taken.*--listen"):
                await server.start()

        asyncio.run(run())


def test_two_servers_do_not_share_a_port() -> None:
    async def run() -> None:
        first = RoleServer("trainer", listen="127.0.0.1:0", service_names=[])
        address = await first.start()
        assert not address.endswith(":0")
        with pytest.raises(ConfigError, match="taken"):
            await RoleServer("trainer", listen=address, service_names=[]).start()
        await first.grpc.stop(grace=None)

    asyncio.run(run())


def test_a_peer_that_is_not_there_is_transient_and_named(tmp_path: Path) -> None:
    async def run() -> None:
        async with connect(f"unix:{tmp_path}/nobody") as channel:
            stub = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
            with pytest.raises(TransientError, match="evaluator"):
                await call(stub.Execute(evaluator_pb2.ExecuteRequest(), timeout=2), peer="evaluator")
        with pytest.raises(TransientError, match=r"trainer .* did not come up"):
            await wait_until_serving(f"unix:{tmp_path}/nobody", role="trainer", timeout_s=0.2)

    asyncio.run(run())
