"""Evaluators: is every replica at work, how fast, and is the sandbox well?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from altlas_dashboards.panels import (
    RED,
    Query,
    Row,
    assemble,
    choice,
    column,
    graph,
    number,
    rows,
    shares,
    stacked,
    steps,
)

_PHASES = ("queue", "fork", "run", "collect")
_CHOSEN = 'instance=~"$instance"'


def build() -> Dashboard:
    """Return the dashboard."""
    return assemble(
        "Evaluators",
        "Is every replica at work, how fast, and is the sandbox well?",
        [_summary(), _replicas(), _sandbox()],
        choice("instance", "Replica", "label_values(altlas_evaluator_slots, instance)"),
    )


def _summary() -> Row:
    return Row(
        "All chosen replicas",
        [
            number(
                "Replicas up",
                "Evaluators that answered the last scrape, and those that Prometheus knows of.",
                "none",
                Query(f'sum(up{{job="evaluator", {_CHOSEN}}})', "up"),
                Query(f'count(up{{job="evaluator", {_CHOSEN}}})', "known"),
            ),
            number(
                "Programs per second",
                "Programs of jobs that they have scored, in any language, each once. Those of gRPC calls are not among "
                "them: the last row counts these, too.",
                "short",
                Query(f"sum(rate(altlas_evaluator_scored_programs_total{{{_CHOSEN}}}[$__rate_interval]))", "programs"),
            ).decimals(1),
            number(
                "Slots busy",
                "Share of the slots that run a program now. Near 100 %: more replicas or slots pay off. Programs in "
                "brainf take none.",
                "percentunit",
                Query(
                    f"sum(altlas_evaluator_slots_busy{{{_CHOSEN}}}) / sum(altlas_evaluator_slots{{{_CHOSEN}}})",
                    "busy",
                ),
            ).decimals(0),
            number(
                "Program, 95th percentile",
                "Seconds from fork to a program's end, of those that the sandbox runs.",
                "s",
                Query(
                    "histogram_quantile(0.95, sum by (le) (rate(altlas_evaluator_run_seconds_bucket"
                    f"{{{_CHOSEN}}}[$__rate_interval])))",
                    "p95",
                ),
            ),
            number(
                "Sandbox faults",
                "Times a launcher died, was silent or answered wrongly, in the time range shown. Not a program's "
                "failure, ours: look at the evaluator's log.",
                "none",
                Query(f"sum(increase(altlas_evaluator_sandbox_faults_total{{{_CHOSEN}}}[$__range]))", "faults"),
            )
            .decimals(0)
            .thresholds(steps((1, RED))),
            number(
                "Waiting for a slot",
                "Programs that an evaluator has taken and not begun. Above 0 for long: too few slots.",
                "none",
                Query(f"sum(altlas_evaluator_waiting{{{_CHOSEN}}})", "waiting"),
            ),
        ],
    )


def _replicas() -> Row:
    table = rows(
        "Replicas",
        "One line per replica. Tier: how much of the sandbox the kernel allows there; the stronger the better, and "
        "the same on all hosts.",
        "none",
        {
            "instance": "Replica",
            "tier": "Sandbox tier",
            "Value #B": "Slots",
            "Value #C": "Programs per second",
            "Value #D": "Faults since start",
            "Value #E": "Up for",
            "Value #F": "Memory",
        },
        Query(f"max by (instance, tier) (altlas_evaluator_tier{{{_CHOSEN}}})"),
        Query(f"max by (instance) (altlas_evaluator_slots{{{_CHOSEN}}})"),
        Query(f"sum by (instance) (rate(altlas_evaluator_scored_programs_total{{{_CHOSEN}}}[$__range]))"),
        Query(f"max by (instance) (altlas_evaluator_sandbox_faults_total{{{_CHOSEN}}})"),
        Query(f'time() - max by (instance) (process_start_time_seconds{{job="evaluator", {_CHOSEN}}})'),
        Query(f'max by (instance) (process_resident_memory_bytes{{job="evaluator", {_CHOSEN}}})'),
    )
    table = column(table, "Programs per second", decimals=1)
    table = column(table, "Up for", unit="s", decimals=1)
    table = column(table, "Memory", unit="bytes")
    return Row(
        "By replica",
        [
            table,
            graph(
                "Programs per second by replica",
                "Programs of jobs that it has scored. One below its equals: a slower host, or one that shares its "
                "cores.",
                "short",
                Query(
                    f"sum by (instance) (rate(altlas_evaluator_scored_programs_total{{{_CHOSEN}}}[$__rate_interval]))",
                    "{{instance}}",
                ),
            ).min(0),
            graph(
                "Slots busy by replica",
                "Share of each replica's slots that run a program. All low while jobs wait: evaluators cannot reach "
                "the queue, or the programs are in brainf, which take no slots.",
                "percentunit",
                Query(
                    f"max by (instance) (altlas_evaluator_slots_busy{{{_CHOSEN}}})"
                    f" / max by (instance) (altlas_evaluator_slots{{{_CHOSEN}}})",
                    "{{instance}}",
                ),
            )
            .min(0)
            .max(1),
            graph(
                "Seconds per job by replica",
                "95th percentile from taking a job to its commit. A shard is meant to take about 50 ms.",
                "s",
                Query(
                    "histogram_quantile(0.95, sum by (le, instance) (rate(altlas_evaluator_job_seconds_bucket"
                    f"{{{_CHOSEN}}}[$__rate_interval])))",
                    "{{instance}}",
                ),
                span=8,
            ).min(0),
            graph(
                "Jobs by outcome",
                "Per second. Duplicate: another replica had committed it. Failed: the sandbox could not run it, and "
                "it is tried again.",
                "short",
                Query(
                    f"sum by (outcome) (rate(altlas_evaluator_jobs_total{{{_CHOSEN}}}[$__rate_interval]))",
                    "{{outcome}}",
                ),
                span=8,
            ).min(0),
            graph(
                "Programs of gRPC calls in hand",
                "Programs of Evaluate and Execute calls that wait, run, or are answered and not yet read. Near "
                "sandbox.queue_programs callers are refused. Always 0 where only the queue is used.",
                "none",
                Query(f"max by (instance) (altlas_evaluator_call_programs{{{_CHOSEN}}})", "{{instance}}"),
                span=8,
            )
            .min(0)
            .axis_soft_max(1),
        ],
    )


def _sandbox() -> Row:
    return Row(
        "Sandbox",
        [
            stacked(
                "Where a program's time goes",
                "Mean seconds per program. Queue: waiting for a slot. Fork and collect are the sandbox's own, run is "
                "the program's.",
                "s",
                *(Query(f"{_rate(phase, 'sum')} / {_rate(phase, 'count')}", phase) for phase in _PHASES),
            ),
            shares(
                "Runs by status",
                "How programs ended in the sandbox, once for each case that they were run on. sandbox_error is ours, "
                "all others are the programs' own.",
                Query(
                    f"sum by (status) (rate(altlas_evaluator_programs_total{{{_CHOSEN}}}[$__rate_interval])) > 0",
                    "{{status}}",
                ),
            ),
            _latency(
                "Sandbox start", "Seconds in fork, per program. It grows with the memory of the launcher.", "fork"
            ),
            _latency("Program run", "Seconds from fork to a program's end.", "run"),
            _latency(
                "Handing over and reading",
                "Seconds around fork and run: giving the program, reading results.",
                "collect",
            ),
            graph(
                "Faults and launcher restarts",
                "Per minute. Restarts come with recycling and cancelled programs; faults are never normal.",
                "none",
                Query(
                    f"60 * sum(rate(altlas_evaluator_sandbox_faults_total{{{_CHOSEN}}}[$__rate_interval]))", "faults"
                ),
                Query(
                    f"60 * sum(rate(altlas_evaluator_launcher_restarts_total{{{_CHOSEN}}}[$__rate_interval]))",
                    "launcher restarts",
                ),
                span=8,
            )
            .min(0)
            .axis_soft_max(1),
            graph(
                "Runs per second",
                "Programs that the sandbox has run, once for each case, of jobs and of gRPC calls; the canary is one "
                "every 5 s. brainf runs outside.",
                "short",
                Query(
                    f"sum by (language) (rate(altlas_evaluator_programs_total{{{_CHOSEN}}}[$__rate_interval]))",
                    "{{language}}",
                ),
                span=8,
            ).min(0),
            graph(
                "Waiting for a slot",
                "Programs that a replica has taken and not begun.",
                "none",
                Query(f"max by (instance) (altlas_evaluator_waiting{{{_CHOSEN}}})", "{{instance}}"),
                span=8,
            )
            .min(0)
            .axis_soft_max(1),
        ],
    )


def _latency(title: str, description: str, phase: str) -> timeseries.Panel:
    by_bucket = f"sum by (le) (rate(altlas_evaluator_{phase}_seconds_bucket{{{_CHOSEN}}}[$__rate_interval]))"
    quantiles = ((0.5, "median"), (0.95, "95th percentile"), (0.99, "99th percentile"))
    queries = [Query(f"histogram_quantile({quantile}, {by_bucket})", name) for quantile, name in quantiles]
    return graph(title, description, "s", *queries, span=8).min(0)


def _rate(phase: str, part: str) -> str:
    return f"sum(rate(altlas_evaluator_{phase}_seconds_{part}{{{_CHOSEN}}}[$__rate_interval]))"
