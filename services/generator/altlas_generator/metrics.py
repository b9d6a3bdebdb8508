"""The generator's metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SAMPLE_SECONDS = Histogram("altlas_generator_sample_seconds", "Seconds to draw and decode one batch.")
FETCH_SECONDS = Histogram("altlas_generator_policy_fetch_seconds", "Seconds to fetch and load one policy.")
PROGRAMS = Counter("altlas_generator_programs_total", "Programs sampled.")
TOKENS = Counter("altlas_generator_tokens_total", "Tokens sampled.")
POLICY_VERSION = Gauge("altlas_generator_policy_version", "Version of the policy loaded last.")
