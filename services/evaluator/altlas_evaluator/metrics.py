"""The evaluator's metrics. What the executor and the calls count by themselves is read from them when somebody asks.

The canary counts as a program like any other, and its end is progress like any other's.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from altlas.obs.metrics import counter, counter_family, gauge, gauge_family, histogram
from altlas.obs.progress import LAST_PROGRESS
from altlas_evaluator.admission import Admission
from altlas_evaluator.engine import Executor, Measured

_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

JOBS = counter(
    "altlas_evaluator_jobs_total",
    "Jobs by what became of them here: committed, duplicate, failed.",
    "duplicate: another evaluator was first, since the lease ran out; failed: given back after a fault of ours, see "
    "the log.",
    labels=["outcome"],
)
JOB_SECONDS = histogram(
    "altlas_evaluator_job_seconds",
    "Seconds from taking a job (a shard of programs) to its commit.",
    "About 0.05 is what jobs are cut for. Near transport.lease_s: lower transport.shard_size.",
)
SCORED = counter(
    "altlas_evaluator_scored_programs_total",
    "Programs scored in jobs, by language: each once, whatever its cases.",
    "Its rate is the replica's throughput, for brainf too, whose programs no sandbox runs.",
    labels=["language"],
)
QUEUE_SECONDS = histogram(
    "altlas_evaluator_queue_seconds",
    "Seconds a program waited for a slot.",
    "What too few slots cost.",
    buckets=_BUCKETS,
)
FORK_SECONDS = histogram(
    "altlas_evaluator_fork_seconds",
    "Seconds that the sandbox took to start a program: the fork of its launcher.",
    "A millisecond or less. More: the machine is short of memory or of CPU.",
    buckets=_BUCKETS,
)
RUN_SECONDS = histogram(
    "altlas_evaluator_run_seconds",
    "Seconds from a program's start to its end.",
    "The programs' own; those near the task's limit were ended by it.",
    buckets=_BUCKETS,
)
COLLECT_SECONDS = histogram(
    "altlas_evaluator_collect_seconds",
    "Seconds around start and run: handing the program over, reading what it printed.",
    "Ours, like altlas_evaluator_fork_seconds: should be small beside altlas_evaluator_run_seconds.",
    buckets=_BUCKETS,
)
CALL_PROGRAMS = gauge(
    "altlas_evaluator_call_programs",
    "Programs of gRPC calls in hand: waiting, run, or answered and not yet taken.",
    "Near sandbox.queue_programs: callers are refused.",
)
CALL_BYTES = gauge(
    "altlas_evaluator_call_bytes",
    "Bytes that the programs of gRPC calls in hand and their answers hold.",
    "High with few programs: callers do not take their answers.",
)
PROGRAMS = counter_family(
    "altlas_evaluator_programs_total",
    "Programs run in the sandbox, once for each case that they are run on, by how they ended.",
    "Its rate is what the sandbox does. The canary is one program every 5 s.",
    labels=["status", "language"],
)
TIER = gauge_family(
    "altlas_evaluator_tier",
    "1, with the tier of the sandbox as label.",
    "Every replica should show the tier you count on; see docs/sandbox.md.",
    labels=["tier"],
)
LAUNCHER_RESTARTS = counter_family(
    "altlas_evaluator_launcher_restarts_total",
    "Launchers started beyond the first of their slot: recycled, aborted or dead.",
    "Beyond one per sandbox.recycle_after programs and the cancelled calls: see the log.",
)
SANDBOX_FAULTS = counter_family(
    "altlas_evaluator_sandbox_faults_total",
    "Times a launcher died, was silent or answered wrongly.",
    "Any is ours to mend: such a program is run again and never scored for it. See the log.",
)
SLOTS = gauge_family(
    "altlas_evaluator_slots",
    "Programs run at once.",
    "sandbox.slots; 0 there means one per core.",
)
SLOTS_BUSY = gauge_family(
    "altlas_evaluator_slots_busy",
    "Slots that run a program.",
    "Divided by the slots: how busy the replica is.",
)
WAITING = gauge_family(
    "altlas_evaluator_waiting",
    "Programs that wait for a slot.",
    "Above 0 for long: too few slots; altlas_evaluator_queue_seconds says what that costs.",
)

PROGRESS = LAST_PROGRESS.labels("evaluator")

for _outcome in ("committed", "duplicate", "failed"):
    JOBS.labels(_outcome)


def observe(measured: Measured) -> None:
    """Count where one program's seconds went, and that it came back."""
    QUEUE_SECONDS.observe(measured.queue_s)
    FORK_SECONDS.observe(measured.phases.fork_s)
    RUN_SECONDS.observe(measured.phases.run_s)
    COLLECT_SECONDS.observe(measured.phases.collect_s)
    PROGRESS.set_to_current_time()


def observe_job(language: str, *, programs: int, seconds: float, is_first: bool) -> None:
    """Count a job whose result was handed in."""
    JOBS.labels("committed" if is_first else "duplicate").inc()
    JOB_SECONDS.observe(seconds)
    SCORED.labels(language).inc(programs)
    PROGRESS.set_to_current_time()


class ExecutorCollector(Collector):
    """Reads an executor's own counters."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def collect(self) -> Iterable[Metric]:
        """Return what prometheus_client asks for at each scrape."""
        executor, counters = self._executor, self._executor.counters()
        programs: dict[tuple[str, ...], float] = {
            (status.value, language): count for (status, language), count in sorted(counters.programs.items())
        }
        yield from (
            PROGRAMS.by(programs),
            TIER.by({(executor.tier,): 1}),
            LAUNCHER_RESTARTS.of(counters.launcher_restarts),
            SANDBOX_FAULTS.of(counters.faults),
            SLOTS.of(executor.slots),
            SLOTS_BUSY.of(counters.busy),
            WAITING.of(counters.waiting),
        )


def watch(executor: Executor, admission: Admission) -> None:
    """Show in this process's metrics what an executor has done and what calls have in hand."""
    executor.observer = observe
    PROGRESS.set_to_current_time()
    CALL_PROGRAMS.set_function(lambda: admission.programs)
    CALL_BYTES.set_function(lambda: admission.size_bytes)
    REGISTRY.register(ExecutorCollector(executor))
