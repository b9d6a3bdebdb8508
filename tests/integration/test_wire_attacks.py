"""What a stranger may send to a role's port. Each attack gets its status or a closed connection, and the next caller
an answer. What lies in Redis is attacked in test_queue_attacks.py.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import credentials, section, settings, write_expired, write_self_signed
from evaluator_process import wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc
from wire_servers import PortEvaluator, channel_to, in_thread

from altlas.cli.certs import make_certs
from altlas.rpc.channel import MESSAGE_LIMIT_BYTES
from altlas.rpc.coordinator.v1 import coordinator_pb2, coordinator_pb2_grpc
from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from altlas.rpc.security import load_security
from altlas.rpc.server import RoleServer
from altlas.rpc.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from altlas.transport.memory import MemoryTransport
from altlas.transport.memory_registry import MemoryRunRegistry
from altlas_coordinator.servicer import CoordinatorServicer
from altlas_coordinator.session import Peers
from altlas_trainer.servicer import TrainerServicer

CODES = grpc.StatusCode
EVALUATOR = "/altlas.rpc.evaluator.v1.EvaluatorService"
TRAINER = "/altlas.rpc.trainer.v1.TrainerService"
COORDINATOR = "/altlas.rpc.coordinator.v1.CoordinatorService"
TIMEOUT_S = 20.0
# RoleServer gives a handshake 10 s.
HANDSHAKE_S = 18.0
# A role's own answer to a call about a run that it does not have.
PAST_THE_DOOR = {CODES.INVALID_ARGUMENT, CODES.FAILED_PRECONDITION, CODES.NOT_FOUND}
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certs")
    make_certs(directory)
    make_certs(directory / "other")
    write_expired(directory, "client")
    write_self_signed(directory, "client")
    (directory / "token").write_text(TOKEN)
    return directory


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortEvaluator]:
    with PortEvaluator(tmp_path_factory.mktemp("plain"), ["sandbox.slots=1"]) as process:
        process.wait_until_ready()
        yield process


@pytest.fixture(scope="module")
def guarded(certs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortEvaluator]:
    own = ["sandbox.slots=1", *settings(certs, "evaluator")]
    directory = tmp_path_factory.mktemp("guarded")
    with PortEvaluator(directory, own, credentials=credentials(certs, "client")) as process:
        process.wait_until_ready()
        yield process


@pytest.fixture(scope="module")
def trainer(certs: Path) -> Iterator[str]:
    """The real trainer's service, without a run, behind certificates."""
    servicer = TrainerServicer()

    def add(server: RoleServer) -> None:
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(servicer, server.grpc)

    with in_thread("trainer", [], add, security=load_security(section(certs, "trainer"))) as address:
        yield address
    servicer.close()


@pytest.fixture(scope="module")
def coordinator(certs: Path) -> Iterator[str]:
    """The real coordinator's service behind certificates and a token; its peers are away."""
    transport = MemoryTransport()

    def add(server: RoleServer) -> None:
        away = grpc.aio.insecure_channel("unix:/nowhere")
        servicer = CoordinatorServicer(
            peers=Peers([away], away),
            open_queue=lambda spec: transport.queue(spec.run_id),
            registry=MemoryRunRegistry(),
            owner="test",
            on_crash=lambda _: None,
        )
        coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server(servicer, server.grpc)

    security = load_security(section(certs, "coordinator", token_file=f"{certs}/token"))
    with in_thread("coordinator", [], add, security=security) as address:
        yield address


def status_of(call: Callable[[], object]) -> grpc.StatusCode:
    """The status that a call ends with, within its time."""
    started = time.monotonic()
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    finally:
        assert time.monotonic() - started < TIMEOUT_S + 5
    return CODES.OK


def raw(channel: grpc.Channel, method: str, body: bytes, **arguments: Any) -> bytes:
    """Make a unary call whose request is these bytes."""
    arguments.setdefault("timeout", TIMEOUT_S)
    return bytes(channel.unary_unary(method)(body, **arguments))


def oversized(channel: grpc.Channel) -> None:
    raw(channel, f"{EVALUATOR}/Execute", bytes(MESSAGE_LIMIT_BYTES + 1))


def truncated(channel: grpc.Channel) -> None:
    program = evaluator_pb2.ExecuteProgram(source=b"print(1)", language="python")
    raw(channel, f"{EVALUATOR}/Execute", evaluator_pb2.ExecuteRequest(programs=[program]).SerializeToString()[:-3])


def garbage(channel: grpc.Channel) -> None:
    raw(channel, f"{EVALUATOR}/Execute", b"\xff" * 1000)


def garbage_in_a_stream(channel: grpc.Channel) -> None:
    list(channel.stream_stream(f"{EVALUATOR}/ExecuteStream")(iter([b"\xff" * 1000]), timeout=TIMEOUT_S))


def another_roles_message(channel: grpc.Channel) -> None:
    request = trainer_pb2.GetPolicyRequest(run_id="run", min_version=7)
    raw(channel, f"{EVALUATOR}/Execute", request.SerializeToString())


def wrong_method(channel: grpc.Channel) -> None:
    raw(channel, f"{EVALUATOR}/Destroy", b"")


def wrong_service(channel: grpc.Channel) -> None:
    raw(channel, f"{TRAINER}/Learn", b"")


def long_method(channel: grpc.Channel) -> None:
    raw(channel, "/a/" + "b" * 5000, b"")


def two_requests_for_one(channel: grpc.Channel) -> None:
    channel.stream_unary(f"{EVALUATOR}/GetCapabilities")(iter([b"", b"\xff" * 1000]), timeout=TIMEOUT_S)


def no_request_at_all(channel: grpc.Channel) -> None:
    channel.stream_unary(f"{EVALUATOR}/GetCapabilities")(iter([]), timeout=2)


def no_deadline(channel: grpc.Channel) -> None:
    raw(channel, f"{EVALUATOR}/GetCapabilities", b"", timeout=None)


def no_deadline_on_a_stream(channel: grpc.Channel) -> None:
    list(channel.stream_stream(f"{EVALUATOR}/ExecuteStream")(iter([])))


def headers_over_the_limit(channel: grpc.Channel) -> None:
    raw(channel, f"{EVALUATOR}/GetCapabilities", b"", metadata=[("x-large", "a" * 100_000)])


def thousands_of_headers(channel: grpc.Channel) -> None:
    raw(channel, f"{EVALUATOR}/GetCapabilities", b"", metadata=[(f"x-{number}", "a") for number in range(5000)])


def limits_below_nothing(channel: grpc.Channel) -> None:
    request = evaluator_pb2.ExecuteRequest(programs=[evaluator_pb2.ExecuteProgram(source=b"1", language="python")])
    request.limits.wall_s = -1.0
    raw(channel, f"{EVALUATOR}/Execute", request.SerializeToString())


def a_language_of_its_own(channel: grpc.Channel) -> None:
    program = evaluator_pb2.ExecuteProgram(source=b"rm -rf /", language="../../bin/sh")
    raw(channel, f"{EVALUATOR}/Execute", evaluator_pb2.ExecuteRequest(programs=[program]).SerializeToString())


def a_task_that_is_none(channel: grpc.Channel) -> None:
    request = evaluator_pb2.EvaluateRequest(task_toml="a = [" * 10_000, sources=[b"1"])
    raw(channel, f"{EVALUATOR}/Evaluate", request.SerializeToString())


PLAIN: dict[Callable[[grpc.Channel], None], set[grpc.StatusCode]] = {
    oversized: {CODES.RESOURCE_EXHAUSTED},
    truncated: {CODES.INVALID_ARGUMENT},
    garbage: {CODES.INVALID_ARGUMENT},
    garbage_in_a_stream: {CODES.INVALID_ARGUMENT},
    another_roles_message: {CODES.INVALID_ARGUMENT},
    wrong_method: {CODES.UNIMPLEMENTED},
    wrong_service: {CODES.UNIMPLEMENTED},
    long_method: {CODES.UNIMPLEMENTED},
    # gRPC looks at the first message alone, and waits for one as long as the call lasts.
    two_requests_for_one: {CODES.OK, CODES.INTERNAL, CODES.INVALID_ARGUMENT},
    no_request_at_all: {CODES.DEADLINE_EXCEEDED, CODES.INTERNAL, CODES.INVALID_ARGUMENT},
    no_deadline: {CODES.INVALID_ARGUMENT},
    no_deadline_on_a_stream: {CODES.INVALID_ARGUMENT},
    headers_over_the_limit: {CODES.RESOURCE_EXHAUSTED},
    thousands_of_headers: {CODES.RESOURCE_EXHAUSTED},
    limits_below_nothing: {CODES.INVALID_ARGUMENT},
    a_language_of_its_own: {CODES.INVALID_ARGUMENT},
    a_task_that_is_none: {CODES.INVALID_ARGUMENT},
}


@pytest.mark.parametrize("attack", PLAIN, ids=lambda attack: attack.__name__)
def test_a_bad_call_gets_its_status(plain: PortEvaluator, attack: Callable[[grpc.Channel], None]) -> None:
    with channel_to(plain.address, None) as channel:
        assert status_of(lambda: attack(channel)) in PLAIN[attack]
    plain.check_serves()


def test_a_compressed_bomb_is_not_opened(plain: PortEvaluator) -> None:
    plain.check_serves()
    before = plain.rss_bytes()
    bomb = bytes(4 * MESSAGE_LIMIT_BYTES)
    with channel_to(plain.address, None, compression=grpc.Compression.Gzip) as channel:
        assert status_of(lambda: raw(channel, f"{EVALUATOR}/Execute", bomb)) in {
            CODES.UNIMPLEMENTED,
            CODES.RESOURCE_EXHAUSTED,
        }
    assert plain.rss_bytes() - before < MESSAGE_LIMIT_BYTES
    plain.check_serves()


def test_a_reader_that_never_reads_holds_up_nobody(plain: PortEvaluator) -> None:
    program = evaluator_pb2.ExecuteProgram(source=b"print('x' * 60000)", language="python")
    requests = [evaluator_pb2.ExecuteStreamRequest(index=index, program=program) for index in range(50)]
    with channel_to(plain.address, None) as channel:
        call = evaluator_pb2_grpc.EvaluatorServiceStub(channel).ExecuteStream(iter(requests), timeout=5)
        wait_until(lambda: plain.sample("call_programs") > 0, what="the stream's programs")
        plain.check_serves()
        assert plain.execute("print(1)")[0].stdout == b"1\n"
        time.sleep(max(0.0, call.time_remaining()))
    plain.wait_until_idle()
    plain.check_serves()


def test_calls_that_are_made_and_taken_back_at_once_leave_nothing(plain: PortEvaluator) -> None:
    request = evaluator_pb2.ExecuteRequest(programs=[evaluator_pb2.ExecuteProgram(source=b"1", language="python")])
    with channel_to(plain.address, None) as channel:
        stub = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
        for _ in range(300):
            stub.Execute.future(request, timeout=TIMEOUT_S).cancel()
        plain.check_serves()
    plain.wait_until_idle()


def test_a_flood_of_connections_leaves_room_for_a_caller(plain: PortEvaluator) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(100):
            held.enter_context(socket.create_connection(("127.0.0.1", plain.port), timeout=TIMEOUT_S))
        plain.check_serves()
    plain.check_serves()


HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
BYTES = {
    "nothing": b"",
    "half a preface": HTTP2[:10],
    "an older HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "noise": bytes(range(256)) * 64,
    "a preface and noise": HTTP2 + b"\xff" * 4096,
    "a frame longer than allowed": HTTP2 + SETTINGS + b"\xff\xff\xff\0\0\0\0\0\x01" + bytes(1000),
    "headers that do not decode": HTTP2 + SETTINGS + b"\0\0\x04\x01\x04\0\0\0\x01\xff\xff\xff\xff",
    "data for no stream": HTTP2 + SETTINGS + b"\0\0\x01\0\0\0\0\0\x07x",
    "a hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(505),
    "the beginning of a hello": b"\x16\x03\x01\x02\x00\x01",
    "a hello that is noise": b"\x16\x03\x01\x40\x00" + b"\xff" * 0x4000,
}
# These say enough to be a connection that may yet come to something; a real peer may be as slow.
KEPT = {"data for no stream"}


def is_closed_after(port: int, content: bytes) -> bool:
    """Send bytes and return whether the server closes the connection within the time it gives a handshake."""
    deadline = time.monotonic() + HANDSHAKE_S
    with socket.create_connection(("127.0.0.1", port), timeout=HANDSHAKE_S) as connection:
        try:
            connection.sendall(content)
            while time.monotonic() < deadline:
                if not connection.recv(1 << 16):
                    return True
        except TimeoutError:
            return False
        except ConnectionError:
            return True
    return False


@pytest.mark.parametrize("server", ["plain", "guarded"])
def test_what_is_no_call_is_closed_and_keeps_nobody_waiting(server: str, request: pytest.FixtureRequest) -> None:
    evaluator: PortEvaluator = request.getfixturevalue(server)
    with ThreadPoolExecutor(len(BYTES)) as pool:
        closing = {what: pool.submit(is_closed_after, evaluator.port, content) for what, content in BYTES.items()}
        evaluator.check_serves()
        left_open = {what for what, closed in closing.items() if not closed.result()}
    assert left_open <= KEPT
    evaluator.check_serves()


CALLERS = {
    "no certificate": ("", CODES.UNAVAILABLE),
    "a certificate that has run out": ("expired-client", CODES.UNAVAILABLE),
    "a certificate of its own signing": ("self-signed-client", CODES.UNAVAILABLE),
    "a certificate of another authority": ("other/client", CODES.UNAVAILABLE),
    "the certificate of the trainer": ("trainer", CODES.PERMISSION_DENIED),
    "the certificate of another evaluator": ("evaluator", CODES.PERMISSION_DENIED),
    "the certificate of the generator": ("generator", CODES.PERMISSION_DENIED),
}


@pytest.mark.parametrize("who", CALLERS)
def test_a_stranger_is_turned_away(guarded: PortEvaluator, certs: Path, who: str) -> None:
    name, expected = CALLERS[who]
    shown = credentials(certs / Path(name).parent, Path(name).name, authority=certs)
    with channel_to(guarded.address, shown) as channel:
        assert status_of(lambda: raw(channel, f"{EVALUATOR}/GetCapabilities", b"", timeout=5)) is expected
        assert status_of(lambda: raw(channel, f"{EVALUATOR}/Execute", b"\xff" * 9, timeout=5)) is expected
    guarded.check_serves()


def test_plaintext_to_a_port_of_tls_is_closed(guarded: PortEvaluator) -> None:
    with channel_to(guarded.address, None) as channel:
        assert status_of(lambda: raw(channel, f"{EVALUATOR}/GetCapabilities", b"", timeout=5)) is CODES.UNAVAILABLE
    guarded.check_serves()


@pytest.mark.parametrize(
    ("role", "method", "expected"),
    [
        ("evaluator", "Learn", {CODES.PERMISSION_DENIED}),
        ("evaluator", "GetPolicy", {CODES.PERMISSION_DENIED}),
        ("client", "OpenRun", {CODES.PERMISSION_DENIED}),
        ("generator", "Learn", {CODES.PERMISSION_DENIED}),
        ("generator", "SaveCheckpoint", {CODES.PERMISSION_DENIED}),
        ("generator", "GetPolicy", PAST_THE_DOOR),
        ("coordinator", "Learn", PAST_THE_DOOR),
        ("coordinator", "SaveCheckpoint", PAST_THE_DOOR),
        ("coordinator", "ListCheckpoints", PAST_THE_DOOR),
    ],
)
def test_who_may_do_what_to_a_run_that_is_not_there(
    trainer: str, certs: Path, role: str, method: str, expected: set[grpc.StatusCode]
) -> None:
    body = trainer_pb2.GetPolicyRequest(run_id="no such run").SerializeToString()
    with channel_to(trainer, credentials(certs, role)) as channel:
        call = channel.unary_stream(f"{TRAINER}/{method}")
        assert status_of(lambda: list(call(body, timeout=TIMEOUT_S))) in expected
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("role", "shown", "expected"),
    [
        ("client", [], CODES.UNAUTHENTICATED),
        ("client", ["Bearer a wrong token"], CODES.UNAUTHENTICATED),
        ("client", [f"Bearer {TOKEN[:-1]}"], CODES.UNAUTHENTICATED),
        ("client", [f"Bearer {TOKEN}0"], CODES.UNAUTHENTICATED),
        ("client", [f"bearer  {TOKEN}"], CODES.UNAUTHENTICATED),
        ("client", [f"Basic {TOKEN}"], CODES.UNAUTHENTICATED),
        ("client", [TOKEN], CODES.UNAUTHENTICATED),
        ("client", [f"Bearer {TOKEN}", "Bearer other"], CODES.UNAUTHENTICATED),
        ("client", [f"Bearer {TOKEN}"], CODES.OK),
        ("evaluator", [f"Bearer {TOKEN}"], CODES.PERMISSION_DENIED),
        ("trainer", [f"Bearer {TOKEN}"], CODES.PERMISSION_DENIED),
        ("", [f"Bearer {TOKEN}"], CODES.UNAVAILABLE),
    ],
)
def test_a_run_is_started_with_certificate_and_token_alone(
    coordinator: str, certs: Path, role: str, shown: list[str], expected: grpc.StatusCode
) -> None:
    metadata = [("authorization", value) for value in shown]
    with channel_to(coordinator, credentials(certs, role)) as channel:
        stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
        listed = status_of(lambda: stub.ListRuns(coordinator_pb2.ListRunsRequest(), timeout=5, metadata=metadata))
        assert listed is expected
        watch = coordinator_pb2.WatchRunRequest(run_id="no such run")
        watched = status_of(lambda: list(stub.WatchRun(watch, timeout=5, metadata=metadata)))
        assert watched in (PAST_THE_DOOR if expected is CODES.OK else {expected})
    with channel_to(coordinator, credentials(certs, "client")) as channel:
        good = [("authorization", f"Bearer {TOKEN}")]
        assert raw(channel, f"{COORDINATOR}/ListRuns", b"", metadata=good) == b""
