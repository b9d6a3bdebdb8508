"""Programs per second by stage, all in one run: `make bench`.

Read the ratios: both sides of each are measured in turn in this run, so a busy machine slows both. The absolute
figures are this machine's.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from altlas.transport.embedded import EmbeddedRedis
from benchmarks import bench_evaluation, bench_transport


def row(stage: str, programs_per_second: float, note: str) -> None:
    """Print one line of the table."""
    print(f"{stage:<28} {programs_per_second:>10,.0f}  {note}", flush=True)


def evaluation() -> None:
    """Print the sandbox's figures, per slot and on all cores."""
    figures = bench_evaluation.run_benchmark()
    floor = figures.pop("floor")
    row("evaluation: floor, 1 slot", floor, "fork, compile, exec, print in the same interpreter, no layer")
    process = figures.pop("python_process")
    for name, rate in figures.items():
        where = "all cores" if name == "all_cores" else "1 slot"
        row(
            f"evaluation: {name}, {where}",
            rate,
            f"{rate / floor:.2f} of the floor, {rate / process:.1f}x a process each",
        )
    row("evaluation: python -I -S -c", process, "a process each")


def transport() -> None:
    """Print the queue's figure, on an embedded server."""
    with tempfile.TemporaryDirectory(prefix="altlas-bench-") as directory, EmbeddedRedis(Path(directory)) as server:
        figures = bench_transport.measure(server.url)
    row("transport", figures.programs_per_second, f"{figures.jobs_per_second:,.0f} jobs/s through submit, take, commit")


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
    """Print the table."""
    argparse.ArgumentParser(prog="make bench", description=__doc__).parse_args()
    print(f"{'stage':<28} {'programs/s':>10}", flush=True)
    # Before torch is imported: the sandbox's launchers start from a small process.
    evaluation()
    transport()
    learning()


if __name__ == "__main__":
    main()
