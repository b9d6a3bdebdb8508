"""Fixtures for every suite: a real Redis, started once per session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from altlas.errors import ConfigError
from altlas.transport.embedded import EmbeddedRedis, find_server


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of our own. Without one: a failure in CI, a skip with the reason elsewhere."""
    try:
        find_server()
    except ConfigError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url
