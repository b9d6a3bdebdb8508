"""What a user is told when Redis is away, guarded, full, restarted or carelessly configured."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from altlas.errors import ConfigError, ProtocolError, TransientError
from altlas.transport.embedded import EmbeddedRedis
from altlas.transport.ports import Commit, JobId, JobMessage
from altlas.transport.redis_client import connect, connect_blocking, durability, durability_warnings, redacted
from altlas.transport.redis_streams import RedisJobQueue, RedisJobSource, worker_name


@pytest.fixture
def server(redis_url: str, tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A server of this test's own, to be mistreated; `redis_url` decides whether there is one at all."""
    with EmbeddedRedis(tmp_path / "redis") as own:
        yield own


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_an_address_is_shown_without_credentials() -> None:
    assert redacted("redis://user:secret@host:6379/0?x=1") == "redis://host:6379/0"
    assert redacted("unix:///run/redis.sock") == "unix:///run/redis.sock"


@pytest.mark.parametrize("end", ["coordinator", "worker"])
def test_a_redis_that_is_away_is_named_without_its_password(end: str) -> None:
    port = free_port()
    url = f"redis://user:secret@127.0.0.1:{port}/0"
    attempt = (lambda: asyncio.run(connect(url))) if end == "coordinator" else (lambda: connect_blocking(url))
    with pytest.raises(TransientError, match=rf"127\.0\.0\.1:{port}/0 is not reachable: .*redis_url") as caught:
        attempt()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://host", "host:6379", "redis://host:notaport"])
def test_what_is_not_an_address_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="redis_url"):
        connect_blocking(url)


def test_refused_credentials_are_a_configuration_error(server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "right")
    for url in (server.url, server.url + "?password=wrong"):
        with pytest.raises(ConfigError, match="refuses these credentials") as caught:
            connect_blocking(url)
        assert "wrong" not in str(caught.value)


def test_careless_settings_are_warned_about(server: EmbeddedRedis, caplog: pytest.LogCaptureFixture) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("appendonly", "no")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "1gb")
        assert len(durability_warnings(durability(client))) == 2

    async def main() -> None:
        await (await connect(server.url)).aclose()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert "appendonly is no" in caplog.text
    assert "allkeys-lru" in caplog.text
    hidden = dict.fromkeys(("appendonly", "appendfsync", "maxmemory", "maxmemory-policy"), "unknown")
    assert durability_warnings(hidden) == []


def test_a_full_redis_is_transient_and_a_foreign_key_is_not(server: EmbeddedRedis) -> None:
    with connect_blocking(server.url) as client:

        async def main() -> None:
            async with await connect(server.url) as async_client:
                queue = RedisJobQueue(async_client, "run")
                await queue.open(task_digest="d", task_text="t")
                client.config_set("maxmemory", "1")
                with pytest.raises(TransientError, match=r"cannot serve now: .*maxmemory"):
                    await queue.submit(0, [JobMessage(JobId("u0.s0"), b"x")])
                client.config_set("maxmemory", "0")
                client.set("altlas:{run}:scores", "not a hash")
                with pytest.raises(ProtocolError, match="WRONGTYPE"):
                    await queue.known_scores([b"a"])

        asyncio.run(main())


def test_jobs_and_scripts_survive_a_restart_of_redis(server: EmbeddedRedis) -> None:
    """A worker holds a job across the restart; its connection, the script cache and its lease are all gone over."""

    async def main() -> None:
        async with await connect(server.url) as client:
            queue = RedisJobQueue(client, "run")
            await queue.open(task_digest="d", task_text="t")
            await queue.submit(0, [JobMessage(JobId("u0.s0"), b"payload")])
            with connect_blocking(server.url) as worker_client:
                (delivery,) = RedisJobSource(worker_client).take(count=1, block_s=5)
        server.stop()
        server.start()
        async with await connect(server.url) as client:
            queue = RedisJobQueue(client, "run")
            assert (await queue.stats()).in_hand == 1
            with connect_blocking(server.url) as worker_client:
                assert RedisJobSource(worker_client).commit(Commit(delivery=delivery, payload=b"result"))
            assert await queue.collect(0, [JobId("u0.s0")], timeout_s=5) == {"u0.s0": b"result"}

    asyncio.run(main())


def test_a_redis_that_goes_away_while_a_worker_waits_is_transient(server: EmbeddedRedis) -> None:
    with connect_blocking(server.url) as client:
        source = RedisJobSource(client)
        assert list(source.take(count=1, block_s=0.01)) == []
        server.stop()
        with pytest.raises(TransientError, match="not reachable"):
            source.take(count=1, block_s=5)


def test_workers_find_runs_by_themselves_and_serve_them_in_turn(redis_url: str) -> None:
    async def main() -> None:
        with connect_blocking(redis_url) as worker_client:
            async with await connect(redis_url) as client:
                source = RedisJobSource(worker_client)
                assert list(source.take(count=1, block_s=0.01)) == []
                queues = [RedisJobQueue(client, f"turn{number}") for number in range(3)]
                for queue in queues:
                    await queue.open(task_digest="d", task_text="t")
                    await queue.submit(0, [JobMessage(JobId(f"u0.s{number}"), b"p") for number in range(4)])
                taken = [source.take(count=1, block_s=5)[0].run_id for _ in range(12)]
                assert all(len(set(taken[start : start + 3])) == 3 for start in range(0, 12, 3))
                for queue in queues:
                    await queue.close()

    asyncio.run(main())


def test_while_blocked_on_several_runs_no_more_is_taken_than_was_asked_for(redis_url: str) -> None:
    async def main() -> None:
        with connect_blocking(redis_url) as worker_client:
            async with await connect(redis_url) as client:
                source = RedisJobSource(worker_client)
                queues = [RedisJobQueue(client, f"several{number}") for number in range(4)]
                for queue in queues:
                    await queue.open(task_digest="d", task_text="t")
                taking = asyncio.create_task(asyncio.to_thread(source.take, count=1, block_s=10))
                await asyncio.gather(*(queue.submit(0, [JobMessage(JobId("u0.s0"), b"p")]) for queue in queues))
                assert len(await taking) == 1
                assert sum([(await queue.stats()).waiting for queue in queues]) == 3
                for queue in queues:
                    await queue.close()
                keys = [key async for key in client.scan_iter(match="altlas:{several*:jobs")]
                assert keys == []

    asyncio.run(main())


def test_no_two_workers_share_a_name() -> None:
    names = {worker_name() for _ in range(100)}
    assert len(names) == 100
    assert all(socket.gethostname() in name for name in names)
