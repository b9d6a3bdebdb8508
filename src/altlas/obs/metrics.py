"""How a metric is declared: with what it is, which Prometheus shows, and how to read it, which docs/metrics.md shows.

Invariants: every metric of ours is declared here, by its full name and once; no label holds a job's id or a program's
text. A `Family` is a metric whose values a collector reads when somebody asks: it has no series where there is nothing
to say, so that nothing known is never a zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

Kind = Literal["counter", "gauge", "histogram"]
# What a network, a fork or a query takes; a histogram of longer things brings its own.
BUCKETS = Histogram.DEFAULT_BUCKETS
_TOTAL = "_total"

# The time at which a series began doubles the number of series and is read by nobody here.
disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as docs/metrics.md shows it. `name`: as Prometheus stores it, with _total."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    what: str
    reading: str


CATALOGUE: dict[str, Described] = {}


@dataclass(frozen=True, slots=True)
class Family:
    """A metric that a collector makes anew at each scrape."""

    described: Described

    def of(self, value: float) -> Metric:
        """Return it with one value, for a metric without labels."""
        return self.by({(): value})

    def by(self, values: Mapping[tuple[str, ...], float]) -> Metric:
        """Return it with a series for each tuple of labels' values."""
        described = self.described
        kind = CounterMetricFamily if described.kind == "counter" else GaugeMetricFamily
        metric = kind(described.name.removesuffix(_TOTAL), described.what, labels=described.labels)
        for labels, value in values.items():
            metric.add_metric(labels, value)
        return metric


def counter(name: str, what: str, reading: str, *, labels: Sequence[str] = ()) -> Counter:
    """Declare a count that only grows, from 0 at the process's start."""
    _describe(name, "counter", labels, what, reading)
    return Counter(name, what, labels)


def gauge(name: str, what: str, reading: str, *, labels: Sequence[str] = ()) -> Gauge:
    """Declare a value that goes up and down, 0 until it is set."""
    _describe(name, "gauge", labels, what, reading)
    return Gauge(name, what, labels)


def histogram(
    name: str, what: str, reading: str, *, labels: Sequence[str] = (), buckets: Sequence[float] = BUCKETS
) -> Histogram:
    """Declare a distribution: count, sum and buckets."""
    _describe(name, "histogram", labels, what, reading)
    return Histogram(name, what, labels, buckets=buckets)


def counter_family(name: str, what: str, reading: str, *, labels: Sequence[str] = ()) -> Family:
    """Declare a count that a collector reads."""
    return Family(_describe(name, "counter", labels, what, reading))


def gauge_family(name: str, what: str, reading: str, *, labels: Sequence[str] = ()) -> Family:
    """Declare a value that a collector reads."""
    return Family(_describe(name, "gauge", labels, what, reading))


def _describe(name: str, kind: Kind, labels: Sequence[str], what: str, reading: str) -> Described:
    if name in CATALOGUE:
        raise ValueError(f"metric {name} is declared twice")
    if (kind == "counter") != name.endswith(_TOTAL):
        raise ValueError(f"metric {name}: counters, and nothing else, end in {_TOTAL}")
    CATALOGUE[name] = Described(name, kind, tuple(labels), what, reading)
    return CATALOGUE[name]
