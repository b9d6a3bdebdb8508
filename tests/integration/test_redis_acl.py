"""deploy/redis/users.acl on a real server: what the two users need they may do, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from altlas.errors import AccessError, ConfigError
from altlas.transport.embedded import find_server
from altlas.transport.ports import Commit, DeadJobError, JobId, JobMessage
from altlas.transport.redis_client import connect, connect_blocking, own_errors
from altlas.transport.redis_streams import RedisJobQueue, RedisJobSource
from altlas.transport.registry import RedisRunRegistry

USERS = Path(__file__).parents[2] / "deploy" / "redis" / "users.acl"
PASSWORDS = {"coordinator": "first secret", "evaluator": "second secret"}


def start_server(directory: Path, users: str) -> tuple[subprocess.Popen[bytes], str]:
    (directory / "users.acl").write_text(users)
    socket_path = f"{directory}/s"
    settings = {"port": "0", "unixsocket": socket_path, "dir": str(directory), "aclfile": f"{directory}/users.acl"}
    options = [word for key, value in settings.items() for word in (f"--{key}", value)]
    process = subprocess.Popen([find_server().path, *options, "--save", ""], stdout=subprocess.PIPE)
    return process, socket_path


@pytest.fixture(scope="module")
def guarded(redis_url: str) -> Iterator[str]:
    """The socket of a server with the users of the file; `redis_url` decides whether there is a server at all."""
    users = USERS.read_text()
    for name, password in PASSWORDS.items():
        users = users.replace(f"{name.upper()}_PASSWORD_SHA256", hashlib.sha256(password.encode()).hexdigest())
    with tempfile.TemporaryDirectory(prefix="altlas-") as directory:
        process, socket_path = start_server(Path(directory), users)
        try:
            patience = Retry(ConstantBackoff(0.05), 200)
            with redis.Redis.from_url(url_of(socket_path, "coordinator"), retry=patience) as client:
                client.ping()
            # A refusal is a broken connection to the library, which would go on asking.
            stranger = redis.Redis(unix_socket_path=socket_path, retry=Retry(NoBackoff(), 0))
            with stranger as client, pytest.raises(redis.AuthenticationError):
                client.ping()
            yield socket_path
        finally:
            process.kill()
            process.communicate()


def url_of(socket_path: str, user: str, password: str | None = None) -> str:
    return f"unix://{socket_path}?username={user}&password={(password or PASSWORDS[user]).replace(' ', '%20')}"


@asynccontextmanager
async def ends(
    socket_path: str, run_id: str, *, max_deliveries: int = 3, lease_s: float = 15.0
) -> AsyncIterator[tuple[RedisJobQueue, RedisJobSource, redis.Redis]]:
    """The coordinator's end of an open run, and a worker's end, each under its own user."""
    with connect_blocking(url_of(socket_path, "evaluator")) as worker_client:
        async with await connect(url_of(socket_path, "coordinator")) as client:
            queue = RedisJobQueue(client, run_id, lease_s=lease_s, max_deliveries=max_deliveries)
            await queue.lead(owner="test")
            await queue.open(task_digest="digest", task_text="the task")
            yield queue, RedisJobSource(worker_client), worker_client
            await queue.close()
            await queue.yield_lead()


def test_the_two_users_do_a_whole_run(guarded: str) -> None:
    async def main() -> None:
        async with ends(guarded, "whole") as (queue, source, _):
            job_ids = [JobId(f"u0.s{number}") for number in range(3)]
            await queue.submit(0, [JobMessage(job_id, b"payload") for job_id in job_ids])
            await queue.keep_lead()
            taken = source.take(count=3, block_s=5)
            assert source.task("digest") == "the task"
            source.renew(taken)
            assert source.commit(Commit(delivery=taken[0], payload=b"result", scores={b"f": b"score"}))
            assert not source.commit(Commit(delivery=taken[0], payload=b"again"))
            source.fail(taken[1], "broken")
            source.release([taken[2]])
            for delivery in source.take(count=3, block_s=5):
                assert source.commit(Commit(delivery=delivery, payload=b"result"))
            assert await queue.collect(0, job_ids, timeout_s=5) == dict.fromkeys(job_ids, b"result")
            assert await queue.known_scores([b"f"]) == {b"f": b"score"}
            assert (await queue.stats()).committed == 3
            assert len(await queue.workers()) == 1
            await queue.forget(0)
            source.close()
            assert await queue.workers() == []

    asyncio.run(main())


def test_the_coordinator_keeps_its_registry(guarded: str) -> None:
    async def main() -> None:
        async with await connect(url_of(guarded, "coordinator")) as client:
            registry = RedisRunRegistry(client)
            assert await registry.register("request", "run", b"record", replace=False) == "run"
            await registry.update("run", b"later")
            assert await registry.records() == {"run": b"later"}

    asyncio.run(main())


@pytest.mark.parametrize("way", ["fail", "lease"])
def test_a_job_dies_under_the_two_users(guarded: str, way: str) -> None:
    async def main() -> None:
        async with ends(guarded, f"dies-{way}", max_deliveries=1, lease_s=0.05) as (queue, source, _):
            await queue.submit(0, [JobMessage(JobId("u0.s0"), b"payload")])
            (delivery,) = source.take(count=1, block_s=5)
            if way == "fail":
                source.fail(delivery, "broken")
            else:
                await asyncio.sleep(0.1)
                assert list(source.take(count=1, block_s=0.3)) == []
            with pytest.raises(DeadJobError):
                await queue.collect(0, [JobId("u0.s0")], timeout_s=5)

    asyncio.run(main())


REFUSED: dict[str, Callable[[redis.Redis], Any]] = {
    "FLUSHALL": lambda client: client.flushall(),
    "FLUSHDB": lambda client: client.flushdb(),
    "CONFIG GET": lambda client: client.config_get("*"),
    "CONFIG SET": lambda client: client.config_set("requirepass", "mine"),
    "KEYS": lambda client: client.keys("*"),
    "SCAN": lambda client: client.scan(0),
    "ACL LIST": lambda client: client.acl_list(),
    "ACL SETUSER": lambda client: client.acl_setuser("mine", enabled=True, nopass=True),
    "CLIENT KILL": lambda client: client.client_kill_filter(_type="normal"),
    "SCRIPT FLUSH": lambda client: client.script_flush(),
    "EVAL": lambda client: client.eval("return 1", 0),
    "SHUTDOWN": lambda client: client.execute_command("SHUTDOWN", "NOSAVE"),
    "REPLICAOF": lambda client: client.replicaof("host", 1),
    "MONITOR": lambda client: client.execute_command("MONITOR"),
    "SET": lambda client: client.set("altlas:task:digest", "another task"),
    "DEL": lambda client: client.delete("altlas:{rights}:jobs"),
    "UNLINK": lambda client: client.unlink("altlas:{rights}:scores"),
    "XTRIM": lambda client: client.xtrim("altlas:{rights}:jobs", maxlen=0),
    "XGROUP DESTROY": lambda client: client.xgroup_destroy("altlas:{rights}:jobs", "evaluators"),
    "XGROUP CREATE": lambda client: client.xgroup_create("altlas:{rights}:jobs", "mine"),
    "SADD": lambda client: client.sadd("altlas:runs", "mine"),
    "SREM": lambda client: client.srem("altlas:runs", "rights"),
    "HSET": lambda client: client.hset("altlas:{rights}:meta", "max_deliveries", "1000"),
    "HGETALL": lambda client: client.hgetall("altlas:{rights}:scores"),
    "HSET of a score": lambda client: client.hset("altlas:{rights}:scores", "f", "mine"),
    "HGETALL of the registry": lambda client: client.hgetall("altlas:run_records"),
    "HSET of the registry": lambda client: client.hset("altlas:run_records", "run", "mine"),
    "RENAME": lambda client: client.rename("altlas:{rights}:jobs", "altlas:{rights}:done:1"),
    "GET": lambda client: client.get("altlas:{rights}:lease"),
    "XADD elsewhere": lambda client: client.xadd("altlas:jobs", {"job": "mine"}),
    "EVALSHA": lambda client: client.register_script("return redis.call('KEYS', '*')")(),
    "EVALSHA of a key": lambda client: client.register_script(
        "return redis.call('SET', 'altlas:task:digest', 'another task')"
    )(),
    "EVALSHA with a key": lambda client: client.register_script("return 1")(keys=["altlas:task:digest"]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_evaluator_is_refused_what_it_does_not_need(guarded: str, what: str) -> None:
    async def main() -> None:
        async with ends(guarded, "rights") as (queue, source, client):
            words = f"user evaluator may not do this by {what.split(' ')[0]}"
            with pytest.raises(AccessError, match=words), own_errors("here"):
                REFUSED[what](client)
            await queue.submit(0, [JobMessage(JobId("u0.s0"), b"payload")])
            (delivery,) = source.take(count=1, block_s=5)
            assert source.commit(Commit(delivery=delivery, payload=b"result"))

    asyncio.run(main())


def test_an_evaluator_may_read_the_terms_of_every_run(guarded: str) -> None:
    async def main() -> None:
        async with ends(guarded, "terms") as (_, _, client):
            assert client.hmget("altlas:{terms}:meta", ["max_deliveries"]) == [b"3"]

    asyncio.run(main())


def test_a_job_put_up_past_the_scripts_gets_no_result_stored(guarded: str) -> None:
    """XADD cannot be refused: `fail` and `release` put jobs up again by it, with their caller's rights."""

    async def main() -> None:
        async with ends(guarded, "forged") as (queue, source, client):
            client.xadd(
                "altlas:{forged}:jobs",
                {"job": "u0.s0", "update": "0", "payload": "mine", "deliveries": "0", "error": ""},
            )
            (delivery,) = source.take(count=1, block_s=5)
            assert not source.commit(Commit(delivery=delivery, payload=b"result"))
            assert (await queue.stats()).committed == 0

    asyncio.run(main())


COORDINATOR_REFUSED: dict[str, Callable[[redis.asyncio.Redis], Awaitable[Any]]] = {
    "FLUSHALL": lambda client: client.flushall(),
    "KEYS": lambda client: client.keys("*"),
    "SHUTDOWN": lambda client: client.execute_command("SHUTDOWN"),
    "SET": lambda client: client.set("another:key", "mine"),
    "GET": lambda client: client.get("another:key"),
    "ACL SETUSER": lambda client: client.acl_setuser("mine", enabled=True),
}


@pytest.mark.parametrize("what", COORDINATOR_REFUSED)
def test_the_coordinator_has_its_own_keys_and_no_server_command(guarded: str, what: str) -> None:
    async def main() -> None:
        async with await connect(url_of(guarded, "coordinator")) as client:
            words = f"user coordinator may not do this by {what.split(' ')[0]}"
            with pytest.raises(AccessError, match=words), own_errors("here"):
                await COORDINATOR_REFUSED[what](client)

    asyncio.run(main())


@pytest.mark.parametrize("user", ["coordinator", "evaluator", "default", "nobody"])
def test_a_wrong_password_is_a_configuration_error(guarded: str, user: str) -> None:
    with pytest.raises(ConfigError, match="refuses these credentials") as caught:
        connect_blocking(url_of(guarded, user, "wrong password"))
    assert "wrong password" not in str(caught.value)


def test_the_file_as_it_ships_starts_no_server(redis_url: str, tmp_path: Path) -> None:
    """Until the passwords' digests are filled in there is no password to guess."""
    process, _ = start_server(tmp_path, USERS.read_text())
    try:
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode != 0
    assert b"users.acl" in output
