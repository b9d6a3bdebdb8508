"""Score many programs on a running evaluator; print programs per second and how the rewards are distributed."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from altlas.client import Evaluator, Score
from altlas.errors import AltlasError

TASK = "basics/hello_world"
# What a model in training may write: right, nearly right, and the usual ways to fail. {n} makes each another program.
PROGRAMS = (
    "print('hello world')  # {n}",
    "for word in ['hello', 'world']:\n    print(word, end=' ')  # {n}",
    "print('hello, world')  # {n}",
    "print('hello')  # {n}",
    "print({n})",
    "print(hello world)  # {n}",
    "print('hello' + {n})",
    "open('/etc/passwd').read()  # {n}",
)
ENDLESS = "while True: pass  # {n}"
ENDLESS_EVERY = 100


def make_programs(count: int) -> list[str]:
    """Return `count` programs, no two equal."""
    return [
        (ENDLESS if n % ENDLESS_EVERY == ENDLESS_EVERY - 1 else PROGRAMS[n % len(PROGRAMS)]).replace("{n}", str(n))
        for n in range(count)
    ]


def describe(scores: Sequence[Score]) -> str:
    """Return the rewards' distribution and the statuses as a table."""
    tenths = Counter(min(int(score.reward * 10), 9) for score in scores)
    statuses = Counter(score.status.value for score in scores)
    rows = [f"reward {tenth / 10:.1f} to {(tenth + 1) / 10:.1f}  {tenths[tenth]:>6}" for tenth in range(10)]
    rows.append("statuses  " + ", ".join(f"{name} {count}" for name, count in statuses.most_common()))
    mean = sum(score.reward for score in scores) / len(scores)
    rows.append(f"mean reward {mean:.3f}, solved {sum(score.solved for score in scores)} of {len(scores)}")
    return "\n".join(rows)


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluator", default="127.0.0.1:50054", help="HOST:PORT or unix:PATH")
    parser.add_argument("--programs", type=int, default=1000)
    arguments = parser.parse_args()
    if arguments.programs < 1:
        parser.error(f"--programs {arguments.programs}: at least 1")
    programs = make_programs(arguments.programs)
    with Evaluator(arguments.evaluator) as evaluator:
        has = evaluator.capabilities()
        print(f"{arguments.evaluator}: tier {has.tier}, {has.slots} slots")
        started = time.perf_counter()
        scores = evaluator.evaluate(TASK, programs)
        seconds = time.perf_counter() - started
    print(f"{len(scores)} programs in {seconds:.2f} s: {len(scores) / seconds:,.0f} programs/s")
    print(describe(scores))


if __name__ == "__main__":
    try:
        main()
    except AltlasError as error:
        sys.exit(f"error: {error}")
