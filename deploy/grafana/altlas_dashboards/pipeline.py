"""Pipeline: where do the seconds of an update go, and which role holds up the others?"""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from altlas_dashboards.panels import (
    ORANGE,
    RED,
    Query,
    Row,
    assemble,
    graph,
    limit_line,
    name_of,
    number,
    shares,
    stacked,
    steps,
)

_STAGE_SECONDS = "sum by (stage) (rate(altlas_coordinator_stage_seconds_sum[{window}]))"
_UPDATES = "sum(rate(altlas_coordinator_updates_total[$__rate_interval]))"
# The trainer's own count, which changes when its phases do: the coordinator's comes a scrape later, or an update.
_LEARNED = "sum(rate(altlas_trainer_learn_seconds_count[$__rate_interval]))"
_ROLES = 'job=~"coordinator|trainer|generator|evaluator"'


def build() -> Dashboard:
    """Return the dashboard."""
    return assemble(
        "Pipeline",
        "Where do the seconds of an update go, and which role holds up the others?",
        [_summary(), _stages(), _queue(), _machines()],
    )


def _summary() -> Row:
    share = _STAGE_SECONDS.format(window="$__range")
    return Row(
        "The bottleneck",
        [
            name_of(
                "Bottleneck",
                "The stage with the largest share of the stages' seconds in the time range shown. sample: more "
                "generators or a faster device; evaluate: more evaluators; learn: a faster device for the trainer.",
                "percentunit",
                Query(f"topk(1, {share} / scalar(sum({share})))", "{{stage}}"),
                span=6,
            ).decimals(0),
            number(
                "Programs per second",
                "Programs scored per second, duplicates included.",
                "short",
                Query("sum(rate(altlas_coordinator_programs_total[$__rate_interval]))", "programs"),
                span=5,
            ).decimals(1),
            number(
                "Seconds per update",
                "Median of the last 50 updates, of the slowest run under way.",
                "s",
                Query("max(altlas_coordinator_update_seconds_median)", "median"),
                span=5,
            ),
            number(
                "Oldest job",
                "Age of the oldest job that is waiting or in hand; 0 when there is none. "
                "Minutes mean that no evaluator takes work.",
                "s",
                Query("max(altlas_queue_oldest_job_seconds)", "age"),
                span=4,
            ).thresholds(steps((60, ORANGE), (300, RED))),
            number(
                "Lag",
                "Mean number of updates between the policy that drew a batch and the one that learned from it. "
                "Always 0 in lockstep mode.",
                "none",
                Query(
                    "sum(rate(altlas_coordinator_lag_updates_sum[$__rate_interval]))"
                    " / sum(rate(altlas_coordinator_lag_updates_count[$__rate_interval]))",
                    "updates",
                ),
                span=4,
            ).decimals(1),
        ],
    )


def _stages() -> Row:
    return Row(
        "Where the time goes",
        [
            stacked(
                "Seconds of an update by stage",
                "Mean seconds that the coordinator waited for each stage of an update. In async mode stages overlap, "
                "and the sum is more than an update takes.",
                "s",
                Query(f"{_STAGE_SECONDS.format(window='$__rate_interval')} / scalar({_UPDATES})", "{{stage}}"),
            ),
            shares(
                "Share of each stage",
                "The same as shares of the whole: the widest band is the bottleneck.",
                Query(_STAGE_SECONDS.format(window="$__rate_interval"), "{{stage}}"),
            ),
            graph(
                "Seconds per update",
                "From the end of an update to the end of the next, checkpoints included: median and 95th percentile. "
                "The two far apart: a few slow updates, often checkpoints or an evaluator that went away.",
                "s",
                Query(
                    "histogram_quantile(0.5, sum by (le) (rate(altlas_coordinator_update_seconds_bucket"
                    "[$__rate_interval])))",
                    "median",
                ),
                Query(
                    "histogram_quantile(0.95, sum by (le) (rate(altlas_coordinator_update_seconds_bucket"
                    "[$__rate_interval])))",
                    "95th percentile",
                ),
                span=8,
            ).min(0),
            stacked(
                "Trainer: seconds by phase",
                "Mean seconds of an update inside the trainer.",
                "s",
                Query(
                    f"sum by (phase) (rate(altlas_trainer_phase_seconds_sum[$__rate_interval])) / scalar({_LEARNED})",
                    "{{phase}}",
                ),
                span=8,
            ),
            graph(
                "Generator: seconds per call",
                "Mean seconds to draw a batch, and to fetch and load a policy. Fetching near drawing: the policy "
                "is large for the batch.",
                "s",
                Query(
                    "sum(rate(altlas_generator_sample_seconds_sum[$__rate_interval]))"
                    " / sum(rate(altlas_generator_sample_seconds_count[$__rate_interval]))",
                    "draw a batch",
                ),
                Query(
                    "sum(rate(altlas_generator_policy_fetch_seconds_sum[$__rate_interval]))"
                    " / sum(rate(altlas_generator_policy_fetch_seconds_count[$__rate_interval]))",
                    "fetch a policy",
                ),
                span=8,
            ).min(0),
            graph(
                "Programs per second by role",
                "Drawn by generators, scored by evaluators, and learned from, as the coordinator counts them. Scored "
                "below learned from is work saved: those programs' scores were known.",
                "short",
                Query("sum(rate(altlas_generator_programs_total[$__rate_interval]))", "generators: drawn"),
                Query("sum(rate(altlas_evaluator_scored_programs_total[$__rate_interval]))", "evaluators: scored"),
                Query("sum(rate(altlas_coordinator_programs_total[$__rate_interval]))", "coordinator: learned from"),
            ).min(0),
            graph(
                "Lag",
                "Mean number of updates between the policy that drew a batch and the one that learned from it, and "
                "how many updates are on their way. run.max_lag is the most; always at that, learning is slow.",
                "none",
                Query(
                    "sum(rate(altlas_coordinator_lag_updates_sum[$__rate_interval]))"
                    " / sum(rate(altlas_coordinator_lag_updates_count[$__rate_interval]))",
                    "mean lag",
                ),
                Query("max(altlas_coordinator_in_flight_updates)", "in flight"),
            )
            .min(0)
            .axis_soft_max(1),
        ],
    )


def _queue() -> Row:
    return Row(
        "Queue",
        [
            graph(
                "Jobs in the queue",
                "Waiting: nobody has taken them. In hand: an evaluator runs them. Waiting always above 0: evaluators "
                "are the bottleneck; always 0 with evaluators idle: it is somebody else.",
                "none",
                Query("sum(altlas_queue_depth_jobs)", "waiting"),
                Query("sum(altlas_queue_pending_jobs)", "in hand"),
            )
            .min(0)
            .axis_soft_max(1),
            limit_line(
                graph(
                    "Age of the oldest job",
                    "Seconds since the oldest job was issued. An evaluator that died holds its jobs for one lease; "
                    "beyond three leases an alert fires.",
                    "s",
                    Query("max(altlas_queue_oldest_job_seconds)", "oldest job"),
                    Query("3 * max(altlas_queue_lease_seconds)", "3 leases"),
                ).min(0),
                "3 leases",
            ),
            graph(
                "Jobs per second",
                "Issued and committed run level. Duplicate: done twice, counted once. Reclaimed: taken over from an "
                "evaluator that went away. Dead: given up, which stops the run.",
                "short",
                Query("sum(rate(altlas_coordinator_jobs_issued_total[$__rate_interval]))", "issued"),
                Query("sum(rate(altlas_coordinator_jobs_committed_total[$__rate_interval]))", "committed"),
                Query("sum(rate(altlas_coordinator_jobs_duplicate_total[$__rate_interval]))", "duplicate"),
                Query("sum(rate(altlas_coordinator_jobs_reclaimed_total[$__rate_interval]))", "reclaimed"),
                Query("sum(rate(altlas_coordinator_jobs_dead_total[$__rate_interval]))", "dead"),
            ).min(0),
            graph(
                "Waiting for room",
                "Share of the time for which the coordinator held back jobs because transport.window_jobs were out. "
                "Above 0 the queue is full: evaluators are the bottleneck.",
                "percentunit",
                Query("sum(rate(altlas_queue_admission_wait_seconds_total[$__rate_interval]))", "waiting"),
            )
            .min(0)
            .axis_soft_max(0.1),
        ],
    )


def _machines() -> Row:
    return Row(
        "Processes and devices",
        [
            graph(
                "Processors",
                "In use by role, over all replicas, and the share of a GPU's time where there is one. What an "
                "evaluator's programs take is not in it, nor are the trainer's further processes. A GPU that idles "
                "while its role is the bottleneck: batches are too small.",
                "none",
                Query(f"sum by (job) (rate(process_cpu_seconds_total{{{_ROLES}}}[$__rate_interval]))", "{{job}}"),
                Query("max by (job, device) (altlas_device_utilisation_ratio)", "{{job}}: share of {{device}}"),
                span=8,
            )
            .min(0)
            .decimals(2),
            graph(
                "Memory",
                "Resident memory by role, over all replicas, and what is allocated on a GPU where there is one. What "
                "an evaluator's programs take is not in it, nor are the trainer's further processes.",
                "bytes",
                Query(f"sum by (job) (process_resident_memory_bytes{{{_ROLES}}})", "{{job}}"),
                Query('max by (job, device) (altlas_device_memory_bytes{kind="allocated"})', "{{job}} on {{device}}"),
                span=8,
            ).min(0),
            graph(
                "Seconds per call",
                "95th percentile of every gRPC method but health checks, with the seconds that a caller takes to "
                "read the answer.",
                "s",
                Query(
                    "label_replace(histogram_quantile(0.95, sum by (le, method)"
                    ' (rate(altlas_rpc_seconds_bucket[$__rate_interval]))), "method", "$1", "method", ".*/(.*)")',
                    "{{method}}",
                ),
                span=8,
            ).min(0),
        ],
    )
