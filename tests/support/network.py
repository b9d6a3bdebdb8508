"""Hosts of their own on this machine: network namespaces on one bridge, which nothing outside reaches or is reached by.

Invariant: what a Network started is gone when its block ends, however it ends: processes by pid, then namespaces, and
with these every link.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

_SUBNET = "10.77.0"
_GRACE_S = 10.0


def why_none() -> str:
    """Why there can be no Network here; empty where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no `ip` on PATH: install iproute2"
    name = f"altlas-{os.getpid()}-probe"
    probe = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"no network namespace may be made here: {probe.stderr.strip()}"
    _ip("netns", "del", name)
    return ""


class Network:
    """Hosts by name, each with an address, its own loopback and a cable to the bridge. A context manager.

    address: of each host, by name.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self.address: Mapping[str, str] = {host: f"{_SUBNET}.{number}" for number, host in enumerate(hosts, 1)}
        self._bridge = f"altlas-{os.getpid()}-bridge"
        self._cables = {host: f"port{number}" for number, host in enumerate(hosts, 1)}
        self._namespaces: list[str] = []
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Network:
        try:
            self._add_namespace(self._bridge)
            _ip("-n", self._bridge, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
            _ip("-n", self._bridge, "link", "set", "bridge", "up")
            for host in self.address:
                self._add_host(host)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def start(
        self, host: str, command: Sequence[str | Path], *, log: Path, stdout: int | None = None
    ) -> subprocess.Popen[str]:
        """Start a command on a host, in the log's directory; its stderr, and stdout if not elsewhere, go to the log."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ALTLAS_")}
        with log.open("ab") as sink:
            # `ip netns exec` becomes the command: the process is the command's own.
            process = subprocess.Popen(
                ["ip", "netns", "exec", self._namespace(host), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=sink if stdout is None else stdout,
                stderr=sink,
                text=True,
                cwd=log.parent,
                env=environment,
            )
        self._processes.append(process)
        return process

    def cut(self, host: str) -> None:
        """Take a host off the bridge: packets vanish both ways, no connection is told."""
        _ip("-n", self._bridge, "link", "set", self._cables[host], "down")

    def mend(self, host: str) -> None:
        """Put a host that was cut off back."""
        _ip("-n", self._bridge, "link", "set", self._cables[host], "up")

    def _namespace(self, host: str) -> str:
        return f"altlas-{os.getpid()}-{host}"

    def _add_namespace(self, name: str) -> None:
        _ip("netns", "add", name)
        self._namespaces.append(name)
        _ip("-n", name, "link", "set", "lo", "up")

    def _add_host(self, host: str) -> None:
        name, cable = self._namespace(host), self._cables[host]
        self._add_namespace(name)
        _ip("-n", self._bridge, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("-n", self._bridge, "link", "set", cable, "master", "bridge", "up")
        _ip("-n", name, "address", "add", f"{self.address[host]}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")

    def _remove(self) -> None:
        # In turn and the last first: whom a process calls is there while it drains.
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in reversed(self._namespaces):
            for pid in _ip("netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            _ip("netns", "del", name)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout
