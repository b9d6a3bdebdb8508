"""Which settings may change when a run goes on, and which make it another run."""

from __future__ import annotations

from collections.abc import Mapping

from altlas.config.fields import Value, all_keys, value_text
from altlas.config.sections import Config
from altlas.errors import ConfigError

# When a run stops, where it runs and what it tells: none of these changes what a program scores or how the run is cut
# into jobs. What may change the weights is fixed, but for where the trainer computes and the handling of a stuck
# run, which are the usual reasons to go on elsewhere or otherwise.
RESUMABLE_KEYS: frozenset[str] = frozenset(
    {
        "run.budget",
        "run.wall_clock_s",
        "run.stop_on_solved",
        "run.stuck_after",
        "run.on_stuck",
        "run.checkpoint_every",
        "run.keep_last",
        "run.keep_best",
        "run.keep_every",
        "run.evaluators",
        "run.generators",
        "model.device",
        "model.threads",
        "sandbox.tier",
        "sandbox.slots",
        "sandbox.recycle_after",
        "sandbox.allow_unsafe",
        "transport.redis_url",
        "transport.redis_password_file",
        "transport.lease_s",
        "transport.max_deliveries",
        "transport.window_jobs",
        "transport.rpc_timeout_s",
        "trainer.processes",
        "trainer.group_timeout_s",
        "watchdog.report_after",
        "watchdog.fail_after",
        "watchdog.least_report_s",
        "watchdog.least_fail_s",
        "watchdog.restarts",
        "security.tls_ca",
        "security.tls_cert",
        "security.tls_key",
        "security.token_file",
        "paths.runs",
        "paths.vocabulary",
        "logging.level",
        "logging.format",
        "logging.attempts_sample",
    }
)


def check_resumable(old: Config, new: Config) -> None:
    """Check that a run of configuration `old` may go on with `new`.

    Raises:
        ConfigError: keys outside RESUMABLE_KEYS differ; the message lists them and the ways out.
    """
    before, after = _flat(old), _flat(new)
    changed = [key for key in before if key not in RESUMABLE_KEYS and before[key] != after[key]]
    if not changed:
        return
    lines = [f"  {key}: the run has {value_text(before[key])!r}, now {value_text(after[key])!r}" for key in changed]
    ways = " ".join(f"--set {key}={value_text(before[key])}" for key in changed)
    raise ConfigError(
        "these settings cannot change when a run is resumed:\n"
        + "\n".join(lines)
        + f"\nGo on with the run's own values ({ways}), or start a new run in another directory (--run-dir)."
    )


def _flat(config: Config) -> Mapping[str, Value]:
    dumped = config.model_dump()
    return {path: dumped[key.section][key.name] for path, key in all_keys().items()}
