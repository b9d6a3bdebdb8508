"""A stack of docker compose from a copy of the working tree, under a name, ports and a tag of images of its own."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import Engine
from steps import DrillError, run

PROJECT = "altlas-compose-test"
_OLDEST_COMPOSE = (2, 26)
_UNDER_TEST = Path(__file__).resolve().parents[2]
_ALTLAS = Path(sys.executable).with_name("altlas")
_RUNS = "/var/lib/altlas/runs"


@dataclass(frozen=True)
class Container:
    """A container of the stack: what it is, since when, and how often the engine has restarted it."""

    identity: str
    service: str
    name: str
    state: str
    health: str
    started: str
    restarts: int
    process: int


@dataclass
class Stack:
    """The stack. `environment` is the engine's with what the compose files ask for; nothing is set that need not be."""

    engine: Engine
    directory: Path
    environment: dict[str, str]
    files: Sequence[str] = ()
    ports: dict[str, int] = field(default_factory=dict)

    def compose(self, *arguments: str, timeout_s: float = 120, stdin: str = "", expected: Sequence[int] = (0,)) -> str:
        """Run docker compose and return what it printed."""
        files = [part for name in self.files for part in ("--file", name)]
        return run(
            ("docker", "compose", "--project-name", PROJECT, *files, *arguments),
            timeout_s=timeout_s,
            environment=self.environment,
            directory=self.directory,
            stdin=stdin,
            expected=expected,
        )

    def check_versions(self) -> None:
        """Check that compose is as new as docs/compose.md asks for.

        Raises:
            DrillError: it is older.
        """
        version = self.compose("version", "--short").strip().removeprefix("v")
        if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST_COMPOSE:
            raise DrillError(f"docker compose is {version}; {'.'.join(map(str, _OLDEST_COMPOSE))} or newer is needed")

    def config(self) -> Any:
        """Return what compose makes of its files."""
        return json.loads(self.compose("config", "--format", "json"))

    def containers(self, *services: str) -> list[Container]:
        """Return the containers of the stack, or of some services, ended ones too."""
        names = self.compose("ps", "--all", "--quiet", *services).split()
        return (
            sorted(map(_container, json.loads(self.engine.docker("inspect", *names))), key=lambda one: one.name)
            if names
            else []
        )

    def container(self, identity: str) -> Container:
        """Return a container as it is now."""
        return _container(json.loads(self.engine.docker("inspect", identity))[0])

    def altlas(self, *arguments: str, timeout_s: float = 60) -> Any:
        """Run an altlas command on this machine against the stack's coordinator and return its JSON."""
        environment = {**self.environment, "ALTLAS_COORDINATOR": f"127.0.0.1:{self.ports['COORDINATOR_PORT']}"}
        said = run((str(_ALTLAS), *arguments, "--json"), timeout_s=timeout_s, environment=environment, expected=(0, 3))
        return json.loads(said.splitlines()[-1])

    def submit(self, name: str, *arguments: str) -> None:
        """Start a run of a name."""
        self.altlas("submit", *arguments, "--name", name, "--run-dir", f"{_RUNS}/{name}")

    def standing(self, name: str) -> dict[str, Any] | None:
        """Return where a run stands; None while nobody answers."""
        try:
            standing: dict[str, Any] = self.altlas("runs", "show", name)
        except DrillError:
            return None
        return standing

    def prometheus(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Return the series of an expression, as Prometheus's API has them on its published port."""
        address = f"http://127.0.0.1:{self.ports['PROMETHEUS_PORT']}/api/v1/query?" + urllib.parse.urlencode(
            {"query": query}
        )
        with urllib.request.urlopen(address, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def print_logs(self) -> None:
        """Print what the containers said last: for whoever reads of a failure."""
        logs = self.compose("logs", "--tail", "8", "--no-color").replace("\x1b[2K", "")
        print(self.compose("ps", "--all"), logs, sep="\n", file=sys.stderr)

    def remove(self) -> None:
        """Take away everything that the stack has on the engine but its images."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "2", timeout_s=180)

    def leftovers(self) -> dict[str, list[str]]:
        """Return what the engine has of the stack: containers, networks and volumes by name."""
        label = f"label=com.docker.compose.project={PROJECT}"
        return {
            "containers": self.engine.docker("ps", "--all", "--filter", label, "--format", "{{.Names}}").split(),
            "networks": self.engine.docker("network", "ls", "--filter", label, "--format", "{{.Name}}").split(),
            "volumes": self.engine.docker("volume", "ls", "--quiet").split(),
        }


def make_stack(engine: Engine, directory: Path) -> Stack:
    """Copy the working tree, without what git ignores, to a directory; return a stack that lies there, not yet up."""
    copy_tree(directory)
    ports = dict(zip(("COORDINATOR_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"), _free_ports(3), strict=True))
    settings = {name: str(port) for name, port in ports.items()} | {"IMAGE_TAG": "compose-test"}
    inherited = {name: value for name, value in engine.environment.items() if not name.startswith("COMPOSE_")}
    return Stack(engine, directory, {**inherited, **settings}, ports=ports)


def copy_tree(directory: Path) -> None:
    """Copy what git would commit of the working tree."""
    listed = run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"), timeout_s=60, directory=_UNDER_TEST
    )
    for name in filter(None, listed.split("\0")):
        source, target = _UNDER_TEST / name, directory / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in sockets]
    for server in sockets:
        server.close()
    return ports


def _container(facts: dict[str, Any]) -> Container:
    state = facts["State"]
    return Container(
        identity=facts["Id"],
        service=facts["Config"]["Labels"]["com.docker.compose.service"],
        name=facts["Name"].removeprefix(f"/{PROJECT}-"),
        state=state["Status"],
        health=state.get("Health", {}).get("Status", "none"),
        started=state["StartedAt"],
        restarts=int(facts["RestartCount"]),
        process=int(state["Pid"]),
    )
