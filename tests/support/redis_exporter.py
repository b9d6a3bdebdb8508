"""A real redis_exporter: what tells Prometheus of a Redis."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType

import pytest
from debian import MissingProgramError, find_program
from evaluator_process import free_port


def require_exporter() -> Path:
    """Return the program. Without it: a failure in CI, a skip with the reason elsewhere."""
    try:
        return find_program("prometheus-redis-exporter", package="prometheus-redis-exporter")
    except MissingProgramError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


class RedisExporter:
    """An exporter of one Redis, at `port` of this machine; a context manager. `directory` gets its log."""

    def __init__(self, redis_url: str, directory: Path) -> None:
        self.port = free_port()
        self._command = [
            str(require_exporter()),
            f"--redis.addr={redis_url}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        self._log_path = directory / "redis-exporter.log"

    def __enter__(self) -> RedisExporter:
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
