"""The queue's metrics, published by the process that submits.

What is counted in the queue itself is read from there when somebody asks: see `altlas_coordinator.scrape`.
"""

from __future__ import annotations

from altlas.obs.metrics import counter, counter_family, gauge, gauge_family

ADMISSION_WAIT = counter(
    "altlas_queue_admission_wait_seconds_total",
    "Seconds for which submitting has waited for room in the window.",
    "Growing: evaluators are far behind, and the window keeps the queue in Redis small. More evaluators, or nothing.",
)
WINDOW_JOBS = gauge(
    "altlas_queue_window_jobs",
    "Jobs of a run that wait or are in hand, after its newest submit.",
    "transport.window_jobs is the most; at that, see altlas_queue_admission_wait_seconds_total.",
)
DEPTH = gauge_family(
    "altlas_queue_depth_jobs",
    "Jobs that wait for an evaluator, of all runs under way; left out while Redis does not answer.",
    "0 most of the time: evaluators keep up and may idle. Never 0: they are the bottleneck, and more of them pay.",
)
PENDING = gauge_family(
    "altlas_queue_pending_jobs",
    "Jobs in the hands of evaluators, of all runs under way; left out while Redis does not answer.",
    "Above the slots of all evaluators that are up: some died with jobs in hand, which others get after the lease.",
)
OLDEST = gauge_family(
    "altlas_queue_oldest_job_seconds",
    "Age of the oldest job that waits or is in hand, since it was put up, last time; 0 when there is none.",
    "Beyond three leases nobody takes jobs, or one comes back again and again: see the evaluators' log.",
)
LEASE = gauge(
    "altlas_queue_lease_seconds",
    "transport.lease_s: a job that is not renewed for this long goes to another evaluator.",
    "The unit for altlas_queue_oldest_job_seconds.",
)
ISSUED = counter_family(
    "altlas_coordinator_jobs_issued_total",
    "Jobs put up for evaluators; one that was put up already is not counted again, a dead one that is put up again is.",
    "Issued less committed and dead is what waits, is in hand, or was withdrawn with its run.",
)
COMMITTED = counter_family(
    "altlas_coordinator_jobs_committed_total",
    "Jobs whose result was taken: each once, however often it was delivered or committed.",
    "Its rate is the throughput of the queue in shards.",
)
DUPLICATE = counter_family(
    "altlas_coordinator_jobs_duplicate_total",
    "Results thrown away, because the job had one already or its run was over.",
    "Above 1 % of the committed ones: leases run out under working evaluators. Raise transport.lease_s, or see whether "
    "an evaluator's machine stalls.",
)
RECLAIMED = counter_family(
    "altlas_coordinator_jobs_reclaimed_total",
    "Jobs taken over by another evaluator after their lease had run out.",
    "As many as the jobs in hand of evaluators that were killed; more means evaluators that hang.",
)
DEAD = counter_family(
    "altlas_coordinator_jobs_dead_total",
    "Jobs given up after transport.max_deliveries deliveries.",
    "Any stops its run with the job's last error.",
)
