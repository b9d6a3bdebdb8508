"""What every suite shares: a real Redis, started once per session, and hypothesis without limits of time."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from altlas.errors import ConfigError
from altlas.transport.embedded import EmbeddedRedis, find_server

# Its first call may have to compile, and the machine may be busy.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")


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
