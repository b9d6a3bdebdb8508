"""A real Prometheus and its promtool, for tests.

    tools = require_tools()                              # skips on a laptop without them, fails in CI
    checked = tools.promtool("check", "config", path)    # a finished process: returncode, stdout, stderr
    with Prometheus(config, tmp_path) as server:         # tools optional; a free port; gone when the block ends
        server.url                                       # "http://127.0.0.1:PORT"
        server.wait_for("count(up == 1) == 4")           # the samples, once there are any
        server.query('up{job="redis"}')                  # [Sample(labels={...}, value=1.0)]
        server.get("/api/v1/rules")                      # the `data` of any answer of its API

The tools are those on PATH, or those of Debian's package: see `debian`.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from debian import MissingProgramError, find_program

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Tools:
    """The two binaries."""

    prometheus: Path
    promtool_path: Path

    def promtool(self, *arguments: str | Path, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run promtool to its end, whatever it returns."""
        return subprocess.run(
            [self.promtool_path, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One element of an instant vector; `labels` holds its name, where it has one, as __name__."""

    labels: dict[str, str]
    value: float


def require_tools() -> Tools:
    """Return the tools. Without them: a failure in CI, a skip with the reason elsewhere."""
    try:
        return Tools(find_program("prometheus", package="prometheus"), find_program("promtool", package="prometheus"))
    except MissingProgramError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


class Prometheus:
    """A server with a configuration of the caller's. A context manager; `directory` gets its data and its log."""

    def __init__(self, config: Path, directory: Path, *, tools: Tools | None = None) -> None:
        self.log_path = directory / "prometheus.log"
        self.url = ""
        self._config = config
        self._data = directory / "prometheus-data"
        self._tools = tools or require_tools()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        command = [
            str(self._tools.prometheus),
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self._data}",
            # The system chooses the port, and the log says which: nobody can take it in between.
            "--web.listen-address=127.0.0.1:0",
            "--log.format=json",
        ]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def get(self, path: str, **parameters: str) -> Any:
        """Return the `data` of an answer of the API."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        try:
            with urllib.request.urlopen(f"{self.url}{path}{query}", timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}{query}: {error.code} {error.read().decode(errors='replace')}") from error

    def query(self, expression: str) -> list[Sample]:
        """Return what an expression gives now; a scalar is one sample without labels."""
        data = self.get("/api/v1/query", query=expression)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        assert data["resultType"] == "vector", f"{expression}: a {data['resultType']}, not an instant vector"
        return [Sample(sample["metric"], float(sample["value"][1])) for sample in data["result"]]

    def wait_for(self, expression: str, *, timeout_s: float = 30.0) -> list[Sample]:
        """Return what an expression gives as soon as that is something."""
        deadline = time.monotonic() + timeout_s
        while not (samples := self.query(expression)):
            assert time.monotonic() < deadline, f"{expression}: still nothing after {timeout_s:g} s; {self._targets()}"
            time.sleep(_POLL_S)
        return samples

    def _targets(self) -> str:
        targets = self.get("/api/v1/targets", state="active")["activeTargets"]
        return "; ".join(f"{one['scrapeUrl']} {one['health']} {one['lastError']}".rstrip() for one in targets)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready():
            assert process.poll() is None, f"prometheus ended with {process.returncode}:\n{self._log_tail()}"
            assert time.monotonic() < deadline, f"prometheus is not ready:\n{self._log_tail()}"
            time.sleep(_POLL_S)

    def _is_ready(self) -> bool:
        self.url = self.url or self._listening_on()
        if not self.url:
            return False
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=10):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False

    def _listening_on(self) -> str:
        for line in self.log_path.read_text(errors="replace").splitlines():
            if '"Listening on"' in line and line.endswith("}"):
                return f"http://{json.loads(line)['address']}"
        return ""

    def _log_tail(self) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-8:])

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
