"""Health: is everything there, does it move, and would a crash now cost anything?"""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from altlas_dashboards.panels import (
    GREEN,
    ORANGE,
    RED,
    Query,
    Row,
    assemble,
    column,
    graph,
    limit_line,
    number,
    rows,
    steps,
    texts,
)

_OURS = 'alertname=~"Altlas.+"'
_CHECKPOINT = "max(altlas_trainer_checkpoint_timestamp_seconds > 0)"
_WELL = texts({"0": ("failing", RED), "1": ("ok", GREEN)})


def build() -> Dashboard:
    """Return the dashboard."""
    return assemble(
        "Health",
        "Is everything there, does it move, and would a crash now cost anything?",
        [_alerts(), _roles(), _checkpoints(), _redis()],
    )


def _alerts() -> Row:
    listed = rows(
        "Alerts",
        "Alerts that fire, and those that will when what they watch lasts (pending). docs/runbook.md says what each "
        "means and what to do. Empty: none.",
        "none",
        {
            "alertname": "Alert",
            "alertstate": "State",
            "severity": "Severity",
            "job": "Role",
            "instance": "Instance",
        },
        Query(f"ALERTS{{{_OURS}}}"),
        span=16,
    )
    state = texts({"firing": ("firing", RED), "pending": ("pending", ORANGE)})
    listed = column(listed, "State", mappings=state, **{"custom.cellOptions": {"type": "color-text"}})
    return Row(
        "Alerts",
        [
            number(
                "Alerts that fire",
                "How many fire now; the table below names them.",
                "none",
                Query(f'count(ALERTS{{alertstate="firing", {_OURS}}}) or vector(0)', "firing"),
            ).thresholds(steps((1, RED))),
            number(
                "Targets down",
                "Processes that Prometheus knows of and that did not answer the last scrape.",
                "none",
                Query("count(up == 0) or vector(0)", "down"),
            ).thresholds(steps((1, RED))),
            number(
                "Runs active",
                "Runs that the coordinator leads now.",
                "none",
                Query("sum(altlas_coordinator_runs_active)", "runs"),
            ),
            number(
                "Without an update",
                "Seconds since the last update's end, of the run under way that waits longest. Ten medians of an "
                "update are too many.",
                "s",
                Query(
                    "time() - min(altlas_coordinator_last_progress_timestamp_seconds"
                    " and on (job, instance) altlas_coordinator_runs_active > 0)",
                    "since the last update",
                ),
            ).no_value("no run"),
            number(
                "Checkpoint age",
                "Seconds since the newest checkpoint: the work that a loss of the trainer's memory would cost.",
                "s",
                Query(f"time() - {_CHECKPOINT}", "age"),
            ),
            number(
                "Redis",
                "Whether the exporter reaches Redis.",
                "none",
                Query("min(redis_up)", "redis"),
            ).mappings(texts({"0": ("down", RED), "1": ("up", GREEN)})),
            listed,
            graph(
                "Alerts over time",
                "How many alerts of each name were pending or firing.",
                "none",
                Query(f"count by (alertname, alertstate) (ALERTS{{{_OURS}}})", "{{alertname}} {{alertstate}}"),
                span=8,
            )
            .min(0)
            .axis_soft_max(2)
            .decimals(0),
        ],
    )


def _roles() -> Row:
    table = rows(
        "Processes",
        "One line per process that Prometheus scrapes. All versions of AltLAS should be the same.",
        "none",
        {
            "job": "Role",
            "instance": "Instance",
            "Value #A": "State",
            "version": "Version",
            "Value #C": "Up for",
            "Value #D": "Since its last progress",
            "Value #E": "Restarts in 1 h",
        },
        Query("max by (job, instance) (up)"),
        Query("max by (job, instance, version) (altlas_build_info)"),
        Query("time() - max by (job, instance) (process_start_time_seconds)"),
        Query("time() - max by (job, instance) (altlas_last_progress_timestamp_seconds > 0)"),
        Query("max by (job, instance) (changes(process_start_time_seconds[1h]))"),
        height=10,
    )
    up = texts({"0": ("down", RED), "1": ("up", GREEN)})
    table = column(table, "State", mappings=up, **{"custom.cellOptions": {"type": "color-text"}})
    for heading in ("Up for", "Since its last progress"):
        table = column(table, heading, unit="s", decimals=1)
    return Row(
        "Roles",
        [
            table,
            graph(
                "Since the last progress",
                "Seconds since each role last did work. One that climbs while the others stay low waits or is stuck.",
                "s",
                Query(
                    "time() - max by (job) (altlas_last_progress_timestamp_seconds > 0)",
                    "{{job}}",
                ),
            ).min(0),
            graph(
                "Waiting for peers",
                "Seconds for which the coordinator has been without a peer; 0: it is there. The run goes on when it "
                "comes back.",
                "s",
                Query("max by (peer) (altlas_coordinator_waiting_seconds)", "{{peer}}"),
            )
            .min(0)
            .axis_soft_max(10),
            graph(
                "Restarts in the last hour",
                "Processes that came back at the same address. A replica that was replaced under a new address is a "
                "new line in the table above.",
                "none",
                Query("sum by (job) (changes(process_start_time_seconds[1h]))", "{{job}}"),
                span=8,
            )
            .min(0)
            .axis_soft_max(1)
            .decimals(0),
            graph(
                "Stalled",
                "Seconds without progress, once the watchdog calls it a stall; 0: there is none.",
                "s",
                Query("max(altlas_coordinator_stalled_seconds)", "stalled"),
                span=8,
            )
            .min(0)
            .axis_soft_max(10),
            graph(
                "Calls by status",
                "gRPC calls per second by status code. OK, and CANCELLED when a watcher leaves; others ask for a look "
                "at the logs.",
                "short",
                Query("sum by (code) (rate(altlas_rpc_calls_total[$__rate_interval]))", "{{code}}"),
                span=8,
            ).min(0),
        ],
    )


def _checkpoints() -> Row:
    return Row(
        "Checkpoints",
        [
            graph(
                "Age of the newest checkpoint",
                "A saw: it climbs until the next one is written. run.checkpoint_every says how high the teeth are.",
                "s",
                Query(f"time() - {_CHECKPOINT}", "age"),
                span=6,
            ).min(0),
            graph(
                "Seconds to write one",
                "Mean seconds to write and sync a checkpoint.",
                "s",
                Query(
                    "sum(increase(altlas_trainer_checkpoint_seconds_sum[$__range]))"
                    " / sum(increase(altlas_trainer_checkpoint_seconds_count[$__range]))",
                    "write",
                ),
                span=6,
            ).min(0),
            graph(
                "Size",
                "Bytes of the newest checkpoint. It grows with the programs seen, 8 bytes each. A run keeps "
                "run.keep_last of them.",
                "bytes",
                Query("max(altlas_trainer_checkpoint_bytes)", "size"),
                span=6,
            ).min(0),
            graph(
                "Refused results and rollbacks",
                "Since the coordinator's start. Refused: an evaluator's result broke the contract; one of another "
                "version, or not ours. Rollbacks: returns to the newest checkpoint, one for each restart of the "
                "trainer.",
                "none",
                Query("sum(altlas_coordinator_refused_results_total)", "refused"),
                Query("sum by (cause) (altlas_coordinator_rollbacks_total)", "rollbacks: {{cause}}"),
                span=6,
            )
            .min(0)
            .axis_soft_max(1)
            .decimals(0),
        ],
    )


def _redis() -> Row:
    return Row(
        "Redis",
        [
            number(
                "Writing the AOF",
                "Whether the last write of the append-only file went well. Failing: Redis refuses writes, and what "
                "it has acknowledged may be lost with it.",
                "none",
                Query("min(redis_aof_last_write_status)", "write"),
                span=8,
            ).mappings(_WELL),
            number(
                "Rewriting the AOF",
                "Whether the last rewrite in the background went well. Failing: the disk is full or the memory too "
                "small for a fork.",
                "none",
                Query("min(redis_aof_last_bgrewrite_status)", "rewrite"),
                span=8,
            ).mappings(_WELL),
            number(
                "Up for",
                "Seconds since Redis started.",
                "s",
                Query("min(redis_uptime_in_seconds)", "uptime"),
                span=8,
            ),
            limit_line(
                graph(
                    "Memory",
                    "Bytes that Redis holds, and maxmemory, at which it refuses what is put up (0: without a limit). "
                    "It should follow the queue and the known scores, and not climb for ever.",
                    "bytes",
                    Query("max(redis_memory_used_bytes)", "used"),
                    Query("max(redis_memory_max_bytes)", "maxmemory"),
                    span=8,
                ).min(0),
                "maxmemory",
            ),
            graph(
                "Commands per second",
                "Commands that Redis processes.",
                "short",
                Query("sum(rate(redis_commands_processed_total[$__rate_interval]))", "commands"),
                span=8,
            ).min(0),
            graph(
                "Clients",
                "Open connections; each role holds a few. A climb without end is a leak.",
                "none",
                Query("max(redis_connected_clients)", "clients"),
                span=8,
            )
            .min(0)
            .decimals(0),
        ],
    )
