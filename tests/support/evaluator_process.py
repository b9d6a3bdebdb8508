"""An evaluator as it is deployed: the console script in a process of its own, on a unix socket, with metrics."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import grpc
from metrics_page import Samples, get_page, samples_of

from altlas.rpc.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc

ALTLAS = Path(sys.executable).with_name("altlas")
IDLE = ("slots_busy", "waiting", "call_programs", "call_bytes")


def wait_until(condition: Callable[[], object], *, timeout_s: float = 30.0, what: str = "it") -> None:
    """Wait for a callable to be true; other processes have no event for it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come to pass within {timeout_s:g} s"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> Iterator[int]:
    """Process ids of all descendants that are alive."""
    for task in _tasks(pid):
        try:
            children = [int(word) for word in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            yield from descendants(child)
            if is_alive(child):
                yield child


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it has ended
        return []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EvaluatorProcess:
    """Starts with the object and serves once `wait_until_ready` returns. A context manager that kills what is left."""

    def __init__(self, directory: Path, settings: Sequence[str] = (), *, name: str = "e", redis_url: str = "") -> None:
        self.address = f"unix:{directory}/{name}.sock"
        self.metrics_port = free_port()
        self.log_path = directory / f"{name}.log"
        command = [ALTLAS, "serve", "evaluator", "--listen", self.address, "--metrics-port", str(self.metrics_port)]
        for setting in settings:
            command += ["--set", setting]
        if redis_url:
            command += ["--redis-url", redis_url]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ALTLAS_")}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, env=environment
            )
        self.pid = self.process.pid

    def __enter__(self) -> EvaluatorProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log_path.read_text()
            return self.get("/readyz")[0] == 200

        wait_until(is_ready, what="readiness")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP request to the metrics port; status 0 while nothing listens there."""
        return get_page(self.metrics_port, path)

    def samples(self) -> Samples:
        """Every sample of /metrics by its name and labels."""
        return samples_of(self.get("/metrics")[1])

    def sample(self, name: str, **labels: str) -> float:
        """One sample of altlas_evaluator_NAME; 0 where there is none."""
        return self.samples().get((f"altlas_evaluator_{name}", tuple(sorted(labels.items()))), 0.0)

    def programs_done(self) -> float:
        return sum(value for (name, _), value in self.samples().items() if name == "altlas_evaluator_programs_total")

    def is_idle(self) -> bool:
        samples = self.samples()
        return all(samples[f"altlas_evaluator_{name}", ()] == 0 for name in IDLE)

    def wait_until_idle(self) -> None:
        wait_until(self.is_idle, what="idleness")

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def connect(self) -> grpc.Channel:
        return grpc.insecure_channel(
            self.address,
            options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
        )

    def execute(self, *sources: str | bytes, timeout: float = 60) -> list[evaluator_pb2.Execution]:
        """Run Python programs by one call on a channel of its own."""
        programs = [
            evaluator_pb2.ExecuteProgram(source=source if isinstance(source, bytes) else source.encode())
            for source in sources
        ]
        with self.connect() as channel:
            stub = evaluator_pb2_grpc.EvaluatorServiceStub(channel)
            return list(stub.Execute(evaluator_pb2.ExecuteRequest(programs=programs), timeout=timeout).executions)

    def terminate(self, *, timeout_s: float) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)
