"""Programs per second by stage, all in one run: `make bench`.

Read the ratios: both sides of each are measured in turn in this run, so a busy machine slows both. The absolute
figures are this machine's.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from altlas.transport.embedded import EmbeddedRedis
from benchmarks import bench_async, bench_evaluation, bench_loop, bench_transport
from benchmarks.bench_transport import BRAINF, PYTHON, Shard, ShardFigures, measure_shard

# A task, between which numbers of its programs a run is measured, and its full jobs.
LOOPS = (("stdin/max_input", (1_280, 3_840), PYTHON), ("brainf/dedup", bench_loop.BUDGETS["policy"], BRAINF))


def row(stage: str, programs_per_second: float, note: str) -> None:
    """Print one line of the table."""
    print(f"{stage:<28} {programs_per_second:>10,.0f}  {note}", flush=True)


def transport() -> None:
    """Print the queue's figures, on an embedded server, and what part of a whole run's time its shards take."""
    with tempfile.TemporaryDirectory(prefix="altlas-bench-") as directory, EmbeddedRedis(Path(directory)) as server:
        figures = bench_transport.measure(server.url)
        row("transport", figures.programs_per_second, f"{figures.jobs_per_second:,.0f} jobs/s of {_of(PYTHON)}")
        loops = [(shard, *_cost(server.url, task, points, shard)) for task, points, shard in LOOPS]
    for shard, loop, jobs, part, cost in loops:
        cpu_s = sum(loop.cpu_s.values())
        row(
            f"transport, {shard.language}",
            1000 * part.programs / cost.sum_ms,
            f"{_of(part)} a job: add {cost.add_ms:.2f} + read {cost.read_ms:.2f} + commit {cost.commit_ms:.2f}: "
            f"{cost.sum_ms:.2f} ms; {100 * jobs * cost.sum_ms / 1000 / cpu_s:.1f} % of the CPU time of the whole run, "
            f"{1e6 * cpu_s / loop.programs:,.0f} us a program",
        )


def _cost(
    url: str, task: str, points: tuple[int, int], shard: Shard
) -> tuple[bench_loop.LoopFigures, int, Shard, ShardFigures]:
    """Run a task, and time jobs that hold as many programs as that run's did: a batch need not fill one."""
    first, second = points
    loop = bench_loop.measure("policy", first=first, second=second, task=task)
    jobs = loop.jobs(shard.programs)
    part = replace(shard, programs=round(sum(loop.evaluated) / jobs))
    return loop, jobs, part, measure_shard(url, part)


def _of(shard: Shard) -> str:
    return f"{shard.programs} programs"


def learning() -> None:
    """Print the sampler's and the update's figures and ratios."""
    from benchmarks import bench_learning

    for name, measure, other in (
        ("sampling", bench_learning.compare_samplers, "a per-step nn.LSTM loop with Categorical"),
        ("learning", bench_learning.compare_updates, "the padded update"),
    ):
        result = measure()
        row(name, result.programs_per_s, f"{result.ratio:.2f}x {other} ({result.note})")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "part",
        nargs="*",
        choices=["evaluation", "transport", "learning", "brainf", "async", []],
        help="the first three where none; brainf and async are of the whole loop through the real services",
    )
    parser.add_argument("--programs", type=int, default=1000, help="of the evaluator's figures, a round")
    options = parser.parse_args()
    parts = options.part or ["evaluation", "transport", "learning"]
    # Before torch is imported: the sandbox's launchers start from a small process.
    if "evaluation" in parts:
        bench_evaluation.report(options.programs)
        print()
    if "transport" in parts or "learning" in parts:
        print(f"{'stage':<28} {'programs/s':>10}", flush=True)
    if "transport" in parts:
        transport()
    if "learning" in parts:
        learning()
    if "brainf" in parts:
        bench_loop.report()
    if "async" in parts:
        bench_async.report()


if __name__ == "__main__":
    main()
