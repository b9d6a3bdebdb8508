"""The registry of runs in memory: the twin of `registry`, for tests and for runs within one process."""

from __future__ import annotations

from collections.abc import Mapping

from altlas.transport.keys import RunKeys
from altlas.transport.ports import known_run_error, requested


class MemoryRunRegistry:
    """See `RunRegistry`. For use on one event loop."""

    def __init__(self) -> None:
        self._requests: dict[str, str] = {}
        self._records: dict[str, bytes] = {}

    async def register(self, request_id: str, run_id: str, record: bytes, *, replace: bool) -> str:
        """See `RunRegistry.register`."""
        request_id, run_id = requested(request_id, run_id), RunKeys(run_id).run_id
        if (earlier := self._requests.get(request_id)) is not None:
            return earlier
        if run_id in self._records and not replace:
            raise known_run_error(run_id)
        self._records[run_id] = record
        self._requests[request_id] = run_id
        return run_id

    async def update(self, run_id: str, record: bytes) -> None:
        """See `RunRegistry.update`."""
        self._records[RunKeys(run_id).run_id] = record

    async def records(self) -> Mapping[str, bytes]:
        """See `RunRegistry.records`."""
        return dict(self._records)
