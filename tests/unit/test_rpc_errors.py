"""Errors on their way over the wire: what a peer may send, and what it must not be able to do with it."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from altlas.errors import AltlasError, ConfigError, OverloadedError, TransientError
from altlas.rpc.errors import from_rpc_error, message, trailing_metadata


def received(code: grpc.StatusCode, *metadata: tuple[str, str]) -> AltlasError:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), "what was wrong")
    return from_rpc_error(error, peer="evaluator")


@pytest.mark.parametrize(
    ("hint", "seconds"),
    [
        ("250", 0.25),
        ("0", 0.0),
        ("1e99", 3600.0),
        ("", 1.0),
        ("soon", 1.0),
        ("nan", 1.0),
        ("inf", 1.0),
        ("-5", 1.0),
        (None, 1.0),
    ],
)
def test_a_retry_hint_that_makes_no_sense_counts_as_none(hint: str | None, seconds: float) -> None:
    metadata = [("altlas-error", "OverloadedError")] + ([("retry-after-ms", hint)] if hint is not None else [])
    error = received(grpc.StatusCode.RESOURCE_EXHAUSTED, *metadata)
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s == seconds


@pytest.mark.parametrize("name", ["", "Exception", "__name__", "annotations", "KeyboardInterrupt"])
def test_a_class_that_is_none_of_ours_is_not_raised(name: str) -> None:
    assert type(received(grpc.StatusCode.INTERNAL, ("altlas-error", name))) is AltlasError
    assert type(received(grpc.StatusCode.UNAVAILABLE, ("altlas-error", name))) is TransientError


def test_a_hint_travels_and_a_message_is_cut_to_what_headers_hold() -> None:
    assert ("retry-after-ms", "1500") in trailing_metadata(OverloadedError("full", retry_after_s=1.5))
    assert ("retry-after-ms", "1") in trailing_metadata(OverloadedError("full", retry_after_s=0.0))
    assert message(ConfigError("short")) == "short"
    cut = message(ConfigError("é" * 1_000_000))
    assert cut.endswith("é ...")
    assert len(cut.encode()) < 2010
    assert message(ConfigError("\udcff")) == "?"


@pytest.mark.parametrize(("details", "is_transient"), [("Internal error from Core", True), ("it broke", False)])
def test_a_call_that_ended_while_it_was_written_to_is_made_again(details: str, is_transient: bool) -> None:
    """The server's reason is lost then, so that only another attempt can hear it."""
    error = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    assert isinstance(from_rpc_error(error, peer="evaluator"), TransientError) is is_transient
