"""What bounds the callers of an evaluator: tickets, a stream's window, threads that only wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from altlas.errors import OverloadedError
from altlas.rpc.evaluator.v1 import evaluator_pb2
from altlas_evaluator.admission import Admission
from altlas_evaluator.answers import AnswerStream
from altlas_evaluator.waiting import WaitingThreads

Message = evaluator_pb2.ExecuteStreamRequest


def test_a_call_is_admitted_whole_or_not_at_all() -> None:
    admission = Admission(programs=10, size_bytes=1000)
    with admission.hold(8, 100):
        with (
            pytest.raises(OverloadedError, match=r"8 programs .* of 10 .*no room for 3 .*try again in"),
            admission.hold(3, 0),
        ):
            pass
        with admission.hold(2, 900):
            assert (admission.programs, admission.size_bytes) == (10, 1000)
        with pytest.raises(OverloadedError), admission.hold(1, 901):
            pass
    assert (admission.programs, admission.size_bytes) == (0, 0)


def test_a_call_that_fails_gives_its_room_back() -> None:
    admission = Admission(programs=1, size_bytes=1)
    with pytest.raises(KeyError), admission.hold(1, 1):
        raise KeyError
    assert (admission.programs, admission.size_bytes) == (0, 0)


def test_one_call_larger_than_all_room_is_admitted_alone() -> None:
    admission = Admission(programs=10, size_bytes=100)
    with admission.hold(1, 5000), pytest.raises(OverloadedError), admission.hold(1, 1):
        pass


def test_the_hint_is_what_is_in_hand_times_the_mean() -> None:
    now = 100.0
    admission = Admission(programs=1000, size_bytes=1000, clock=lambda: now)
    assert admission.retry_after_s() == 0.01
    with admission.hold(10, 0):
        now += 5.0
    now += 1000.0  # idle time counts for nothing
    with admission.hold(20, 0):
        assert admission.retry_after_s() == pytest.approx(10.0)
        with admission.hold(900, 0):
            assert admission.retry_after_s() == 30.0


def test_who_waits_is_served_in_order_and_before_calls_that_would_not() -> None:
    async def main() -> list[int]:
        admission = Admission(programs=1, size_bytes=100)
        order: list[int] = []

        async def wait(number: int) -> None:
            ticket = await admission.wait(1)
            order.append(number)
            await asyncio.sleep(0)
            admission.take_back(ticket)

        with admission.hold(1, 1):
            waiting = [asyncio.ensure_future(wait(number)) for number in range(5)]
            await asyncio.sleep(0)
            waiting[2].cancel()
            await asyncio.sleep(0)
        with pytest.raises(OverloadedError), admission.hold(1, 1):
            pass
        await asyncio.wait(waiting)
        assert (admission.programs, admission.size_bytes) == (0, 0)
        return order

    assert asyncio.run(main()) == [0, 1, 3, 4]


class Source:
    """An endless stream of requests that counts how many were taken."""

    def __init__(self, most: int = 10_000) -> None:
        self.taken = 0
        self._most = most

    async def requests(self) -> AsyncIterator[Message]:
        while self.taken < self._most:
            self.taken += 1
            yield Message(index=self.taken)


async def settle() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


def stream(
    answer: Any, admission: Admission, *, window: int = 4, window_bytes: int = 1 << 20
) -> AnswerStream[Any, Any]:
    return AnswerStream(answer, admission=admission, window=window, window_bytes=window_bytes)


async def echo(request: Message) -> Message:
    return request


def test_answers_not_taken_stop_new_requests() -> None:
    async def main() -> None:
        admission, source = Admission(programs=100, size_bytes=1 << 20), Source()
        answers = stream(echo, admission).answer_all(source.requests())
        await anext(answers)
        await settle()
        # The one that was yielded still counts, and one more has been read and waits.
        assert (admission.programs, source.taken) == (4, 5)
        for _ in range(10):
            await anext(answers)
        await settle()
        assert (admission.programs, source.taken) == (4, 15)
        await answers.aclose()
        assert (admission.programs, admission.size_bytes) == (0, 0)

    asyncio.run(main())


def test_a_stream_cancelled_while_it_ends_holds_nothing() -> None:
    async def main() -> None:
        admission, is_ending, may_end = Admission(programs=100, size_bytes=1 << 20), asyncio.Event(), asyncio.Event()

        async def requests() -> AsyncIterator[Message]:
            async for request in Source(3).requests():
                yield request
            try:
                await asyncio.Event().wait()
            finally:
                is_ending.set()
                await may_end.wait()

        answers = stream(echo, admission).answer_all(requests())
        await anext(answers)
        # As a call that fails while it writes, and is cancelled by gRPC while its answers are closed.
        closing = asyncio.create_task(answers.aclose())
        await is_ending.wait()
        closing.cancel()
        await asyncio.wait([closing])
        assert admission.programs == 3
        may_end.set()
        await settle()
        assert (admission.programs, admission.size_bytes) == (0, 0)

    asyncio.run(main())


def test_large_answers_make_a_smaller_window() -> None:
    async def large(request: Message) -> Message:
        return Message(program=evaluator_pb2.ExecuteProgram(source=b"x" * 1000))

    async def main() -> None:
        admission, source = Admission(programs=100, size_bytes=1 << 20), Source()
        answers = stream(large, admission, window=50, window_bytes=3000).answer_all(source.requests())
        await anext(answers)
        await settle()
        held = admission.size_bytes
        await answers.aclose()
        assert 3000 <= held < 3000 + 50 * 1100
        assert source.taken <= 51

    asyncio.run(main())


def test_streams_share_the_room_of_the_service() -> None:
    async def main() -> None:
        admission = Admission(programs=3, size_bytes=1 << 20)

        async def read(number: int) -> int:
            answers = stream(echo, admission, window=50).answer_all(Source(20).requests())
            return len([answer async for answer in answers])

        async with asyncio.timeout(10):
            assert await asyncio.gather(*map(read, range(10))) == [20] * 10
        assert admission.programs == 0

    asyncio.run(main())


def test_an_error_ends_a_stream_and_what_it_runs() -> None:
    async def main() -> None:
        admission = Admission(programs=10, size_bytes=1 << 20)
        ended = 0

        async def answer(request: Message) -> Message:
            nonlocal ended
            if request.index == 3:
                raise KeyError("three")
            try:
                await asyncio.Event().wait()
            finally:
                ended += 1
            return request

        with pytest.raises(KeyError, match="three"):
            await anext(stream(answer, admission).answer_all(Source().requests()))
        assert ended >= 2
        assert admission.programs == 0

    asyncio.run(main())


def test_threads_are_handed_no_more_than_they_run() -> None:
    async def main() -> None:
        threads = WaitingThreads(2, name="test")
        release = threading.Event()
        begun: list[int] = []

        def work(number: int) -> int:
            begun.append(number)
            release.wait()
            return number

        calls = [asyncio.ensure_future(threads.run(work, number)) for number in range(6)]
        while len(begun) < 2:
            await asyncio.sleep(0)
        calls[3].cancel()
        await asyncio.wait([calls[3]])
        release.set()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert [item for item in done if not isinstance(item, BaseException)] == [0, 1, 2, 4, 5]
        assert sorted(begun) == [0, 1, 2, 4, 5]
        threads.close()

    asyncio.run(main())
