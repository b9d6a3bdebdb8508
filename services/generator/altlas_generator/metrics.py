"""The generator's metrics; those of its devices are `altlas.obs.devices`."""

from __future__ import annotations

from altlas.obs.metrics import counter, gauge, histogram

SAMPLE_SECONDS = histogram(
    "altlas_generator_sample_seconds",
    "Seconds to draw and decode one batch, or one deal of it.",
    'Held against altlas_coordinator_stage_seconds{stage="sample"}: what is more there is fetching and the wire.',
)
FETCH_SECONDS = histogram(
    "altlas_generator_policy_fetch_seconds",
    "Seconds to fetch and load one policy, building the sampler included where the run is new.",
    "One for each update. Large: the trainer is busy, the network slow, or the network of the policy large.",
)
PROGRAMS = counter(
    "altlas_generator_programs_total",
    "Programs sampled.",
    "Its rate is what this generator adds; those of all together are the run's, and what was drawn in vain.",
)
TOKENS = counter(
    "altlas_generator_tokens_total",
    "Tokens sampled.",
    "Divided by the programs: their mean length.",
)
POLICY_VERSION = gauge(
    "altlas_generator_policy_version",
    "Version of the policy loaded last: the updates it has learned from.",
    "Behind altlas_trainer_policy_version by more than run.max_lag + 1: this generator is not asked, or cannot fetch.",
)
