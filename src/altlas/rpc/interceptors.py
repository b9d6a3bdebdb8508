"""What every call passes through: a deadline check, metrics, and the translation of errors into statuses."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from prometheus_client import Counter, Histogram

from altlas.errors import AltlasError
from altlas.rpc.errors import status_code, trailing_metadata

LOGGER = logging.getLogger(__name__)

CALLS = Counter("altlas_rpc_calls_total", "Calls served, by method and status code.", ["method", "code"])
SECONDS = Histogram("altlas_rpc_seconds", "Seconds from a call's arrival to its last byte, by method.", ["method"])

# The health and reflection services are called by tools that set no deadline (grpc_cli, kubelet, Watch).
_EXEMPT = ("/grpc.health.v1.", "/grpc.reflection.")

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
        if handler is None or method.startswith(_EXEMPT):
            return handler
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                _guard_unary(handler.unary_unary, method),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _guard_stream(handler.unary_stream, method),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(
                _guard_unary(handler.stream_unary, method),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.stream_stream_rpc_method_handler(
            _guard_stream(handler.stream_stream, method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _guard_unary(behaviour: Any, method: str) -> Any:
    async def guarded(request: Any, context: Context) -> Any:
        started = time.monotonic()
        try:
            await _require_deadline(context, method)
            return await behaviour(request, context)
        except AltlasError as error:
            return await _abort(context, error)
        finally:
            _observe(method, context, started)

    return guarded


def _guard_stream(behaviour: Any, method: str) -> Any:
    async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
        started = time.monotonic()
        try:
            await _require_deadline(context, method)
            async for response in behaviour(request, context):
                yield response
        except AltlasError as error:
            await _abort(context, error)
        finally:
            _observe(method, context, started)

    return guarded


async def _require_deadline(context: Context, method: str) -> None:
    if context.time_remaining() is None:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, f"{method}: no deadline: set a timeout on the call, every call needs one"
        )


async def _abort(context: Context, error: AltlasError) -> None:
    LOGGER.info("call refused: %s: %s", type(error).__name__, error)
    await context.abort(status_code(error), str(error), trailing_metadata=trailing_metadata(error))


def _observe(method: str, context: Context, started: float) -> None:
    code = context.code()
    name = code.name if isinstance(code, grpc.StatusCode) else "OK"
    CALLS.labels(method, name).inc()
    SECONDS.labels(method).observe(time.monotonic() - started)
