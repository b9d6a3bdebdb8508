"""The Redis of deploy/kubernetes: what its pod runs first makes the users, a real server takes them, and the user for
KEDA reads there what evaluators are scaled by.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from helm_chart import Object, environment, named, require_helm
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from altlas.transport.embedded import find_server
from altlas.transport.keys import RunKeys
from altlas.transport.ports import Commit, JobId, JobMessage
from altlas.transport.redis_client import connect, connect_blocking
from altlas.transport.redis_streams import RedisJobQueue, RedisJobSource

RUN = "hello-1"


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return require_helm().render("", ["evaluator.autoscaling.enabled=true", f"evaluator.autoscaling.runs={{{RUN}}}"])


PASSWORDS = {user: f"{user}&/Word\\1" for user in ("coordinator", "evaluator", "exporter", "keda")}


def make_users(
    objects: Sequence[Object], directory: Path, passwords: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run what the first container of the Redis pod runs, on folders of our own."""
    for file, text in named(objects, "ConfigMap", "altlas-redis")["data"].items():
        (directory / file).write_text(text)
    (directory / "passwords").mkdir()
    for user, password in passwords.items():
        (directory / "passwords" / user).write_text(password)
    own = {"SOURCE": directory / "users.acl", "PASSWORDS": directory / "passwords", "TARGET": directory / "made.acl"}
    (first,) = named(objects, "StatefulSet", "altlas-redis")["spec"]["template"]["spec"]["initContainers"]
    assert set(environment(first)) == set(own)
    script, text = first["command"], {name: str(path) for name, path in own.items()}
    assert script == ["sh", "/etc/altlas/make-users.sh"]
    return subprocess.run(
        ["sh", directory / "make-users.sh"], env={**os.environ, **text}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def server(objects: list[Object], redis_url: str) -> Iterator[str]:
    """The Redis of the chart, its configuration, command and users, on a socket.

    `redis_url` decides whether there is a server at all.
    """
    with tempfile.TemporaryDirectory(prefix="altlas-") as directory:
        done = make_users(objects, Path(directory), PASSWORDS)
        assert done.returncode == 0, done.stderr
        container = named(objects, "StatefulSet", "altlas-redis")["spec"]["template"]["spec"]["containers"][0]
        places = {"/etc/altlas/redis.conf": "redis.conf", "/run/altlas/users.acl": "made.acl", "/data": ""}
        words = [f"{directory}/{places[word]}" if word in places else word for word in container["command"][1:]]
        options = ["--port", "0", "--unixsocket", f"{directory}/s"]
        process = subprocess.Popen([find_server().path, *words, *options], stdout=subprocess.PIPE)
        try:
            patient = Retry(ConstantBackoff(0.05), 200)
            with redis.Redis(
                unix_socket_path=f"{directory}/s", username="probe", password="any", retry=patient
            ) as probe:
                assert probe.ping()
            yield f"{directory}/s"
        finally:
            process.kill()
            process.communicate()


def client(server: str, user: str, password: str = "") -> redis.Redis:
    once = Retry(NoBackoff(), 0)
    return redis.Redis(unix_socket_path=server, username=user, password=password or PASSWORDS[user], retry=once)


def test_the_users_of_redis_are_made_of_the_secrets(server: str) -> None:
    with client(server, "probe", "any") as probe:
        assert probe.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            probe.get("altlas:runs")
    with (
        redis.Redis(unix_socket_path=server, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    for user in PASSWORDS:
        with client(server, user, "wrong") as wrong, pytest.raises(redis.AuthenticationError):
            wrong.ping()
    with client(server, "exporter") as exporter:
        assert exporter.config_get("appendonly", "maxmemory") == {"appendonly": "yes", "maxmemory": str(768 << 20)}
        assert exporter.info("persistence")["aof_enabled"] == 1
        with pytest.raises(redis.exceptions.NoPermissionError):
            exporter.get("altlas:runs")


def test_a_user_without_password_is_left_out_and_an_empty_one_refused(objects: list[Object], tmp_path: Path) -> None:
    for name in ("without", "empty"):
        (tmp_path / name).mkdir()
    without = {user: password for user, password in PASSWORDS.items() if user != "keda"}
    assert make_users(objects, tmp_path / "without", without).returncode == 0
    lines = (tmp_path / "without" / "made.acl").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["default", "coordinator", "evaluator", "probe", "exporter"]
    refused = make_users(objects, tmp_path / "empty", PASSWORDS | {"evaluator": ""})
    assert refused.returncode != 0
    assert "the password of Redis user evaluator is empty" in refused.stderr


JOBS = RunKeys(RUN).jobs


def lag(keda: redis.Redis) -> Any:
    """What KEDA's redis-streams scaler reads, with the commands that it gives; None where Redis cannot tell."""
    assert int(str(keda.info()["redis_version"]).split(".")[0]) >= 7
    return keda.xinfo_groups(JOBS)[0]["lag"]


def url(server: str, user: str) -> str:
    return f"unix://{server}?username={user}&password={quote(PASSWORDS[user])}"


@asynccontextmanager
async def open_run(server: str, *, jobs: int) -> AsyncIterator[RedisJobQueue]:
    async with await connect(url(server, "coordinator")) as coordinator:
        queue = RedisJobQueue(coordinator, RUN)
        await queue.lead(owner="test")
        await queue.open(task_digest="digest", task_text="the task")
        await queue.submit(0, [JobMessage(JobId(f"u0.s{number}"), b"") for number in range(jobs)])
        yield queue
        await queue.close()
        await queue.yield_lead()


def test_lag_is_the_jobs_that_no_evaluator_has(server: str) -> None:
    async def main() -> None:
        async with open_run(server, jobs=0) as queue:
            assert lag(keda) == 0
            await queue.submit(0, [JobMessage(JobId(f"u0.s{number}"), b"") for number in range(3)])
            assert lag(keda) == 3
            (first,) = source.take(count=1, block_s=1)
            assert lag(keda) == 2
            source.release([first])
            assert lag(keda) == 3
            for delivery in source.take(count=3, block_s=1):
                source.commit(Commit(delivery=delivery, payload=b"result"))
            assert lag(keda) == 0
            await queue.submit(1, [JobMessage(JobId("u1.s0"), b"")])
            assert lag(keda) == 1

    with client(server, "keda") as keda, connect_blocking(url(server, "evaluator")) as worker:
        # Before a run and after it KEDA counts 0 for exactly these words.
        with pytest.raises(redis.ResponseError, match=r"^no such key$"):
            lag(keda)
        source = RedisJobSource(worker)
        asyncio.run(main())
        with pytest.raises(redis.ResponseError, match=r"^no such key$"):
            lag(keda)
        with pytest.raises(redis.exceptions.NoPermissionError):
            keda.xrange(JOBS)


def test_the_streams_length_tells_of_work_where_the_lag_is_unknown(server: str) -> None:
    async def main() -> None:
        async with open_run(server, jobs=2) as queue:
            (first, second) = source.take(count=2, block_s=1)
            source.release([first])
            assert source.commit(Commit(delivery=first, payload=b"late"))
            await queue.submit(1, [JobMessage(JobId("u1.s0"), b"")])
            assert (lag(keda), keda.xlen(JOBS)) == (None, 2)
            source.commit(Commit(delivery=second, payload=b"result"))
            assert (lag(keda), keda.xlen(JOBS)) == (None, 1)
            for delivery in source.take(count=1, block_s=1):
                source.commit(Commit(delivery=delivery, payload=b"result"))
            assert (lag(keda), keda.xlen(JOBS)) == (0, 0)

    with client(server, "keda") as keda, connect_blocking(url(server, "evaluator")) as worker:
        source = RedisJobSource(worker)
        asyncio.run(main())
