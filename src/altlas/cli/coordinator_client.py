"""A coordinator as the command line sees it: one channel, one function per RPC, errors that say who was called.

Invariant: a call ends within `CALL_S`, so that a command aimed at nobody says so soon.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc
import grpc.aio

from altlas.cli.remote_commands import DEFAULT_COORDINATOR
from altlas.config.sections import Config
from altlas.errors import AltlasError, ConfigError, TransientError
from altlas.rpc.channel import connect
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.coordinator.v1 import coordinator_pb2, coordinator_pb2_grpc
from altlas.rpc.errors import ERROR_CLASS_KEY, from_rpc_error
from altlas.rpc.security import load_security

CALL_S = 8.0
_ADDRESS = re.compile(r"unix:.+|.+:\d{1,5}")
_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
_ENDED = (coordinator_pb2.RUN_STATE_FINISHED, coordinator_pb2.RUN_STATE_FAILED)

# grpc's own words before the reason of the last try, when there was never a connection.
_NOT_CONNECTED = "failed to connect"

T = TypeVar("T")


def open_channel(coordinator: str, config: Config) -> grpc.aio.Channel:
    """Return a channel to a coordinator, as the configuration says that it is to be talked to.

    Raises:
        ConfigError: the address is none.
    """
    if not _ADDRESS.fullmatch(coordinator):
        raise ConfigError(f"--coordinator {coordinator}: not an address; give HOST:PORT or unix:PATH")
    security = load_security(config.security)
    return connect(coordinator, security, token=security.token)


class NoAnswerError(TransientError):
    """A call went unanswered.

    Attributes:
        is_sent: whether the coordinator may have had it all the same.
    """

    def __init__(self, message: str, *, is_sent: bool) -> None:
        super().__init__(message)
        self.is_sent = is_sent


def has_ended(run: coordinator_pb2.Run) -> bool:
    """Return whether a run is over, well or badly."""
    return run.state in _ENDED


def stop_reason(run: coordinator_pb2.Run) -> str:
    """Return why a run ended in a word: failed, or its stop reason; empty while it goes on."""
    if run.state == coordinator_pb2.RUN_STATE_FAILED:
        return "failed"
    if run.state != coordinator_pb2.RUN_STATE_FINISHED:
        return ""
    return coordinator_pb2.StopReason.Name(run.stop_reason).removeprefix("STOP_REASON_").lower()


class Coordinator:
    """The RPCs of a coordinator. Every call raises TransientError when it does not answer, and what it raised itself.

    Attributes:
        address: where it is.
    """

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        self.address = address
        self._stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)

    async def create(self, spec: common_pb2.RunSpec, *, request_id: str) -> coordinator_pb2.Run:
        """Create a run, or return the one that this request id has made already."""
        request = coordinator_pb2.CreateRunRequest(request_id=request_id, spec=spec)
        response: coordinator_pb2.CreateRunResponse = await self._call(self._stub.CreateRun(request, timeout=CALL_S))
        return response.run

    async def run(self, run_id: str) -> coordinator_pb2.Run:
        """Return where a run stands."""
        request = coordinator_pb2.GetRunRequest(run_id=run_id)
        response: coordinator_pb2.GetRunResponse = await self._call(self._stub.GetRun(request, timeout=CALL_S))
        return response.run

    async def runs(self) -> list[coordinator_pb2.Run]:
        """Return every run that it knows."""
        return list((await self._call(self._stub.ListRuns(coordinator_pb2.ListRunsRequest(), timeout=CALL_S))).runs)

    async def pause(self, run_id: str) -> None:
        """Hold a run before its next update."""
        await self._call(self._stub.PauseRun(coordinator_pb2.PauseRunRequest(run_id=run_id), timeout=CALL_S))

    async def resume(self, run_id: str) -> None:
        """Let a paused run go on."""
        await self._call(self._stub.ResumeRun(coordinator_pb2.ResumeRunRequest(run_id=run_id), timeout=CALL_S))

    async def stop(self, run_id: str) -> None:
        """Ask for a run's end after the update in progress."""
        await self._call(self._stub.StopRun(coordinator_pb2.StopRunRequest(run_id=run_id), timeout=CALL_S))

    async def events(
        self, run_id: str, *, after_sequence: int, timeout_s: float
    ) -> AsyncIterator[coordinator_pb2.RunEvent]:
        """Yield a run's events after a sequence number until the run or `timeout_s` ends."""
        request = coordinator_pb2.WatchRunRequest(run_id=run_id, after_sequence=after_sequence)
        try:
            async for response in self._stub.WatchRun(request, timeout=timeout_s):
                yield response.event
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise self._translated(error) from error

    async def _call(self, awaitable: Awaitable[T]) -> T:
        try:
            return await awaitable
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error

    def _translated(self, error: grpc.aio.AioRpcError) -> AltlasError:
        if ERROR_CLASS_KEY not in dict(error.trailing_metadata() or ()):
            if error.code() in _AWAY:
                return NoAnswerError(
                    f"no coordinator answers at {self.address} ({_why(error)}). Start one with `altlas serve "
                    "coordinator`, or name the right one with --coordinator HOST:PORT or ALTLAS_COORDINATOR.",
                    is_sent=not (error.details() or "").startswith(_NOT_CONNECTED),
                )
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return AltlasError(
                    f"what answers at {self.address} is no coordinator, or one of another version "
                    f"({error.details()}): check --coordinator"
                )
        return from_rpc_error(error, peer=f"coordinator at {self.address}")


def _why(error: grpc.aio.AioRpcError) -> str:
    details = error.details() or error.code().name
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"waited {CALL_S:.0f} s"
    return details.rpartition(": ")[2] if details.startswith(_NOT_CONNECTED) else details


@asynccontextmanager
async def open_coordinator(address: str, config: Config) -> AsyncIterator[Coordinator]:
    """Connect to a coordinator for as long as the block lasts."""
    async with open_channel(address, config) as channel:
        yield Coordinator(channel, address)


def command(words: str, coordinator: str) -> str:
    """Return a command to type, with --coordinator where that is not the default."""
    return f"altlas {words}" + ("" if coordinator == DEFAULT_COORDINATOR else f" --coordinator {coordinator}")
