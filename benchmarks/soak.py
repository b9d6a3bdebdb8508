"""Many programs, one in a hundred of them hostile, through one evaluator process: `python -m benchmarks.soak`.

Every result is held against what its program must give; the process is looked at after every chunk. Exits with 1 when
a result is wrong, something is left behind, or the evaluator grows.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from evaluator_process import EvaluatorProcess
from hostile import LIMITS as HOSTILE_LIMITS
from hostile import PROGRAMS

from altlas.client import Evaluator, Execution, Program, ProgramStatus
from benchmarks.processes import descendants, lasting_zombies, look_at, pooled_growth, scan

CHUNK = 2_000
LIMITS = replace(HOSTILE_LIMITS, cpu_s=1.0, wall_s=2.0)
VERDICT_S = 0.1  # the most that a timeout's verdict may come after its limit
MAX_KIB_PER_10K = 512  # of resident memory
_OUTSIDE = ("@PORT@", "@UDP@", "@UNIX@", "@DGRAM@", "@ABSTRACT@", "@DIR@", "@FILE@", "@PID@")

Verdict = tuple[ProgramStatus, bytes]


@dataclass(frozen=True)
class Expected:
    """A program and whether an execution is right for it."""

    program: Program
    is_right: Callable[[Execution], bool]


def _ordinary(number: int) -> Expected:
    kinds: list[tuple[str, str, bytes, ProgramStatus, str]] = [
        ("x = {n}\nfor i in range(5):\n    x += i\nprint(x - 10)", "python", b"", ProgramStatus.OK, "{n}\n"),
        ("print(int(input()) + 1 - 1)", "python", b"%d\n" % number, ProgramStatus.OK, "{n}\n"),
        ("import math, json\nprint(json.dumps([{n}, math.gcd(4, 6)]))", "python", b"", ProgramStatus.OK, "[{n}, 2]\n"),
        ("console.log({n} + 0)", "javascript", b"", ProgramStatus.OK, "{n}\n"),
        ("print({n})\nprint(undefined)", "python", b"", ProgramStatus.RUNTIME_ERROR, "{n}\n"),
        ("print({n}", "python", b"", ProgramStatus.SYNTAX_ERROR, ""),
    ]
    source, language, stdin, status, stdout = kinds[number % len(kinds)]
    program = Program(source=source.format(n=number).encode(), language=language, stdin=stdin)
    wanted = stdout.format(n=number).encode()
    return Expected(program, lambda execution: (execution.status, execution.stdout) == (status, wanted))


def _hostile(name: str) -> Expected:
    hostile = PROGRAMS[name]
    source = hostile.source if isinstance(hostile.source, bytes) else hostile.source.encode()
    for item in _OUTSIDE:
        source = source.replace(item.encode(), b"1")
    return Expected(
        Program(source=source, language=hostile.language), lambda execution: execution.status in hostile.statuses
    )


@dataclass(frozen=True)
class Sample:
    """The evaluator after so many programs."""

    programs: int
    descriptors: int
    resident_kib: int
    processes: int
    zombies: int


def look(process: EvaluatorProcess, programs: int) -> Sample:
    """Return what the process holds."""
    holding = look_at(process.pid)
    assert holding is not None, process.log_path.read_text()
    return Sample(
        programs=programs,
        descriptors=holding.descriptors,
        resident_kib=holding.resident_kib,
        processes=sum(not child.is_zombie for child in descendants(process.pid, scan())),
        zombies=len(lasting_zombies()),
    )


def slope(samples: list[Sample], name: str) -> float:
    """Return the least-squares growth per 10,000 programs."""
    growth = pooled_growth([[(sample.programs, getattr(sample, name)) for sample in samples]])
    return growth.slope * 10_000 if growth else 0.0


def late_s(execution: Execution) -> float:
    """Return the seconds between a timeout's limit and its verdict; 0 for a program that ended itself by SIGXCPU."""
    over_wall_s, over_cpu_s = execution.wall_s - LIMITS.wall_s, execution.cpu_s - LIMITS.cpu_s
    return over_wall_s if over_wall_s >= 0 else max(0.0, over_cpu_s)


def soak(programs: int, one_in: int, seed: int) -> int:
    """Run the soak and print what was found; returns the exit code."""
    chance = random.Random(seed)
    names = sorted(PROGRAMS)
    statuses: Counter[str] = Counter()
    wrong: list[str] = []
    lateness: list[float] = []
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="altlas-soak-") as name, EvaluatorProcess(Path(name)) as process:
        process.wait_until_ready()
        client = Evaluator(process.address)
        started = time.perf_counter()
        done = 0
        while done < programs:
            expected = [
                _hostile(chance.choice(names)) if chance.randrange(one_in) == 0 else _ordinary(number)
                for number in range(done, min(done + CHUNK, programs))
            ]
            executions = client.execute([item.program for item in expected], limits=LIMITS)
            for item, execution in zip(expected, executions, strict=True):
                statuses[execution.status.value] += 1
                if not item.is_right(execution):
                    wrong.append(f"{item.program.source[:200]!r}: {execution}")
                if execution.status is ProgramStatus.TIMEOUT:
                    lateness.append(late_s(execution))
            done += len(expected)
            samples.append(look(process, done))
            print(f"{done:,} {samples[-1]}", flush=True)
        seconds = time.perf_counter() - started
        client.close()
        faults = process.sample("sandbox_faults_total")
    return _report(samples[len(samples) // 5 :], statuses, wrong, lateness, seconds, faults)


def _report(
    samples: list[Sample],
    statuses: Counter[str],
    wrong: list[str],
    lateness: list[float],
    seconds: float,
    faults: float,
) -> int:
    total = sum(statuses.values())
    print(f"{total:,} programs in {seconds:.0f} s, {total / seconds:,.0f} per s: {dict(statuses.most_common())}")
    print("growth per 10,000 programs after the first fifth:", end=" ")
    growth = {name: slope(samples, name) for name in ("descriptors", "resident_kib", "processes")}
    print(", ".join(f"{name} {value:+.2f}" for name, value in growth.items()))
    print(f"zombies {max(sample.zombies for sample in samples)}, sandbox faults {faults:.0f}, wrong {len(wrong)}")
    if lateness:
        print(f"timeouts {len(lateness)}, verdict after the limit: worst {max(lateness) * 1e3:.0f} ms")
    for line in wrong[:20]:
        print(f"  {line}")
    problems = {
        "wrong results": bool(wrong),
        "sandbox faults": faults > 0,
        "zombies": any(sample.zombies for sample in samples),
        "descriptors grow": growth["descriptors"] > 0.5,
        "memory grows": growth["resident_kib"] > MAX_KIB_PER_10K,
        "processes grow": growth["processes"] > 0.5,
        "late verdicts": max(lateness, default=0.0) > VERDICT_S,
    }
    found = [what for what, holds in problems.items() if holds]
    print(f"found: {', '.join(found)}" if found else "nothing found")
    return 1 if found else 0


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=100_000)
    parser.add_argument("--hostile-one-in", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(soak(options.programs, options.hostile_one_in, options.seed))


if __name__ == "__main__":
    main()
