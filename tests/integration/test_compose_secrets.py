"""What the first start makes: passwords of our own, and a Redis that knows nobody but their users."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from altlas.config.sections import TransportSection
from altlas.errors import ConfigError
from altlas.transport.embedded import find_server
from altlas.transport.redis_client import connect_blocking, redis_address

DEPLOY = Path(__file__).parents[2] / "deploy"
OWNERS = ("coordinator", "evaluator", "exporter", "grafana")


def make_secrets(directory: Path) -> Path:
    """Run the script as docker compose does, in `directory`, where it may have run before."""
    users, secrets = directory / "altlas", directory / "secrets"
    for path in (users, *(secrets / name for name in (*OWNERS, "redis"))):
        path.mkdir(parents=True, exist_ok=True)
    shutil.copy(DEPLOY / "redis" / "users.acl", users / "users.acl")
    shutil.copy(DEPLOY / "compose" / "users.acl", users / "more-users.acl")
    subprocess.run(["/bin/sh", DEPLOY / "compose" / "make-secrets.sh", users, secrets], check=True, timeout=30)
    return secrets


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_secrets(tmp_path_factory.mktemp("compose"))


@pytest.fixture(scope="module")
def server(redis_url: str, secrets: Path) -> Iterator[str]:
    """The socket of a server with the users that were made; `redis_url` decides whether there is a server at all."""
    path = secrets.parent / "s"
    command = [find_server().path, "--port", "0", "--unixsocket", path, "--aclfile", secrets / "redis" / "users.acl"]
    process = subprocess.Popen([*command, "--save", "", "--dir", secrets.parent], stdout=subprocess.DEVNULL)
    try:
        patient = Retry(ConstantBackoff(0.05), 200)
        with redis.Redis(unix_socket_path=str(path), username="probe", password="", retry=patient) as client:
            client.ping()
        yield str(path)
    finally:
        process.kill()
        process.wait()


def client_of(server: str, user: str, password: str) -> redis.Redis:
    return redis.Redis(unix_socket_path=server, username=user, password=password)


def test_each_password_is_another_and_stays(secrets: Path) -> None:
    passwords = {name: (secrets / name / "password").read_text() for name in OWNERS}
    assert all(re.fullmatch(r"[0-9a-f]{64}\n", password) for password in passwords.values())
    assert len(set(passwords.values())) == len(OWNERS)
    users = (secrets / "redis" / "users.acl").read_text()
    make_secrets(secrets.parent)
    assert passwords == {name: (secrets / name / "password").read_text() for name in OWNERS}
    assert (secrets / "redis" / "users.acl").read_text() == users
    assert "PASSWORD" not in users
    assert not any(password.strip() in users for password in passwords.values())


def test_what_was_lost_is_made_anew(tmp_path: Path) -> None:
    before = (make_secrets(tmp_path) / "redis" / "users.acl").read_text().splitlines()
    (tmp_path / "secrets" / "evaluator" / "password").unlink()
    after = (make_secrets(tmp_path) / "redis" / "users.acl").read_text().splitlines()
    changed = [new.split()[1] for old, new in zip(before, after, strict=True) if old != new]
    assert changed == ["evaluator"]


@pytest.mark.parametrize("role", ["coordinator", "evaluator"])
def test_a_role_connects_with_its_file(server: str, secrets: Path, role: str) -> None:
    section = TransportSection(
        redis_url=f"unix://{role}@{server}", redis_password_file=str(secrets / role / "password")
    )
    connect_blocking(redis_address(section)).close()
    wrong = section.model_copy(update={"redis_password_file": str(secrets / "grafana" / "password")})
    with pytest.raises(ConfigError, match="refuses these credentials"):
        connect_blocking(redis_address(wrong))


def test_the_exporter_reads_figures_and_no_keys(server: str, secrets: Path) -> None:
    passwords = json.loads((secrets / "exporter" / "passwords.json").read_text())
    assert passwords.keys() == {"redis://exporter@redis:6379", "redis://redis:6379"}
    with client_of(server, "exporter", passwords["redis://redis:6379"]) as client:
        assert client.info()["redis_version"]
        for refused in (lambda: client.get("altlas:runs"), lambda: client.config_set("save", ""), client.flushall):
            with pytest.raises(redis.exceptions.NoPermissionError):
                refused()


def test_who_gives_no_password_is_refused(server: str) -> None:
    with (
        redis.Redis(unix_socket_path=server, retry=Retry(ConstantBackoff(0), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_the_health_check_may_ping_and_nothing_else(server: str) -> None:
    with client_of(server, "probe", "") as client:
        assert client.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.info()


@pytest.mark.parametrize(
    ("url", "content", "message"),
    [
        ("redis://evaluator@redis:6379/0", None, "cannot be read: No such file"),
        ("redis://evaluator@redis:6379/0", "\n", "is empty"),
        ("redis://evaluator:old@redis:6379/0", "new", "holds a password as well"),
        ("", "new", "names no server"),
    ],
)
def test_a_password_file_that_is_wrong_is_named(tmp_path: Path, url: str, content: str | None, message: str) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=f"transport.redis_password_file = {path}.*{message}"):
        redis_address(TransportSection(redis_url=url, redis_password_file=str(path)))


def test_a_password_of_any_characters_reaches_redis(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p@ss w/:?#%\n")
    section = TransportSection(redis_url="redis://me@host:1/2", redis_password_file=str(tmp_path / "password"))
    with redis.Redis.from_url(redis_address(section)) as client:
        settings = client.connection_pool.connection_kwargs
    wanted = {"username": "me", "password": "p@ss w/:?#%", "host": "host", "port": 1, "db": 2}
    assert {key: settings[key] for key in wanted} == wanted
