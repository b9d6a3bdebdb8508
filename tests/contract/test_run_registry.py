"""What every registry of runs promises, asked of the memory twin and of every server alike."""

from __future__ import annotations

import asyncio

import pytest
from queue_bench import Bench

from altlas.errors import ConfigError, ProtocolError
from altlas.transport.ports import JobQueue


def test_a_request_that_is_repeated_makes_one_run(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        registry = bench.registry()
        assert await registry.register("r1", "run-a", b"first", replace=False) == "run-a"
        assert await registry.register("r1", "run-b", b"second", replace=False) == "run-a"
        assert await registry.register("r1", "run-a", b"third", replace=True) == "run-a"
        assert await registry.records() == {"run-a": b"first"}

    bench.run(scenario)


def test_another_request_for_a_known_run_is_refused_unless_it_may_replace_it(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        registry = bench.registry()
        await registry.register("r1", "run-a", b"first", replace=False)
        with pytest.raises(ProtocolError, match=r"run run-a was made by another request. Choose another name"):
            await registry.register("r2", "run-a", b"second", replace=False)
        assert await registry.records() == {"run-a": b"first"}
        assert await registry.register("r2", "run-a", b"second", replace=True) == "run-a"
        assert await registry.records() == {"run-a": b"second"}
        assert await registry.register("r1", "run-a", b"late", replace=False) == "run-a"
        assert await registry.records() == {"run-a": b"second"}

    bench.run(scenario)


def test_of_many_requests_for_one_run_at_once_one_makes_it(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        registry = bench.registry()
        asked = [registry.register(f"r{n}", "run-a", b"%d" % n, replace=False) for n in range(20)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        (winner,) = [n for n, answer in enumerate(answers) if answer == "run-a"]
        assert sum(isinstance(answer, ProtocolError) for answer in answers) == 19
        assert await registry.records() == {"run-a": b"%d" % winner}

    bench.run(scenario)


def test_records_are_bytes_and_are_replaced_by_update(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        registry = bench.registry()
        assert await registry.records() == {}
        await registry.register("r1", "run-a", bytes(range(256)), replace=False)
        await registry.register("r2", "run-b", b"", replace=False)
        assert await registry.records() == {"run-a": bytes(range(256)), "run-b": b""}
        await registry.update("run-b", b"newer")
        await registry.update("run-lost", b"written again")
        assert await registry.records() == {
            "run-a": bytes(range(256)),
            "run-b": b"newer",
            "run-lost": b"written again",
        }

    bench.run(scenario)


def test_requests_and_runs_without_a_proper_name_are_refused(bench: Bench) -> None:
    async def scenario(_: JobQueue) -> None:
        registry = bench.registry()
        with pytest.raises(ProtocolError, match="has no id"):
            await registry.register("", "run-a", b"", replace=False)
        with pytest.raises(ConfigError, match="run name"):
            await registry.register("r1", "a}:b", b"", replace=False)
        with pytest.raises(ConfigError, match="run name"):
            await registry.update("", b"")
        assert await registry.records() == {}

    bench.run(scenario)
