"""Errors across the wire: an AltlasError becomes a status with the error's class in trailing metadata, and comes back
as the same class. What is not an AltlasError becomes UNKNOWN and keeps its traceback in the server's log.
"""

from __future__ import annotations

import math

import grpc
import grpc.aio

from altlas import errors
from altlas.errors import AltlasError, TransientError

ERROR_CLASS_KEY = "altlas-error"
RETRY_AFTER_KEY = "retry-after-ms"
# A message travels in headers, percent-encoded, and headers of more than 8 KiB are refused by the other side.
_MESSAGE_BYTES = 2000
_RETRY_AFTER_S = 1.0
_MAX_RETRY_AFTER_S = 3600.0

_CODES: tuple[tuple[type[AltlasError], grpc.StatusCode], ...] = (
    (errors.ConfigError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.TaskError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.VocabularyError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.UnknownRunError, grpc.StatusCode.NOT_FOUND),
    (errors.ProtocolError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.AccessError, grpc.StatusCode.PERMISSION_DENIED),
    (errors.FencedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.StaleRunError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.CheckpointError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.LearningError, grpc.StatusCode.ABORTED),
    (errors.OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.TransientError, grpc.StatusCode.UNAVAILABLE),
    (AltlasError, grpc.StatusCode.INTERNAL),
)
# grpc.aio's own words when a message could not be sent because the server had ended the call: its status is lost then.
_CUT_SHORT = (grpc.StatusCode.INTERNAL, "Internal error from Core")
_ACCESS_CODES = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
# In grpc's text of a handshake that failed on our side; a server that refuses us only closes the connection.
_NOT_BELIEVED = ("CERTIFICATE_VERIFY_FAILED", "is not in peer certificate", "Hostname Verification Check failed")
_TRANSIENT_CODES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


def status_code(error: AltlasError) -> grpc.StatusCode:
    """Return the gRPC status under which an error travels."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def message(error: AltlasError) -> str:
    """Return what an error says, cut to what can travel: it may quote a request of any length."""
    text = str(error).encode("utf-8", "replace")
    return text.decode() if len(text) <= _MESSAGE_BYTES else text[:_MESSAGE_BYTES].decode("utf-8", "ignore") + " ..."


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
        return errors.OverloadedError(error.details() or "", retry_after_s=_retry_after_s(names.get(RETRY_AFTER_KEY)))
    if isinstance(kind, type) and issubclass(kind, AltlasError):
        return kind(error.details() or "")
    text = f"{peer}: {error.code().name}: {error.details()}"
    if any(words in text for words in _NOT_BELIEVED):
        return errors.AccessError(
            f"{text}. Its certificate must name the host that is called, be of an authority in security.tls_ca, and "
            "not have run out."
        )
    if error.code() in _ACCESS_CODES:
        return errors.AccessError(text)
    is_transient = error.code() in _TRANSIENT_CODES or (error.code(), error.details()) == _CUT_SHORT
    return TransientError(text) if is_transient else AltlasError(text)


def _retry_after_s(hint: str | bytes | None) -> float:
    """Return a peer's hint in seconds; one that is no sensible number counts as none."""
    try:
        seconds = float(hint) / 1000 if hint is not None else _RETRY_AFTER_S
    except ValueError:
        return _RETRY_AFTER_S
    return min(seconds, _MAX_RETRY_AFTER_S) if math.isfinite(seconds) and seconds >= 0 else _RETRY_AFTER_S
