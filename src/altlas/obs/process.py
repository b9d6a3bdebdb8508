"""A process's HTTP face: /metrics for Prometheus, /healthz, which says that the process is up and no more, and /readyz,
which says whether it can do its work.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from altlas import __version__
from altlas.errors import ConfigError
from altlas.obs.metrics import gauge

LOGGER = logging.getLogger(__name__)
BUILD = gauge(
    "altlas_build_info",
    "1, with the version and the role as labels.",
    "Count the processes of a role with it; two versions at a time is an upgrade under way, or one that was forgotten.",
    labels=["version", "role"],
)


class _Server(ThreadingMixIn, WSGIServer):
    """A thread per request, so that a connection that says nothing holds up no probe."""

    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        LOGGER.debug(format, *args)


def _always_ready() -> str:
    return ""


def serve_metrics(port: int | None, *, role: str, not_ready: Callable[[], str] = _always_ready) -> None:
    """Serve /metrics, /healthz and /readyz on every interface from a daemon thread; None serves nothing.

    Args:
        port: where; 0 is not useful, since nobody learns which port was taken.
        role: for the metric that tells the build.
        not_ready: why the process cannot do its work now; empty when it can.

    Raises:
        ConfigError: the port is taken.
    """
    BUILD.labels(__version__, role).set(1)
    if port is None:
        return
    metrics = make_wsgi_app()

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == "/healthz":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"ok\n"]
        if environ.get("PATH_INFO") == "/readyz":
            reason = not_ready()
            start_response("503 Service Unavailable" if reason else "200 OK", [("Content-Type", "text/plain")])
            return [(reason or "ready").encode() + b"\n"]
        response: Iterable[bytes] = metrics(environ, start_response)
        return response

    try:
        server = make_server("", port, application, server_class=_Server, handler_class=_QuietHandler)
    except OSError as error:
        raise ConfigError(f"{role}: cannot serve metrics on port {port}: {error.strerror}; choose another") from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
