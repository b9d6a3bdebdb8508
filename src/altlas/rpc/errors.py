"""Errors across the wire: an AltlasError becomes a status with the error's class in trailing metadata, and comes back
as the same class. What is not an AltlasError stays INTERNAL and keeps its traceback in the server's log.
"""

from __future__ import annotations

import grpc
import grpc.aio

from altlas import errors
from altlas.errors import AltlasError, TransientError

ERROR_CLASS_KEY = "altlas-error"
RETRY_AFTER_KEY = "retry-after-ms"

_CODES: tuple[tuple[type[AltlasError], grpc.StatusCode], ...] = (
    (errors.ConfigError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.TaskError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.VocabularyError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.ProtocolError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.CheckpointError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.LearningError, grpc.StatusCode.ABORTED),
    (errors.OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.TransientError, grpc.StatusCode.UNAVAILABLE),
    (AltlasError, grpc.StatusCode.INTERNAL),
)
_TRANSIENT_CODES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


def status_code(error: AltlasError) -> grpc.StatusCode:
    """Return the gRPC status under which an error travels."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def trailing_metadata(error: AltlasError) -> tuple[tuple[str, str], ...]:
    """Return what travels beside an error's status and message."""
    metadata = [(ERROR_CLASS_KEY, type(error).__name__)]
    if isinstance(error, errors.OverloadedError):
        metadata.append((RETRY_AFTER_KEY, str(max(1, round(error.retry_after_s * 1000)))))
    return tuple(metadata)


def from_rpc_error(error: grpc.aio.AioRpcError, *, peer: str) -> AltlasError:
    """Return the AltlasError that a failed call stands for; `peer` names who was called."""
    names = dict(error.trailing_metadata() or ())
    kind = getattr(errors, str(names.get(ERROR_CLASS_KEY, "")), None)
    if kind is errors.OverloadedError:
        seconds = float(names.get(RETRY_AFTER_KEY, 1000)) / 1000
        return errors.OverloadedError(error.details() or "", retry_after_s=seconds)
    if isinstance(kind, type) and issubclass(kind, AltlasError):
        return kind(error.details() or "")
    text = f"{peer}: {error.code().name}: {error.details()}"
    return TransientError(text) if error.code() in _TRANSIENT_CODES else AltlasError(text)
