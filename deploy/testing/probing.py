"""Runs the probe in an evaluator's container: under Docker's default seccomp profile, and with namespaces.yml.

What the probe looks for is gathered here: where everybody else is, what their secrets are, a port of the host's.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drill import start
from stack import Stack
from steps import DrillError, step

_MODULES = ("probe_checks", "probe_container", "probe_others", "probe_limits")
_RUN = """
import sys, types
for name, source in SOURCES.items():
    sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), sys.modules[name].__dict__)
sys.exit(sys.modules["probe_checks"].run_checks())
"""
_PORTS = (22, 80, 443, 2375, 3000, 6379, 9090, 9100, 9121, *range(50051, 50055))
_PROBE_S = 300
_NAMESPACES = ("docker-compose.yml", "deploy/compose/namespaces.yml")


def run_probe(stack: Stack) -> None:
    """Probe both tiers; two evaluators, so that there is another one to be kept from.

    Raises:
        DrillError: a check failed, or the container did not survive it.
    """
    with step("docker compose up for the probe"):
        start(stack, 2)
    _probe(stack, "landlock")
    stack.files = _NAMESPACES
    with step("the same with the overlay namespaces.yml"):
        start(stack, 2)
    _probe(stack, "namespaces")


def _probe(stack: Stack, tier: str) -> None:
    with step(f"probe in the evaluator's container, tier {tier}") as found, _listener() as port:
        before = stack.containers("evaluator")
        facts = {**_facts(stack), "tier": tier, "host_port": port}
        arguments = ("exec", "--no-TTY", "--env", "PROBE_FACTS", "--index", "1", "evaluator", "python", "-")
        environment = stack.environment
        stack.environment = {**environment, "PROBE_FACTS": json.dumps(facts)}
        try:
            said = stack.compose(*arguments, timeout_s=_PROBE_S, stdin=_script(), expected=(0, 1))
        finally:
            stack.environment = environment
        print(said, end="")
        found.found = said.splitlines()[-1] if said else "it said nothing"
        if not re.fullmatch(r"probe: \d+ checks, 0 failures", found.found):
            raise DrillError(f"the probe of tier {tier} found something")
        if stack.containers("evaluator") != before:
            raise DrillError("an evaluator was restarted or became unhealthy while it was probed")


def _script() -> str:
    """Return the modules of the probe as one script."""
    here = Path(__file__).parent
    return f"SOURCES = { {name: (here / f'{name}.py').read_text() for name in _MODULES}!r}\n{_RUN}"


def _facts(stack: Stack) -> dict[str, Any]:
    inspected = [json.loads(stack.engine.docker("inspect", one.identity))[0] for one in stack.containers()]
    networks = {one["Id"]: one["NetworkSettings"]["Networks"] for one in inspected}
    first, *peers = stack.containers("evaluator")
    shared = set(networks[first.identity])
    addresses, services = [], set()
    for one in stack.containers():
        if one.service != "evaluator":
            services.add(one.service)
            for name, network in networks[one.identity].items():
                # Redis where it is meant to be reached.
                if network["IPAddress"] and not (one.service == "redis" and name in shared):
                    addresses.append((one.service, network["IPAddress"]))
    return {
        "services": sorted(services - {"redis"}),
        "addresses": addresses,
        "peers": [networks[peer.identity][name]["IPAddress"] for peer in peers for name in shared],
        "ports": _PORTS,
        "host_addresses": _host_addresses(stack),
        "outside_names": _outside_names(),
        "secrets": _secrets(stack),
    }


def _secrets(stack: Stack) -> dict[str, str]:
    """Return what the others are given and the evaluator must not see."""
    places = {
        "coordinator": "/run/secrets/redis/password",
        "redis-exporter": "/run/secrets/redis/password",
        "grafana": "/run/secrets/grafana/password",
    }
    found = {
        service: stack.compose("exec", "--no-TTY", service, "cat", path).strip() for service, path in places.items()
    }
    users = stack.compose("exec", "--no-TTY", "redis", "cat", "/run/secrets/redis/users.acl")
    found["redis"] = re.findall(r"^user coordinator on #([0-9a-f]{64})", users, re.MULTILINE)[0]
    if not all(len(value) >= 32 for value in found.values()):
        raise DrillError(f"secrets of {sorted(found)} are not all there")
    return found


def _host_addresses(stack: Stack) -> list[str]:
    """Return addresses of this machine: the gateways of the stack's networks, and that of its way out."""
    gateways = []
    for name in stack.leftovers()["networks"]:
        network = json.loads(stack.engine.docker("network", "inspect", name))[0]
        gateways += [part["Gateway"] for part in network["IPAM"]["Config"] if part.get("Gateway")]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outwards:
        try:
            outwards.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return gateways
        return [*gateways, str(outwards.getsockname()[0])]


def _outside_names() -> list[str]:
    """Return names that this machine can look up, of those that it may: at least those of its packages' sources."""
    sources = " ".join(path.read_text() for path in Path("/etc/apt").rglob("*") if path.suffix in (".list", ".sources"))
    names = []
    found = re.findall(r"^\s*(?:deb|URIs:)\s+(?:\[.*?\] )?https?://([^/\s]+)", sources, re.MULTILINE)
    for name in {"example.org", *found}:
        try:
            socket.gethostbyname(name)
        except OSError:
            continue
        names.append(name)
    return sorted(set(names))


@contextmanager
def _listener() -> Iterator[int]:
    """Listen on every address of this machine, as a careless service would; yield the port."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield int(server.getsockname()[1])
