"""`altlas submit`, `watch` and `runs` on roles that serve as processes of their own, as on another host."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from altlas.cli.coordinator_client import Coordinator, open_coordinator
from altlas.cli.remote_watch import follow
from altlas.config.sections import Config
from altlas.rpc.channel import wait_until_serving
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas.transport.embedded import EmbeddedRedis

ALTLAS = Path(sys.executable).with_name("altlas")
# Small batches: many update boundaries in little time. The network is no matter here.
SMALL = ("--set", "sampling.batch_size=32", "--set", "model.hidden=16", "--set", "run.stop_on_solved=false")
LONG = ("submit", "stdin/echo", "--budget", "1000000", *SMALL)
SHORT = ("submit", "stdin/echo", "--budget", "96", *SMALL)

T = TypeVar("T")


@dataclass(frozen=True)
class Stack:
    """Roles that serve, and where."""

    coordinator: str
    directory: Path


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis, trainer, generator, evaluator and coordinator, one of each; their logs are in the directory."""
    directory = tmp_path_factory.mktemp("stack")
    sockets = Path(tempfile.mkdtemp(prefix="altlas-"))  # a socket's path is 107 bytes at most
    roles = {name: f"unix:{sockets}/{name}" for name in ("trainer", "generator", "evaluator", "coordinator")}
    started: list[subprocess.Popen[bytes]] = []
    with EmbeddedRedis(directory / "redis") as redis:
        further = {
            "trainer": [],
            "generator": ["--trainer", roles["trainer"]],
            "evaluator": ["--redis-url", redis.url, "--set", "sandbox.slots=2"],
            "coordinator": [
                *("--trainer", roles["trainer"], "--generator", roles["generator"], "--redis-url", redis.url)
            ],
        }
        try:
            for name, address in roles.items():
                with (directory / f"{name}.log").open("wb") as log:
                    command = [ALTLAS, "serve", name, "--listen", address, *further[name]]
                    started.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=directory))
            for name, address in roles.items():
                asyncio.run(wait_until_serving(address, role=name, timeout_s=60))
            yield Stack(roles["coordinator"], directory)
        finally:
            for process in reversed(started):
                process.terminate()
            for process in reversed(started):
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()
            shutil.rmtree(sockets)


@pytest.fixture
def on(stack: Stack, altlas):
    """Runs `altlas ARGUMENTS` with the stack's coordinator."""
    return lambda *arguments: altlas(*arguments, env={"ALTLAS_COORDINATOR": stack.coordinator})


@pytest.fixture
def start(stack: Stack, start_altlas):
    """Starts `altlas ARGUMENTS` with the stack's coordinator, or another address, and returns at once."""
    return lambda *arguments, at=stack.coordinator: start_altlas([*arguments, "--coordinator", at])


@pytest.fixture
def long_run(stack: Stack, on) -> Iterator[str]:
    """A run that goes on until the test has ended."""
    run_id = on(*LONG, "--json").result["run_id"]
    yield run_id
    ask(stack.coordinator, lambda coordinator: coordinator.stop(run_id))


@pytest.fixture
def updates(stack: Stack, long_run: str) -> Callable[[], int]:
    """How many updates of the long run are done."""
    return lambda: ask(stack.coordinator, lambda coordinator: coordinator.run(long_run)).progress.update


def ask(address: str, question: Callable[[Coordinator], Awaitable[T]]) -> T:
    """Asks a coordinator from within this process: no command has to start for it."""

    async def connect_and_ask() -> T:
        async with open_coordinator(address, Config()) as coordinator:
            return await question(coordinator)

    return asyncio.run(connect_and_ask())


async def events_of(coordinator: Coordinator, run_id: str, *, for_s: float) -> list[coordinator_pb2.RunEvent]:
    return [event async for event in coordinator.events(run_id, after_sequence=0, timeout_s=for_s)]


def wait_for(condition: Callable[[], object], *, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """Reads its stderr up to a line that fits."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if re.search(pattern, line):
            return "".join(lines)
    raise AssertionError(f"{pattern!r} never came in:\n{''.join(lines)}")


def test_no_runs_yet(on) -> None:
    done = on("runs", "list")
    assert done.code == 0
    assert "no runs" in done.stdout
    assert "altlas submit" in done.stdout
    assert on("runs", "list", "--json").result == {"runs": []}


def test_a_submitted_run_is_watched_to_its_end(on, stack: Stack) -> None:
    submitted = on(*SHORT, "--seed", "5", "--name", "first")
    assert submitted.code == 0, submitted.stderr
    assert "altlas watch first" in submitted.stdout
    watched = on("watch", "first", "--json")
    result = watched.result
    assert watched.code == (0 if result["verified"] else 3), watched.stderr
    assert (result["run_id"], result["task"], result["seed"], result["programs"]) == ("first", "stdin/echo", 5, 96)
    assert result["stop_reason"] == "budget"
    assert "watching first" in watched.stderr
    shown = on("runs", "show", "first", "--json").result
    assert {key: result[key] for key in ("state", "policy_sha256", "best_program", "checkpoint")} == {
        key: shown[key] for key in ("state", "policy_sha256", "best_program", "checkpoint")
    }
    # What a relative directory is relative to is where the roles were started.
    assert (stack.directory / "runs" / "first" / "metrics.jsonl").is_file()


def test_submit_and_watch_in_one(on) -> None:
    done = on(*SHORT, "--watch")
    assert done.code in (0, 3), done.stderr
    assert "created" in done.stdout
    assert "solved" in done.stdout
    assert "request id: " in done.stderr
    in_json = on(*SHORT, "--watch", "--json")
    assert in_json.result["programs"] == 96
    assert len(in_json.stdout.splitlines()) == 1


def test_a_run_that_fails_says_why(on) -> None:
    done = on(*SHORT, "--watch", "--json", "--set", "model.device=mps")
    assert done.code == 1
    assert done.result["stop_reason"] == "failed"
    assert "mps" in done.result["error"]


def test_a_request_makes_one_run(on) -> None:
    first = on(*SHORT, "--request-id", "once", "--json").result
    again = on(*SHORT, "--request-id", "once")
    assert again.code == 0
    assert f"run {first['run_id']} was created by this request before" in again.stdout
    known = [run["run_id"] for run in on("runs", "list", "--json").result["runs"]]
    assert known.count(first["run_id"]) == 1
    other = on("submit", "basics/hello_world", "--request-id", "once")
    assert other.code == 2
    assert f"has made run {first['run_id']} on stdin/echo" in other.stderr


def test_pause_resume_stop(stack: Stack, on, long_run: str, updates: Callable[[], int]) -> None:
    wait_for(lambda: updates() >= 1)
    paused = on("runs", "pause", long_run)
    assert paused.code == 0, paused.stderr
    assert f"altlas runs resume {long_run}" in paused.stdout
    held = on("runs", "show", long_run, "--json").result
    assert held["state"] == "paused"
    events = ask(stack.coordinator, lambda coordinator: events_of(coordinator, long_run, for_s=0.5))
    (at,) = [position for position, event in enumerate(events) if event.message == "paused"]
    assert len(events) - at <= 2, "the update in progress still ends, no other begins"
    done = updates()
    assert on("runs", "resume", long_run).code == 0
    wait_for(lambda: updates() > done)
    stopped = on("runs", "stop", long_run)
    assert stopped.code == 0, stopped.stderr
    ended = on("runs", "show", long_run, "--json").result
    assert (ended["state"], ended["stop_reason"]) == ("finished", "requested")
    assert ended["checkpoint"] in stopped.stdout
    for verb in ("pause", "resume"):
        refused = on("runs", verb, long_run)
        assert refused.code == 1
        assert f"cannot {verb} {long_run}: it has ended (requested)" in refused.stderr
    again = on("runs", "stop", long_run)
    assert again.code == 0
    assert "has ended already" in again.stdout


def test_the_list_shows_where_each_run_stands(on) -> None:
    on(*SHORT, "--name", "listed", "--watch")
    table = on("runs", "list").stdout
    (line,) = [line for line in table.splitlines() if line.startswith("listed")]
    assert "stdin/echo" in line
    assert "96 " in line
    assert table.splitlines()[0].split()[:3] == ["run", "task", "state"]


def test_ctrl_c_leaves_the_run_running(start, long_run: str, updates: Callable[[], int]) -> None:
    watching = start("watch", long_run, "--json")
    read_until(watching, "programs ")
    watching.send_signal(signal.SIGINT)
    _, stderr = watching.communicate(timeout=20)
    assert watching.returncode == 130
    assert "the run goes on" in stderr
    before = updates()
    wait_for(lambda: updates() > before)


def test_a_pause_is_told_to_who_watches(on, start, long_run: str, updates: Callable[[], int]) -> None:
    watching = start("watch", long_run, "--quiet")
    wait_for(lambda: updates() >= 1)
    on("runs", "pause", long_run)
    assert f"altlas runs resume {long_run}" in read_until(watching, "^paused")
    on("runs", "resume", long_run)
    read_until(watching, "the run goes on")
    assert on("runs", "stop", long_run, "--no-wait").code == 0
    stdout, stderr = watching.communicate(timeout=20)
    assert watching.returncode == (0 if stdout.startswith("solved") else 3), stderr


def test_an_unknown_run_is_answered_with_those_there_are(on) -> None:
    on(*SHORT, "--name", "known")
    for command in (("watch",), ("runs", "pause")):
        done = on(*command, "unknown")
        assert done.code == 1
        assert "unknown" in done.stderr
        assert re.search(r"\bknown\b", done.stderr)


def test_a_name_is_taken_once(on) -> None:
    assert on(*SHORT, "--name", "taken").code == 0
    again = on(*SHORT, "--name", "taken")
    assert again.code == 2
    assert "--name taken" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("runs", "list", "--coordinator", "nowhere"), 2, "give HOST:PORT"),
        (("submit", "stdin/nothing"), 2, "no task"),
        (("submit", "stdin/echo", "--set", "run.sead=1"), 2, "run.seed"),
        (("submit", "stdin/echo", "--name", "../up"), 2, "letters, digits"),
    ],
)
def test_mistakes_are_named(on, arguments: Sequence[str], code: int, said: str) -> None:
    done = on(*arguments)
    assert done.code == code
    assert said in done.stderr


@pytest.mark.parametrize("command", [("runs", "list"), ("watch", "some"), ("submit", "stdin/echo")])
def test_nobody_there(altlas, command: Sequence[str]) -> None:
    with socket.socket() as held:  # bound but not listening: nobody else takes the port, nobody answers
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        started_at = time.monotonic()
        done = altlas(*command, "--coordinator", address)
        assert time.monotonic() - started_at < 10
    assert done.code == 1
    assert f"no coordinator answers at {address} (Connection refused)" in done.stderr
    assert "altlas serve coordinator" in done.stderr


def test_what_answers_without_being_a_coordinator(stack: Stack, altlas) -> None:
    trainer = stack.coordinator.replace("coordinator", "trainer")
    done = altlas("runs", "list", "--coordinator", trainer)
    assert done.code == 1
    assert f"what answers at {trainer} is no coordinator" in done.stderr


class Line:
    """A connection that can be cut: forwards a socket's bytes to another."""

    def __init__(self, path: Path, target: str) -> None:
        self._path, self._target = path, target
        self._sockets: list[socket.socket] = []
        self.mend()

    def mend(self) -> None:
        """Listen."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        listener.listen()
        self._sockets.append(listener)
        threading.Thread(target=self._accept, args=[listener], daemon=True).start()

    def cut(self) -> None:
        """End every connection and listen no more."""
        self._path.unlink()
        for each in self._sockets:
            with contextlib.suppress(OSError):  # the other side may have been first
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        try:
            while True:
                near, far = listener.accept()[0], socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self._sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=pair, daemon=True).start()
        except OSError:
            return  # cut

    @staticmethod
    def _forward(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            return  # cut


def test_watching_goes_on_when_the_connection_is_back(stack: Stack, on, start, long_run: str) -> None:
    path = Path(stack.coordinator.removeprefix("unix:")).with_name("line")
    line = Line(path, stack.coordinator.removeprefix("unix:"))
    watching = start("watch", long_run, "--json", at=f"unix:{path}")
    read_until(watching, "programs ")
    line.cut()
    read_until(watching, f"waiting for the coordinator at unix:{path} ...")
    line.mend()
    read_until(watching, r"resumed after \d+ s")
    read_until(watching, "programs ")
    on("runs", "stop", long_run)
    stdout, _ = watching.communicate(timeout=20)
    assert json.loads(stdout)["stop_reason"] == "requested"
    line.cut()


class Restarted(Coordinator):
    """Counts its events anew after event 7, as a coordinator that was started again does."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def run(self, run_id: str) -> coordinator_pb2.Run:
        state = coordinator_pb2.RUN_STATE_FINISHED if len(self.asked) == 3 else coordinator_pb2.RUN_STATE_RUNNING
        return coordinator_pb2.Run(state=state, progress=coordinator_pb2.Progress(update=len(self.asked)))

    async def events(
        self, run_id: str, *, after_sequence: int, timeout_s: float
    ) -> AsyncIterator[coordinator_pb2.RunEvent]:
        self.asked.append(after_sequence)
        for sequence in {1: [7], 2: [], 3: [1, 2]}[len(self.asked)]:
            yield coordinator_pb2.RunEvent(sequence=sequence)


def test_a_coordinator_that_counts_anew_is_followed_from_its_first_event() -> None:
    coordinator = Restarted()

    async def follow_it() -> coordinator_pb2.Run:
        return await follow(coordinator, await coordinator.run("run"), view=None)

    assert asyncio.run(follow_it()).state == coordinator_pb2.RUN_STATE_FINISHED
    assert coordinator.asked == [0, 7, 0]


def test_help_does_not_wait_for_grpc() -> None:
    code = "import sys, altlas.cli.main; sys.exit('grpc' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
