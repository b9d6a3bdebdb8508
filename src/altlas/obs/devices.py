"""What a process holds of its GPUs' memory, and how busy they are; read when somebody asks.

This package runs without torch, so the readings are handed in. Where there is no GPU there are no series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from altlas.obs.metrics import gauge_family

MEMORY = gauge_family(
    "altlas_device_memory_bytes",
    "Memory of a GPU that the process computes on, from its first use on: allocated to tensors, reserved by torch for "
    "them, total of the device.",
    "reserved near the total: out of memory soon; far above allocated: fragments. What others hold is not in it.",
    labels=["device", "kind"],
)
UTILISATION = gauge_family(
    "altlas_device_utilisation_ratio",
    "Part of the last second, or less, in which something ran on that GPU, 0 to 1, whoever ran it.",
    "Low while updates are slow: the device waits for the CPU, or batches are small. Left out without nvidia-ml-py.",
    labels=["device"],
)

Reading = Callable[[], Mapping[tuple[str, ...], float]]


class DeviceCollector(Collector):
    """Asks `memory`, by device and kind, and `utilisation`, by device, at each scrape."""

    def __init__(self, memory: Reading, utilisation: Reading) -> None:
        self._memory = memory
        self._utilisation = utilisation

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is comes with the first use of a device."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return what prometheus_client asks for at each scrape."""
        if memory := self._memory():
            yield MEMORY.by(memory)
        if utilisation := self._utilisation():
            yield UTILISATION.by(utilisation)


def watch_devices(memory: Reading, utilisation: Reading) -> None:
    """Show in this process's metrics what these say."""
    REGISTRY.register(DeviceCollector(memory, utilisation))
