"""What every call passes through: a deadline check, decoding, metrics, and the translation of errors into statuses.

Invariants: whatever comes is answered with a status of its own; a call that ends early, also while a slow reader holds
up its answers, has left its handler when it is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from prometheus_client import Counter, Histogram

from altlas.errors import AltlasError, OverloadedError, ProtocolError
from altlas.rpc.errors import message, status_code, trailing_metadata

LOGGER = logging.getLogger(__name__)

CALLS = Counter("altlas_rpc_calls_total", "Calls served, by method and status code.", ["method", "code"])
SECONDS = Histogram("altlas_rpc_seconds", "Seconds from a call's arrival to its last byte, by method.", ["method"])

# The health and reflection services are called by tools that set no deadline (grpc_cli, kubelet, Watch).
_EXEMPT = ("/grpc.health.v1.", "/grpc.reflection.")
_CODES: dict[Any, grpc.StatusCode] = {None: grpc.StatusCode.OK} | {code.value[0]: code for code in grpc.StatusCode}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Rejects calls without a deadline, counts and times calls, turns AltlasError into a status."""

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
        if method.startswith(_EXEMPT):
            return handler
        # Requests come as bytes, since what gRPC cannot decode it reports as a fault of the server.
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                _guard_unary(handler.unary_unary, method, _decoder(handler, method)),
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _guard_stream(handler.unary_stream, method, _decoder(handler, method)),
                response_serializer=handler.response_serializer,
            )
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(
                _guard_unary(handler.stream_unary, method, _decoder(handler, method)),
                response_serializer=handler.response_serializer,
            )
        return grpc.stream_stream_rpc_method_handler(
            _guard_stream(handler.stream_stream, method, _decoder(handler, method)),
            response_serializer=handler.response_serializer,
        )


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


def _guard_unary(behaviour: Any, method: str, decode: Callable[[Any], Any]) -> Any:
    async def guarded(request: Any, context: Context) -> Any:
        async with _guard(context, method):
            return await behaviour(decode(request), context)

    return guarded


def _guard_stream(behaviour: Any, method: str, decode: Callable[[Any], Any]) -> Any:
    # A coroutine and not a generator, so that a call cancelled while it writes is cancelled here.
    async def guarded(request: Any, context: Context) -> None:
        async with _guard(context, method), contextlib.aclosing(behaviour(decode(request), context)) as responses:
            async for response in responses:
                await context.write(response)

    return guarded


@contextlib.asynccontextmanager
async def _guard(context: Context, method: str) -> AsyncIterator[None]:
    started = time.monotonic()
    code = grpc.StatusCode.OK
    try:
        await _require_deadline(context, method)
        try:
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
