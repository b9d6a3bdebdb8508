"""What of the other roles, of the host and of the world can be seen or reached from the container."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import redis
from probe_checks import FACTS, check, processes
from redis.backoff import NoBackoff
from redis.retry import Retry

_CONNECT_S = 2
_THREADS = 64
_MOST_READ = 1 << 20


def _readable_files() -> Iterator[Path]:
    # Of the interpreter and the packages: the same in every container of the image, and public.
    skipped = {"/proc", "/sys", "/usr/lib", "/usr/share", "/opt/altlas/lib"}
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in skipped]  # noqa: PTH118
        for name in files:
            path = Path(folder, name)
            try:
                if path.is_file() and path.stat().st_size <= _MOST_READ:
                    yield path
            except OSError:
                continue


def _seen_secrets(paths: Iterator[Path]) -> str | None:
    wanted = {role: value.encode() for role, value in FACTS["secrets"].items()}
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError:
            continue
        for role, value in wanted.items():
            if value in content:
                return f"{path} holds the secret of {role}"
    return None


@check("no other role's secret in an environment or a command line")
def _secrets_in_processes() -> str | None:
    if not FACTS["secrets"]:
        return "no secrets to look for were given"
    # This process was given them to look for.
    pids = [pid for pid, _ in processes() if pid != os.getpid()]
    return _seen_secrets(Path(f"/proc/{pid}/{what}") for pid in pids for what in ("environ", "cmdline"))


check("no other role's secret in a file")(lambda: _seen_secrets(_readable_files()))


def _redis(**arguments: Any) -> Any:
    patience = Retry(NoBackoff(), 0)
    return redis.Redis(host="redis", socket_timeout=5, socket_connect_timeout=5, retry=patience, **arguments)


def _own_redis() -> Any:
    password = Path(os.environ["ALTLAS_TRANSPORT__REDIS_PASSWORD_FILE"]).read_text().strip()
    return _redis(username="evaluator", password=password)


@check("Redis answers the evaluator's user")
def _redis_answers() -> str | None:
    return None if _own_redis().ping() else "no PONG"


@check("the evaluator's user may do no other's work in Redis")
def _redis_rights() -> str | None:
    commands = (
        "KEYS *|SCAN 0|CONFIG GET *|ACL LIST|ACL GETUSER coordinator|CLIENT LIST|MONITOR|INFO|FLUSHALL|SHUTDOWN NOSAVE"
        "|EVAL return(1) 0|GET altlas:anything|SET altlas:anything 1|DEL altlas:runs|DUMP altlas:runs|SAVE|BGREWRITEAOF"
        "|REPLICAOF 127.0.0.1 1|MODULE LIST|FUNCTION LIST|DEBUG SLEEP 0|PUBLISH anything 1|SCRIPT FLUSH|SELECT 1"
    )
    client, done = _own_redis(), []
    for command in commands.split("|"):
        try:
            client.execute_command(*command.split())
        except redis.exceptions.NoPermissionError:
            continue
        except redis.exceptions.ResponseError as error:
            if "permission" in str(error) or "not allowed" in str(error):
                continue
            done.append(f"{command} ({error})")
        else:
            if command != "SELECT 1":
                done.append(command)
    return f"not refused: {done}" if done else None


@check("no other user of Redis is open")
def _redis_users() -> str | None:
    own = Path(os.environ["ALTLAS_TRANSPORT__REDIS_PASSWORD_FILE"]).read_text().strip()
    for arguments in ({}, *({"username": user, "password": own} for user in ("default", "coordinator", "exporter"))):
        try:
            _redis(**arguments).execute_command("GET", "altlas:runs")
        except redis.exceptions.RedisError:
            continue
        return f"somebody came in with {sorted(arguments)}: {arguments.get('username', 'no name')}"
    return None


def _connects(address: str, port: int) -> int | None:
    """Return None when a connection was made, else the error's number; 0 when nobody answered in time."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(_CONNECT_S)
        try:
            client.connect((address, port))
        except TimeoutError:
            return 0
        except OSError as error:
            return error.errno or 0
    return None


def _reached(targets: list[tuple[str, str, int]]) -> list[str]:
    with ThreadPoolExecutor(_THREADS) as pool:
        outcomes = list(pool.map(lambda target: _connects(target[1], target[2]), targets))
    return [
        f"{name} at {address}:{port}"
        for (name, address, port), error in zip(targets, outcomes, strict=True)
        if error is None
    ]


@check("Redis can be reached")
def _reach_redis() -> str | None:
    return None if _connects(socket.gethostbyname("redis"), 6379) is None else "it cannot"


@cache
def _addresses_of_names() -> dict[str, str]:
    """Return the names, of other roles and of the outside, that have an address here. One without takes its time."""

    def look_up(name: str) -> str | None:
        try:
            return socket.gethostbyname(name)
        except OSError:
            return None

    names = [*FACTS["services"], *FACTS["outside_names"]]
    with ThreadPoolExecutor(_THREADS) as pool:
        return {name: address for name, address in zip(names, pool.map(look_up, names), strict=True) if address}


@check("no other role, by name")
def _names() -> str | None:
    known = [(name, address) for name, address in _addresses_of_names().items() if name in FACTS["services"]]
    found = _reached([(name, address, port) for name, address in known for port in FACTS["ports"]])
    return f"reached {found}" if found else None


@check("no other role, by address")
def _addresses() -> str | None:
    found = _reached([(name, address, port) for name, address in FACTS["addresses"] for port in FACTS["ports"]])
    return f"reached {found}" if found else None


@check("of another evaluator nothing but its metrics")
def _peers() -> str | None:
    ports = [port for port in FACTS["ports"] if port != 9100]
    found = _reached([("evaluator", address, port) for address in FACTS["peers"] for port in ports])
    return f"reached {found}" if found else None


@check("not the host, at a port that listens everywhere there")
def _host() -> str | None:
    found = _reached([("the host", address, FACTS["host_port"]) for address in FACTS["host_addresses"]])
    return f"reached {found}" if found else None


@check("no way to the internet or to a cloud's metadata")
def _internet() -> str | None:
    addresses = ("1.1.1.1", "8.8.8.8", "169.254.169.254", "2606:4700:4700::1111", "fd00:ec2::254")
    found = _reached([("the world", address, port) for address in addresses for port in (53, 80, 443)])
    return f"reached {found}" if found else None


@check("no name of the outside is looked up")
def _outside_names() -> str | None:
    found = {name: address for name, address in _addresses_of_names().items() if name in FACTS["outside_names"]}
    return f"looked up: {found}" if found else None


@check("no raw packets")
def _raw() -> str | None:
    for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW)):
        try:
            socket.socket(family, kind, socket.IPPROTO_ICMP if family == socket.AF_INET else 0).close()
        except PermissionError:
            continue
        return f"a raw socket of {family.name}"
    return None
