"""The evaluator's metrics."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

JOBS = Counter("altlas_evaluator_jobs_total", "Jobs by what became of them: committed, duplicate, failed.", ["outcome"])
JOB_SECONDS = Histogram("altlas_evaluator_job_seconds", "Seconds from taking a job to its commit.")
PROGRAMS = Counter("altlas_evaluator_programs_total", "Programs run for gRPC callers, by status.", ["status"])
