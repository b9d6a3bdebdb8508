"""The evaluator's metrics. What the executor and the calls count by themselves is read from them when somebody asks.

How to read them: `waiting` above 0 for long means too few slots, and `queue_seconds` says what that costs;
`call_programs` near sandbox.queue_programs means that callers are refused; `run_seconds` is the programs' own,
`fork_seconds` and `collect_seconds` are ours; `sandbox_faults` at all, and `launcher_restarts` beyond recycling and
cancelled programs, ask for a look at the log. The canary counts as a program like any other.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from altlas_evaluator.admission import Admission
from altlas_evaluator.engine import Executor, Measured

_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

JOBS = Counter("altlas_evaluator_jobs_total", "Jobs by what became of them: committed, duplicate, failed.", ["outcome"])
JOB_SECONDS = Histogram("altlas_evaluator_job_seconds", "Seconds from taking a job to its commit.")
QUEUE_SECONDS = Histogram("altlas_evaluator_queue_seconds", "Seconds a program waited for a slot.", buckets=_BUCKETS)
FORK_SECONDS = Histogram("altlas_evaluator_fork_seconds", "Seconds in fork, per program.", buckets=_BUCKETS)
RUN_SECONDS = Histogram("altlas_evaluator_run_seconds", "Seconds from fork to the program's end.", buckets=_BUCKETS)
COLLECT_SECONDS = Histogram(
    "altlas_evaluator_collect_seconds", "Seconds around fork and run: handing over, reading results.", buckets=_BUCKETS
)
CALL_PROGRAMS = Gauge(
    "altlas_evaluator_call_programs", "Programs of gRPC calls in hand: waiting, run, or answered and not yet taken."
)
CALL_BYTES = Gauge("altlas_evaluator_call_bytes", "Bytes that those and their answers hold.")


def observe(measured: Measured) -> None:
    """Count where one program's seconds went."""
    QUEUE_SECONDS.observe(measured.queue_s)
    FORK_SECONDS.observe(measured.phases.fork_s)
    RUN_SECONDS.observe(measured.phases.run_s)
    COLLECT_SECONDS.observe(measured.phases.collect_s)


class ExecutorCollector(Collector):
    """Reads an executor's own counters."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def collect(self) -> Iterable[Metric]:
        """Return what prometheus_client asks for at each scrape."""
        executor, counters = self._executor, self._executor.counters()
        programs = CounterMetricFamily(
            "altlas_evaluator_programs", "Programs run, by how they ended.", labels=["status", "language"]
        )
        for (status, language), count in sorted(counters.programs.items()):
            programs.add_metric([status.value, language], count)
        tier = GaugeMetricFamily("altlas_evaluator_tier", "1, with the tier of the sandbox as label.", labels=["tier"])
        tier.add_metric([executor.tier], 1)
        yield from (
            programs,
            tier,
            CounterMetricFamily(
                "altlas_evaluator_launcher_restarts",
                "Launchers started beyond the first of their slot: recycled, aborted or dead.",
                value=counters.launcher_restarts,
            ),
            CounterMetricFamily(
                "altlas_evaluator_sandbox_faults",
                "Times a launcher died, was silent or answered wrongly.",
                value=counters.faults,
            ),
            GaugeMetricFamily("altlas_evaluator_slots", "Programs run at once.", value=executor.slots),
            GaugeMetricFamily("altlas_evaluator_slots_busy", "Slots that run a program.", value=counters.busy),
            GaugeMetricFamily("altlas_evaluator_waiting", "Programs that wait for a slot.", value=counters.waiting),
        )


def watch(executor: Executor, admission: Admission) -> None:
    """Show in this process's metrics what an executor has done and what calls have in hand."""
    executor.observer = observe
    CALL_PROGRAMS.set_function(lambda: admission.programs)
    CALL_BYTES.set_function(lambda: admission.size_bytes)
    REGISTRY.register(ExecutorCollector(executor))
