"""The run that a coordinator starts by itself: once, however often the coordinator starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from altlas.cli.first_run import FirstRun, first_request
from altlas.config.loader import config_from_json
from altlas.errors import TaskError
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas.transport.memory import MemoryTransport
from altlas.transport.memory_registry import MemoryRunRegistry
from altlas_coordinator.servicer import CoordinatorServicer
from altlas_coordinator.session import Peers

HELLO = FirstRun("basics/hello_world", seed=3, budget=500)


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@asynccontextmanager
async def coordinator(registry: MemoryRunRegistry) -> AsyncIterator[CoordinatorServicer]:
    """A coordinator that has just started, whose trainer is away: its runs wait."""
    transport = MemoryTransport()
    async with grpc.aio.insecure_channel("unix:/nowhere") as away:
        servicer = CoordinatorServicer(
            peers=Peers([away], away),
            open_queue=lambda spec: transport.queue(spec.run_id),
            registry=registry,
            owner="coordinator",
            on_crash=lambda error: pytest.fail(f"crashed: {error}"),
        )
        await servicer.adopt()
        yield servicer
        tasks = [run.task for run in servicer.runs.values() if run.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_it_is_resolved_as_asked() -> None:
    spec = first_request(HELLO).spec
    config = config_from_json(spec.config_json)
    assert (spec.task_name, config.run.seed, config.run.budget) == ("basics/hello_world", 3, 500)
    assert spec.run_dir == f"runs/{spec.run_id}"
    own = config_from_json(first_request(FirstRun("basics/hello_world", seed=3, budget=0)).spec.config_json)
    assert own.run.budget == 60_000, "0 takes the task's own"


def test_a_language_of_the_evaluators_alone_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("altlas.cli.train.task_languages", lambda: ["python"])
    assert first_request(FirstRun("brainf/echo-twice", seed=1, budget=0)).spec.task_name == "brainf/echo-twice"


def test_a_task_that_is_not_there_is_named() -> None:
    with pytest.raises(TaskError, match="basics/hello_wrold"):
        first_request(FirstRun("basics/hello_wrold", seed=1, budget=0))


@pytest.mark.parametrize(
    "other",
    [
        FirstRun("basics/sum_loop", seed=3, budget=500),
        FirstRun("basics/hello_world", seed=4, budget=500),
        FirstRun("basics/hello_world", seed=3, budget=501),
    ],
)
def test_other_settings_are_another_run(other: FirstRun) -> None:
    first, second = first_request(HELLO), first_request(other)
    assert first == first_request(HELLO)
    assert first.request_id != second.request_id
    assert first.spec.run_id != second.spec.run_id


def test_a_coordinator_that_starts_again_goes_on_with_it() -> None:
    async def main() -> None:
        registry = MemoryRunRegistry()
        async with coordinator(registry) as servicer:
            made = await servicer.create(first_request(HELLO))
        async with coordinator(registry) as servicer:
            adopted = servicer.runs[made.spec.run_id].task
            again = await servicer.create(first_request(HELLO))
            assert list(servicer.runs) == [made.spec.run_id]
            assert adopted is not None
            assert again.task is adopted

    asyncio.run(main())


def test_a_run_that_has_ended_is_not_run_again() -> None:
    async def main() -> None:
        registry, request = MemoryRunRegistry(), first_request(HELLO)
        async with coordinator(registry) as servicer:
            run = (await servicer.create(request)).message()
        run.state = coordinator_pb2.RUN_STATE_FINISHED
        record = coordinator_pb2.RunRecord(request=request, run=run, coordinator="coordinator")
        await registry.update(run.spec.run_id, record.SerializeToString())
        async with coordinator(registry) as servicer:
            again = await servicer.create(request)
            assert again.has_ended
            assert again.task is None

    asyncio.run(main())


def test_another_coordinator_with_an_empty_registry_makes_it_under_the_same_name() -> None:
    """Redis was lost, the run directory was not: the trainer goes on from the checkpoints of that name."""

    async def main() -> None:
        names = []
        for _ in range(2):
            async with coordinator(MemoryRunRegistry()) as servicer:
                names.append((await servicer.create(first_request(HELLO))).spec.run_dir)
        assert names[0] == names[1]

    asyncio.run(main())
