"""Stands in for Grafana: answers /api/health as it does, where GF_SERVER_HTTP_ADDR and _PORT say; draws nothing."""

import json
import os
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Health(BaseHTTPRequestHandler):
    """One page."""

    def do_GET(self) -> None:
        """Answer."""
        is_health = self.path == "/api/health"
        body = json.dumps({"database": "ok", "version": "stand-in"} if is_health else {"message": "not found"}).encode()
        self.send_response(HTTPStatus.OK if is_health else HTTPStatus.NOT_FOUND)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's


def main() -> None:
    """Serve until killed."""
    address = os.environ.get("GF_SERVER_HTTP_ADDR", ""), int(os.environ.get("GF_SERVER_HTTP_PORT", "3000"))
    ThreadingHTTPServer(address, Health).serve_forever()


if __name__ == "__main__":
    main()
