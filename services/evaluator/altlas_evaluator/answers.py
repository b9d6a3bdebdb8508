"""Answers the requests of one stream as each is done, in any order.

Invariants: no more than a window of requests is in hand, counting answers that the caller has not taken, so that a slow
reader stops new work; each holds a ticket of the whole service's; a stream that ends, however it ends, leaves nothing
running and no ticket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from google.protobuf.message import Message

from altlas_evaluator.admission import Admission, Ticket

Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)


class _End:
    """Comes after the last answer, with what the stream failed of."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class AnswerStream(Generic[Request, Answer]):
    """One stream's requests on their way to answers."""

    def __init__(
        self, answer: Callable[[Request], Awaitable[Answer]], *, admission: Admission, window: int, window_bytes: int
    ) -> None:
        """Answer with `answer`, no more than `window` requests or about `window_bytes` at a time."""
        self._answer = answer
        self._admission = admission
        self._window = window
        self._window_bytes = window_bytes
        self._tickets: set[Ticket] = set()
        self._freed = asyncio.Event()
        self._ready: asyncio.Queue[tuple[Ticket, Answer] | _End] = asyncio.Queue()

    async def answer_all(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Answer, None]:
        """Yield an answer per request; raises what `requests` or `answer` raised."""
        reader = asyncio.ensure_future(self._read_all(requests))
        try:
            while not isinstance(item := await self._ready.get(), _End):
                ticket, response = item
                yield response
                self._take_back(ticket)
            if item.error is not None:
                raise item.error
        finally:
            # Not after the wait: a call that fails as it writes is cancelled once more while it waits here.
            reader.add_done_callback(self._take_back_all)
            reader.cancel()
            await asyncio.wait([reader])

    async def _read_all(self, requests: AsyncIterator[Request]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                async for request in requests:
                    while not self._has_room():
                        self._freed.clear()
                        await self._freed.wait()
                    ticket = await self._admission.wait(request.ByteSize())
                    self._tickets.add(ticket)
                    group.create_task(self._work(ticket, request))
        except BaseExceptionGroup as errors:
            self._ready.put_nowait(_End(errors.exceptions[0]))
        except Exception as error:
            self._ready.put_nowait(_End(error))
        else:
            self._ready.put_nowait(_End())

    async def _work(self, ticket: Ticket, request: Request) -> None:
        response = await self._answer(request)
        self._admission.resize(ticket, response.ByteSize())
        self._ready.put_nowait((ticket, response))

    def _has_room(self) -> bool:
        held_bytes = sum(ticket.size_bytes for ticket in self._tickets)
        return len(self._tickets) < self._window and held_bytes < self._window_bytes

    def _take_back_all(self, reader: asyncio.Future[None]) -> None:
        for ticket in list(self._tickets):
            self._take_back(ticket)

    def _take_back(self, ticket: Ticket) -> None:
        self._tickets.discard(ticket)
        self._admission.take_back(ticket)
        self._freed.set()
