"""Certificates between the roles, the coordinator's token, and what is said about files that are wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from certificates import encrypted, section, write_expired, write_naming
from grpc_health.v1 import health_pb2, health_pb2_grpc

from altlas.cli.certs import make_certs
from altlas.config.sections import SecuritySection
from altlas.errors import AccessError, ConfigError, TransientError
from altlas.rpc import health
from altlas.rpc.channel import call, connect, stream, wait_until_serving
from altlas.rpc.coordinator.v1 import coordinator_pb2, coordinator_pb2_grpc
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas.rpc.generator.v1 import generator_pb2, generator_pb2_grpc
from altlas.rpc.security import ROLES, Security, load_security
from altlas.rpc.server import RoleServer
from altlas.rpc.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from altlas.transport.redis_client import connect as connect_redis
from altlas.transport.redis_client import connect_blocking


class Everything(
    coordinator_pb2_grpc.CoordinatorServiceServicer,
    evaluator_pb2_grpc.EvaluatorServiceServicer,
    generator_pb2_grpc.GeneratorServiceServicer,
    trainer_pb2_grpc.TrainerServiceServicer,
):
    """Every role's service; each method under test answers at once."""

    async def ListRuns(self, request: Any, context: Any) -> Any:
        return coordinator_pb2.ListRunsResponse()

    async def WatchRun(self, request: Any, context: Any) -> Any:
        yield coordinator_pb2.WatchRunResponse()

    async def GetCapabilities(self, request: Any, context: Any) -> Any:
        return evaluator_pb2.GetCapabilitiesResponse()

    async def Sample(self, request: Any, context: Any) -> Any:
        yield generator_pb2.SampleResponse()

    async def Learn(self, request: Any, context: Any) -> Any:
        return trainer_pb2.LearnResponse()

    async def GetPolicy(self, request: Any, context: Any) -> Any:
        yield trainer_pb2.GetPolicyResponse()


def add_everything(server: RoleServer) -> None:
    everything = Everything()
    coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(everything, server.grpc)
    evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(everything, server.grpc)
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(everything, server.grpc)
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(everything, server.grpc)


async def list_runs(channel: grpc.aio.Channel) -> None:
    stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
    await call(stub.ListRuns(coordinator_pb2.ListRunsRequest(), timeout=10), peer="server")


async def watch_run(channel: grpc.aio.Channel) -> None:
    stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
    responses = stub.WatchRun(coordinator_pb2.WatchRunRequest(), timeout=10)
    assert len([response async for response in stream(responses, peer="server")]) == 1


async def get_capabilities(channel: grpc.aio.Channel) -> None:
    stub = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
    await call(stub.GetCapabilities(evaluator_pb2.GetCapabilitiesRequest(), timeout=10), peer="server")


async def sample(channel: grpc.aio.Channel) -> None:
    responses = generator_pb2_grpc.GeneratorServiceStub(channel).Sample(generator_pb2.SampleRequest(), timeout=10)
    assert len([response async for response in stream(responses, peer="server")]) == 1


async def learn(channel: grpc.aio.Channel) -> None:
    stub = trainer_pb2_grpc.TrainerServiceStub(channel)
    await call(stub.Learn(trainer_pb2.LearnRequest(), timeout=10), peer="server")


async def get_policy(channel: grpc.aio.Channel) -> None:
    responses = trainer_pb2_grpc.TrainerServiceStub(channel).GetPolicy(trainer_pb2.GetPolicyRequest(), timeout=10)
    assert len([response async for response in stream(responses, peer="server")]) == 1


async def check_health(channel: grpc.aio.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    assert (await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status == 1


CALLS = (list_runs, watch_run, get_capabilities, sample, learn, get_policy, check_health)
MAY: dict[str, set[Callable[..., Any]]] = {
    "coordinator": {list_runs, watch_run, sample, learn, get_policy, check_health},
    "generator": {get_policy, check_health},
    "trainer": {check_health},
    "evaluator": {check_health},
    "client": {list_runs, watch_run, get_capabilities, check_health},
    "roleless": {list_runs, watch_run, check_health},
    "two-roles": {check_health},
    "unknown-role": {check_health},
}


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certs")
    make_certs(directory, hosts=["127.0.0.2"])
    # The common name of each of these is "trainer" and one of its names "coordinator": neither makes it one.
    write_naming(directory, "roleless", ["https://example.org/role/trainer"])
    write_naming(directory, "two-roles", ["altlas://role/client", "altlas://role/coordinator"])
    write_naming(directory, "unknown-role", ["altlas://role/coordinator2"])
    return directory


Body = Callable[[str], Awaitable[None]]


def serving(security: Security | None, body: Body, *, role: str = "trainer", listen: str = "127.0.0.1:0") -> None:
    async def run() -> None:
        server = RoleServer(role, listen=listen, service_names=[], security=security)
        add_everything(server)
        address = await server.start()
        try:
            await body(address)
        finally:
            await server.grpc.stop(grace=None)

    asyncio.run(run())


@pytest.mark.parametrize("role", MAY)
def test_a_role_calls_what_the_table_says_and_nothing_else(certs: Path, role: str) -> None:
    async def body(address: str) -> None:
        async with connect(address, load_security(section(certs, role))) as channel:
            for attempt in CALLS:
                if attempt in MAY[role]:
                    await attempt(channel)
                    continue
                with pytest.raises(AccessError, match=r"certificate .*role.* may not call this"):
                    await attempt(channel)

    serving(load_security(section(certs, "trainer")), body)


def test_a_server_is_believed_for_its_own_hosts_alone(certs: Path) -> None:
    security = load_security(section(certs, "coordinator"))

    async def body(address: str) -> None:
        port = address.rpartition(":")[2]
        await wait_until_serving(f"localhost:{port}", security, role="trainer", timeout_s=20)
        await wait_until_serving(f"127.0.0.2:{port}", security, role="trainer", timeout_s=20)
        with pytest.raises(AccessError, match=r"trainer at 127\.0\.0\.3.*must name the host"):
            await wait_until_serving(f"127.0.0.3:{port}", security, role="trainer", timeout_s=20)

    serving(load_security(section(certs, "trainer")), body, listen="0.0.0.0:0")


@pytest.mark.parametrize("role", ["client", "expired-trainer"])
def test_a_server_without_a_servers_certificate_is_not_believed(certs: Path, role: str) -> None:
    write_expired(certs, "trainer")

    async def body(address: str) -> None:
        async with connect(address, load_security(section(certs, "coordinator"))) as channel:
            with pytest.raises(AccessError, match=r"security\.tls_ca"):
                await learn(channel)

    serving(load_security(section(certs, role)), body)


def test_a_unix_socket_stays_plaintext_and_the_coordinators_still_asks_for_the_token(
    certs: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("secret\n")
    security = load_security(section(certs, "coordinator", token_file=f"{tmp_path}/token"))

    async def trainer(address: str) -> None:
        for own in (security, None):
            async with connect(address, own) as channel:
                await learn(channel)

    async def coordinator(address: str) -> None:
        async with connect(address, security) as channel:
            await check_health(channel)
            for attempt in (list_runs, watch_run):
                with pytest.raises(AccessError, match="token"):
                    await attempt(channel)
        async with connect(address, security, token="secret") as channel:
            await list_runs(channel)
            await watch_run(channel)

    serving(security, trainer, listen=f"unix:{tmp_path}/trainer")
    serving(security, coordinator, role="coordinator", listen=f"unix:{tmp_path}/coordinator")


@pytest.mark.parametrize("shown", ["", "wrong", "secre", "secret2", "Secret", "secret secret"])
def test_a_coordinator_asks_for_its_token(shown: str) -> None:
    async def body(address: str) -> None:
        async with connect(address, token=shown) as channel:
            for attempt in (list_runs, watch_run):
                with pytest.raises(AccessError, match=r"security\.token_file") as caught:
                    await attempt(channel)
                assert "secret" not in str(caught.value)
                cause = caught.value.__cause__
                assert isinstance(cause, grpc.aio.AioRpcError)
                assert cause.code() is grpc.StatusCode.UNAUTHENTICATED
            await check_health(channel)
        async with connect(address, token="secret") as channel:
            await list_runs(channel)
            await watch_run(channel)

    serving(Security(token="secret"), body, role="coordinator")


@pytest.mark.parametrize(
    ("listen", "is_warned"),
    [("0.0.0.0:0", True), ("[::]:0", True), ("127.0.0.1:0", False), ("localhost:0", False), ("unix:PATH", False)],
)
def test_plaintext_beyond_this_machine_is_warned_about(
    listen: str, is_warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        serving(None, _call_nothing, listen=listen.replace("PATH", f"{tmp_path}/s"))
    assert ("PLAINTEXT" in caplog.text) is is_warned
    assert ("security.tls_ca" in caplog.text) is is_warned


async def _call_nothing(address: str) -> None:
    assert address


def test_with_certificates_nothing_is_warned_about(certs: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        serving(load_security(section(certs, "trainer")), _call_nothing, listen="0.0.0.0:0")
    assert [record for record in caplog.records if record.name.startswith("altlas")] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tls_ca": ""}, "security.tls_ca not set: TLS needs all three"),
        ({"tls_ca": "", "tls_key": ""}, "security.tls_ca and security.tls_key not set"),
        ({"tls_cert": "nowhere.pem"}, "security.tls_cert = nowhere.pem cannot be read: No such file"),
        ({"tls_ca": "EMPTY"}, "security.tls_ca = .*empty holds no certificate"),
        ({"tls_ca": "CERTS/ca-key.pem"}, "security.tls_ca = .* holds no certificate"),
        ({"tls_cert": "EMPTY"}, "security.tls_cert = .* is no certificate"),
        ({"tls_cert": "CERTS/trainer-key.pem"}, "security.tls_cert = .* is no certificate"),
        ({"tls_key": "EMPTY"}, "security.tls_key = .*empty is no key"),
        ({"tls_key": "CERTS/client-key.pem"}, "security.tls_key = .*client-key.pem is no key in PEM, or not that of"),
        ({"tls_key": "ENCRYPTED"}, "security.tls_key = .*encrypted is encrypted"),
        ({"token_file": "nowhere"}, "security.token_file = nowhere cannot be read"),
        ({"token_file": "EMPTY"}, "security.token_file = .*empty is empty"),
        ({"token_file": "TWO"}, "security.token_file = .*two holds more than one word"),
        ({"token_file": "UMLAUT"}, "security.token_file = .*umlaut holds more than ASCII"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(certs: Path, tmp_path: Path, change: dict[str, str], reason: str) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "two").write_text("one\ntwo\n")
    (tmp_path / "umlaut").write_text("sch\u00f6n")
    (tmp_path / "encrypted").write_bytes(encrypted(certs / "trainer-key.pem"))
    places = {"CERTS": str(certs)} | {path.name.upper(): str(path) for path in tmp_path.iterdir()}
    for name, place in places.items():
        change = {key: value.replace(name, place) for key, value in change.items()}
    with pytest.raises(ConfigError, match=reason):
        load_security(SecuritySection(**(section(certs, "trainer").model_dump() | change)))


def test_neither_key_nor_token_is_shown(certs: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("very-secret")
    shown = repr(load_security(section(certs, "trainer", token_file=f"{tmp_path}/token")))
    assert "very-secret" not in shown
    assert "PRIVATE" not in shown


def test_certificates_are_written_for_every_role_once(tmp_path: Path) -> None:
    written = make_certs(tmp_path / "new", hosts=["gpu-1", "10.0.0.7"], days=30)
    assert {path.name for path in written} == {
        name for role in ("ca", *ROLES) for name in (f"{role}.pem", f"{role}-key.pem")
    }
    for path in written:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == (0 if "-key" in path.name else 0o044)
    for role in ROLES:
        load_security(section(tmp_path / "new", role))
    before = {path: path.read_bytes() for path in written}
    with pytest.raises(ConfigError, match=r"holds ca\.pem, .* already"):
        make_certs(tmp_path / "new")
    assert {path: path.read_bytes() for path in written} == before


@pytest.mark.parametrize("arguments", [{"days": 0}, {"days": 4000}, {"hosts": ["gr\u00fcn.example"]}])
def test_certificates_that_nobody_can_use_are_not_written(tmp_path: Path, arguments: Any) -> None:
    with pytest.raises(ConfigError, match=r"--(days|hosts)"):
        make_certs(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_the_health_check_uses_the_certificates_of_its_environment(
    certs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def check(address: str) -> int:
        return await asyncio.to_thread(health.check_health, address, timeout_s=10)

    async def body(address: str) -> None:
        assert await check(address) == 1
        for key, value in section(certs, "trainer").model_dump().items():
            monkeypatch.setenv(f"ALTLAS_SECURITY__{key.upper()}", value)
        assert await check(address) == 0
        monkeypatch.setenv("ALTLAS_SECURITY__TLS_CA", "")
        with pytest.raises(ConfigError, match=r"security\.tls_ca not set"):
            await check(address)

    serving(load_security(section(certs, "trainer")), body)
    assert "does not answer" in capsys.readouterr().err


@contextlib.asynccontextmanager
async def in_front_of(redis_url: str, certs: Path) -> AsyncIterator[int]:
    """A port that asks for certificates and leads to a Redis: not every build of the server speaks TLS itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs / "coordinator.pem", certs / "coordinator-key.pem")
    context.load_verify_locations(certs / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(1 << 16):
                writer.write(content)
                await writer.drain()
        writer.close()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_unix_connection(redis_url.removeprefix("unix://"))
        await asyncio.gather(copy(reader, redis_writer), copy(redis_reader, writer))

    async with await asyncio.start_server(lead, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


def test_redis_takes_the_same_certificates(redis_url: str, certs: Path, tmp_path: Path) -> None:
    make_certs(tmp_path)

    def ping(url: str, files: SecuritySection | None) -> None:
        with connect_blocking(url, files) as client:
            assert client.ping()

    async def main() -> None:
        async with in_front_of(redis_url, certs) as port:
            url = f"rediss://127.0.0.1:{port}/0"
            async with await connect_redis(url, section(certs, "coordinator")) as client:
                assert await client.ping()
            await asyncio.to_thread(ping, url, section(certs, "evaluator"))
            for refused in (None, SecuritySection(tls_ca=f"{certs}/ca.pem"), section(tmp_path, "evaluator")):
                with pytest.raises(TransientError, match="not reachable"):
                    await asyncio.to_thread(ping, url, refused)

    asyncio.run(main())
