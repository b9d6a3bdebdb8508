"""The registry of runs on Redis: two hashes, of which a run and its request are written in one step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis.asyncio

from altlas.transport.keys import REQUESTS, RUN_RECORDS, RunKeys
from altlas.transport.ports import known_run_error, requested
from altlas.transport.redis_client import address, own_errors
from altlas.transport.scripts import script_text


class RedisRunRegistry:
    """See `RunRegistry`. The client stays the caller's to close."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._address = address(client)
        self._register = client.register_script(script_text("register"))

    async def register(self, request_id: str, run_id: str, record: bytes, *, replace: bool) -> str:
        """See `RunRegistry.register`."""
        args: list[Any] = [requested(request_id, run_id), RunKeys(run_id).run_id, record, int(replace)]
        with own_errors(self._address):
            made: bytes | None = await self._register(keys=[REQUESTS, RUN_RECORDS], args=args)
        if made is None:
            raise known_run_error(run_id)
        return made.decode()

    async def update(self, run_id: str, record: bytes) -> None:
        """See `RunRegistry.update`."""
        with own_errors(self._address):
            await self._client.hset(RUN_RECORDS, RunKeys(run_id).run_id, record)

    async def records(self) -> Mapping[str, bytes]:
        """See `RunRegistry.records`."""
        with own_errors(self._address):
            found: Mapping[Any, Any] = await self._client.hgetall(RUN_RECORDS)
        return {run_id.decode(): record for run_id, record in found.items()}
