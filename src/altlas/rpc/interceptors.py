"""What every call passes through: who calls, a deadline check, decoding, metrics, and errors turned into statuses.

Invariants: whatever comes is answered with a status of its own; nothing of a request is decoded before its caller is
known; a call that ends early, also while a slow reader holds up its answers, has left its handler when it is counted.
A client's interceptors, which show a token, are here too.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from altlas.errors import AccessError, AltlasError, OverloadedError, ProtocolError
from altlas.obs.metrics import counter, histogram
from altlas.rpc.errors import message, status_code, trailing_metadata
from altlas.rpc.security import UNNAMED, is_open_to_all, may_call, role_of, shows_token, token_metadata

LOGGER = logging.getLogger(__name__)

CALLS = counter(
    "altlas_rpc_calls_total",
    "Calls served, by method and status code.",
    "RESOURCE_EXHAUSTED: callers are refused for want of room; ABORTED: a run went back to a checkpoint; "
    "DEADLINE_EXCEEDED: the role is too slow or stands still; UNKNOWN: a defect, see the log.",
    labels=["method", "code"],
)
SECONDS = histogram(
    "altlas_rpc_seconds",
    "Seconds from a call's arrival to its last byte, by method.",
    "What callers see of a role. The streams of WatchRun and ExecuteStream last as long as somebody watches.",
    labels=["method"],
)

_CODES: dict[Any, grpc.StatusCode] = {None: grpc.StatusCode.OK} | {code.value[0]: code for code in grpc.StatusCode}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Guard: TypeAlias = Callable[[Context], contextlib.AbstractAsyncContextManager[None]]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Rejects calls of those who may not and calls without a deadline, counts and times, turns errors into statuses.

    With `has_certificates` the role in the caller's certificate decides; with a `token` the caller has to show it.
    """

    def __init__(self, *, has_certificates: bool = False, token: str = "") -> None:
        self._has_certificates = has_certificates
        self._token = token

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps the method's handler; gRPC calls this once per call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return grpc.stream_stream_rpc_method_handler(_refuse_unknown(method))
        # Health and reflection are called by tools that set no deadline (grpc_cli, kubelet, Watch).
        if is_open_to_all(method):
            return handler
        guard = functools.partial(_guard, method=method, admit=self._admit)
        # Requests come as bytes, since what gRPC cannot decode it reports as a fault of the server.
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                _guard_unary(handler.unary_unary, guard, _decoder(handler, method)),
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _guard_stream(handler.unary_stream, guard, _decoder(handler, method)),
                response_serializer=handler.response_serializer,
            )
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(
                _guard_unary(handler.stream_unary, guard, _decoder(handler, method)),
                response_serializer=handler.response_serializer,
            )
        return grpc.stream_stream_rpc_method_handler(
            _guard_stream(handler.stream_stream, guard, _decoder(handler, method)),
            response_serializer=handler.response_serializer,
        )

    async def _admit(self, context: Context, method: str) -> None:
        """Turn away who may not call: by the certificate's role first, which needs no secret, then by the token.

        Raises:
            AccessError: the role in the certificate may not call this.
        """
        if self._has_certificates and not may_call(role := role_of(context.auth_context()), method):
            named = "names no role" if role == UNNAMED else f"is that of role {role}"
            raise AccessError(f"{method}: the caller's certificate {named}, which may not call this")
        if self._token and not shows_token(context.invocation_metadata(), self._token):
            error = AccessError(f"{method}: no token, or a wrong one: the caller's security.token_file must hold mine")
            LOGGER.info("call refused: %s from %s", error, context.peer())
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error), trailing_metadata=trailing_metadata(error))


def _refuse_unknown(method: str) -> Any:
    async def refuse(requests: Any, context: Context) -> None:
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, f"{method[:200]}: no such method here; reflection lists those there are"
        )

    return refuse


def _decoder(handler: Handler, method: str) -> Callable[[Any], Any]:
    """Return what turns the bytes of a request, or an iterator over those of several, into messages."""

    def decode(raw: bytes) -> Any:
        try:
            return handler.request_deserializer(raw) if handler.request_deserializer else raw
        except DecodeError as error:
            raise ProtocolError(f"{method}: the request is not the message of this method: {error}") from error

    async def decode_all(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for raw in requests:
            yield decode(raw)

    return decode_all if handler.request_streaming else decode


def _guard_unary(behaviour: Any, guard: Guard, decode: Callable[[Any], Any]) -> Any:
    async def guarded(request: Any, context: Context) -> Any:
        async with guard(context):
            return await behaviour(decode(request), context)

    return guarded


def _guard_stream(behaviour: Any, guard: Guard, decode: Callable[[Any], Any]) -> Any:
    # A coroutine and not a generator, so that a call cancelled while it writes is cancelled here.
    async def guarded(request: Any, context: Context) -> None:
        async with guard(context), contextlib.aclosing(behaviour(decode(request), context)) as responses:
            async for response in responses:
                await context.write(response)

    return guarded


@contextlib.asynccontextmanager
async def _guard(
    context: Context, *, method: str, admit: Callable[[Context, str], Awaitable[None]]
) -> AsyncIterator[None]:
    started = time.monotonic()
    code = grpc.StatusCode.OK
    try:
        try:
            await admit(context, method)
            await _require_deadline(context, method)
            yield
        except AltlasError as error:
            await _abort(context, error)
        code = _code(context)
    except asyncio.CancelledError:
        is_late = context.time_remaining() == 0
        code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
        raise
    except grpc.aio.AbortError:
        code = _code(context)
        raise
    except BaseException:
        code = grpc.StatusCode.UNKNOWN
        raise
    finally:
        CALLS.labels(method, code.name).inc()
        SECONDS.labels(method).observe(time.monotonic() - started)


async def _require_deadline(context: Context, method: str) -> None:
    if context.time_remaining() is None:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, f"{method}: no deadline: set a timeout on the call, every call needs one"
        )


async def _abort(context: Context, error: AltlasError) -> None:
    text = message(error)
    # Under load there are thousands of these a second, which the metrics count.
    level = logging.DEBUG if isinstance(error, OverloadedError) else logging.INFO
    LOGGER.log(level, "call refused: %s: %s", type(error).__name__, text)
    await context.abort(status_code(error), text, trailing_metadata=trailing_metadata(error))


def _code(context: Context) -> grpc.StatusCode:
    code: Any = context.code()  # a number here, whatever the types say
    return code if isinstance(code, grpc.StatusCode) else _CODES.get(code, grpc.StatusCode.UNKNOWN)


def token_interceptors(token: str) -> list[grpc.aio.ClientInterceptor]:
    """Return what makes a channel show a token with each call, but for those that send a stream: nobody asks there."""
    return [_UnaryToken(token), _StreamToken(token)]


class _UnaryToken(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See grpc.aio.UnaryUnaryClientInterceptor."""
        return await continuation(_with_token(client_call_details, self._token), request)


class _StreamToken(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See grpc.aio.UnaryStreamClientInterceptor."""
        return await continuation(_with_token(client_call_details, self._token), request)


def _with_token(details: Any, token: str) -> Any:
    return details._replace(metadata=grpc.aio.Metadata(*(details.metadata or ()), *token_metadata(token)))
