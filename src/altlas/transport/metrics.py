"""The queue's metrics, published by the process that submits."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

ADMISSION_WAIT = Counter(
    "altlas_queue_admission_wait_seconds_total", "Seconds for which submitting has waited for room in the window."
)
WINDOW_JOBS = Gauge(
    "altlas_queue_window_jobs", "Jobs waiting or in hand after the newest submit; transport.window_jobs is the most."
)
