"""Every role as a process of this machine: Redis, trainer, generator, coordinator and evaluators on unix sockets.

Invariants: no port is taken and nothing listens on the network; every process ends with this one, even when this one is
killed; a role that was killed is replaced, Redis too, up to a limit; one that ends by itself, or dies too often, ends
the run with its last words.
The processes start before grpc is imported here, so that nothing forks beside its threads.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from altlas.config.sections import Config
from altlas.errors import AltlasError, TransientError
from altlas.transport.embedded import EmbeddedRedis
from altlas.transport.redis_client import connect_blocking, redis_address
from altlas.transport.socket_dir import SocketDir

LOGGER = logging.getLogger(__name__)
CONFIG_FILE = "config.ini"
_GRACE_S = 15.0
_CALLEES = ("trainer", "generator")
_FIRST_START = ("--no-adopt",)
_LAST_WORDS_LINES = 15


@dataclass
class RoleProcess:
    """One role's process, its address and the file that holds its log."""

    name: str
    command: Sequence[str]
    address: str
    log_path: Path
    process: subprocess.Popen[bytes]

    def last_words(self) -> str:
        """Return the end of the role's log."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_LAST_WORDS_LINES:])


class LocalStack:
    """The processes of one local run, configured by the config.ini in its directory. A context manager."""

    def __init__(self, config: Config, run_dir: Path) -> None:
        self._config = config
        self._run_dir = run_dir
        self._sockets = SocketDir()
        self._redis: EmbeddedRedis | None = None
        self._roles: dict[str, RoleProcess] = {}
        self._restarts: Counter[str] = Counter()

    def __enter__(self) -> LocalStack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def addresses(self) -> dict[str, str]:
        """Address of every role, by name."""
        return {name: role.address for name, role in self._roles.items()}

    @property
    def pids(self) -> dict[str, int]:
        """Process id of every role, by name, and of Redis where it is our own."""
        own = {"redis": self._redis.pid} if self._redis is not None else {}
        return {name: role.process.pid for name, role in self._roles.items()} | own

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often each process has been replaced, by name; those never replaced are left out."""
        return dict(self._restarts)

    def start(self) -> None:
        """Start every process; does not wait until they serve.

        Raises:
            ConfigError: no Redis server can be found, or the configured address is none.
            AltlasError: Redis did not start.
            TransientError: the configured Redis cannot be reached.
        """
        redis_url, address = self._config.transport.redis_url, redis_address(self._config.transport)
        if not redis_url:
            self._redis = EmbeddedRedis(self._run_dir / "redis")
            self._redis.start()
            redis_url = self._redis.url
        else:
            connect_blocking(address, self._config.security).close()
        trainer = f"unix:{self._sockets.path}/trainer"
        self._spawn("trainer")
        generators = [f"generator-{number}" for number in range(self._config.run.generators)]
        for name in generators:
            self._spawn(name, "--trainer", trainer)
        for number in range(self._config.run.evaluators):
            self._spawn(f"evaluator-{number}", "--redis-url", redis_url, *self._slots())
        # Whoever holds the run's directory leads the run: a killed command's lease need not be waited for.
        self._spawn(
            "coordinator",
            *("--trainer", trainer, "--redis-url", redis_url),
            *(option for name in generators for option in ("--generator", f"unix:{self._sockets.path}/{name}")),
            *("--name", f"{socket.gethostname()} {self._run_dir}"),
            *_FIRST_START,
        )

    def check(self) -> None:
        """Look after the processes: replace those that were killed.

        Raises:
            AltlasError: a role has ended by itself, or one has died too often; the message holds its last words.
            TransientError: Redis did not come back.
        """
        self._check_redis()
        for name, role in list(self._roles.items()):
            code = role.process.poll()
            if code is None:
                continue
            if code < 0 and self._may_restart(name):
                LOGGER.warning("%s died (%s): starting another", name, _how(code))
                # A coordinator that comes after another goes on with what that one led.
                role.command = [word for word in role.command if word not in _FIRST_START]
                role.process = self._popen(role.command, role.log_path)
                continue
            raise AltlasError(f"{name} died ({_how(code)}); the end of {role.log_path}:\n{role.last_words()}")

    def _check_redis(self) -> None:
        if self._redis is None:
            return
        try:
            self._redis.check()
        except TransientError:
            if not self._may_restart("redis"):
                raise
            LOGGER.warning("redis died: starting another")
            self._redis.restart()

    def _may_restart(self, name: str) -> bool:
        self._restarts[name] += 1
        return self._restarts[name] <= self._config.watchdog.restarts

    def stop(self) -> None:
        """End every process: coordinator and evaluators first, then the roles they call, then Redis."""
        for is_callee in (False, True):
            group = [role for name, role in self._roles.items() if name.startswith(_CALLEES) == is_callee]
            for role in group:
                role.process.terminate()
                role.process.send_signal(signal.SIGCONT)  # one that is stopped ends no sooner than it goes on
            deadline = time.monotonic() + _GRACE_S
            for role in group:
                try:
                    role.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    LOGGER.warning("%s does not end: killed", role.name)
                    role.process.kill()
                    role.process.wait()
        self._roles.clear()
        if self._redis is not None:
            self._redis.stop()
            self._redis = None
        self._sockets.remove()

    def _slots(self) -> list[str]:
        if self._config.sandbox.slots:
            return []
        cores = len(os.sched_getaffinity(0))
        return ["--set", f"sandbox.slots={max(1, cores // self._config.run.evaluators)}"]

    def _spawn(self, name: str, *arguments: str) -> None:
        address = f"unix:{self._sockets.path}/{name}"
        command = [
            *(sys.executable, "-m", "altlas.cli.main", "serve", name.partition("-")[0]),
            *("--listen", address, "--config", str(self._run_dir / CONFIG_FILE), "--exit-with", str(os.getpid())),
            *arguments,
        ]
        log_path = self._run_dir / "logs" / f"{name}.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self._roles[name] = RoleProcess(name, command, address, log_path, self._popen(command, log_path))

    @staticmethod
    def _popen(command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
        # The resolved file is the whole configuration; ALTLAS_ variables are in it already and must not win again.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ALTLAS_")}
        with log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # a Ctrl-C in the terminal is for the command, which then stops the roles
            )


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
