"""Programs per second by stage, all in one run: `make bench`.

Read the ratios: both sides of each are measured in turn in this run, so a busy machine slows both. The absolute
figures are this machine's.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from altlas.transport.embedded import EmbeddedRedis
from benchmarks import bench_brainf_loop, bench_evaluation, bench_transport


def row(stage: str, programs_per_second: float, note: str) -> None:
    """Print one line of the table."""
    print(f"{stage:<28} {programs_per_second:>10,.0f}  {note}", flush=True)


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
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "part",
        nargs="*",
        choices=["evaluation", "transport", "learning", "brainf", []],
        help="the first three where none; brainf is the whole loop through the real services",
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
        bench_brainf_loop.report()


if __name__ == "__main__":
    main()
