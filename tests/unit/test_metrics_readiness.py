"""When a role says that it does not get on, over a clock that the test turns; and what it says of GPUs without one."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from altlas.config.sections import WatchdogSection
from altlas.core.device import device_memory_bytes, device_utilisation_ratio
from altlas.errors import TransientError
from altlas.obs.devices import DeviceCollector
from altlas.obs.progress import LAST_PROGRESS, Progress
from altlas_coordinator.patience import until_back
from altlas_coordinator.watchdog import Watchdog


class Clock:
    """Seconds that pass when told so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_call_in_hand_for_longer_than_its_caller_waits_is_late_until_it_is_done(clock: Clock) -> None:
    progress = Progress("test", clock=clock)
    with progress.working("Learn", limit_s=10):
        clock.now += 10
        assert progress.not_ready() == ""
        clock.now += 2
        with progress.working("GetPolicy", limit_s=1):
            clock.now += 2
            assert progress.not_ready() == "Learn has been in hand for 14 s, and whoever asked for it waits 10 s"
    assert progress.not_ready() == ""


def test_work_that_failed_is_no_progress_and_is_not_in_hand_any_more(clock: Clock) -> None:
    progress = Progress("test", clock=clock)
    LAST_PROGRESS.labels("test").set(1)
    with pytest.raises(RuntimeError), progress.working("Learn", limit_s=10):
        raise RuntimeError
    clock.now += 100
    assert progress.not_ready() == ""
    assert LAST_PROGRESS.labels("test")._value.get() == 1
    progress.done()
    assert LAST_PROGRESS.labels("test")._value.get() > 1


def test_a_run_is_late_by_the_limit_of_its_first_report_whether_reported_or_not(clock: Clock) -> None:
    watchdog = Watchdog(WatchdogSection(report_after=20, least_report_s=10), clock)
    watchdog.begin("learn, update 5", "trainer")
    clock.now += 9
    assert watchdog.late() is None
    clock.now += 1
    assert watchdog.check() is not None
    clock.now += 1
    late = watchdog.late()
    assert late is not None
    assert late.text() == "no update for 11 s (none has ended yet): learn, update 5 for 11 s, waiting for trainer"
    watchdog.progress()
    assert (watchdog.late(), watchdog.median_s, watchdog.idle_s()) == (None, 11, 0)
    clock.now += 219
    assert watchdog.late() is None, "twenty medians have not passed"
    clock.now += 1
    assert watchdog.late() is not None


def test_a_paused_run_is_not_late(clock: Clock) -> None:
    watchdog = Watchdog(WatchdogSection(report_after=20, least_report_s=10), clock)
    clock.now += 5
    watchdog.paused(True)
    clock.now += 1000
    assert (watchdog.late(), watchdog.idle_s()) == (None, 5)
    watchdog.paused(False)
    clock.now += 5
    assert watchdog.late() is not None


def test_a_peer_is_shown_as_away_while_it_is_waited_for_and_no_longer() -> None:
    shown = []

    async def away() -> None:
        shown.append(REGISTRY.get_sample_value("altlas_coordinator_waiting_seconds", {"peer": "trainer"}))
        raise TransientError("gone")

    with pytest.raises(TransientError, match="gave up on the trainer"):
        asyncio.run(until_back(away, peer="trainer", limit_s=0.05))
    assert len(shown) >= 2
    assert shown[0] == 0 < shown[1]
    assert REGISTRY.get_sample_value("altlas_coordinator_waiting_seconds", {"peer": "trainer"}) == 0


def test_devices_have_series_where_there_are_devices() -> None:
    registry = CollectorRegistry()
    memory = {("cuda:0", "allocated"): 7.0, ("cuda:0", "total"): 80e9}
    registry.register(DeviceCollector(lambda: memory, dict))
    labels = {"device": "cuda:0", "kind": "allocated"}
    assert registry.get_sample_value("altlas_device_memory_bytes", labels) == 7
    assert [family.name for family in registry.collect()] == ["altlas_device_memory_bytes"]


def test_a_process_that_uses_no_gpu_says_nothing_of_any() -> None:
    assert (device_memory_bytes(), device_utilisation_ratio()) == ({}, {})
