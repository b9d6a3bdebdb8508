"""Programs per second of the sandbox on one slot, beside what bounds it, measured alternately in one run.

`floor` is fork + compile + exec + print + wait in the same warmed interpreter with no layer and nobody to report to;
`python_process` is a fresh interpreter per program.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from altlas.config.sections import SandboxSection
from altlas.core.program import Limits, Program
from altlas_evaluator.engine import Executor
from altlas_evaluator.sandbox.probe import TIERS, probe
from altlas_evaluator.sandbox.supervisor import Slot, Tier

SOURCE = b"x = 0\nfor i in range(10):\n    x += i\nprint(x)\n"
LIMITS = Limits()
_PACKAGE_ROOT = Path(sys.modules[Slot.__module__].__file__ or "").parents[2]
_FLOOR = """
import ctypes, gc, os, sys, time
from altlas_evaluator.sandbox import interpreter
source, count = sys.argv[1].encode(), int(sys.argv[2])
interpreter.preload(); os.chdir("/"); interpreter.warm_up(); gc.disable()
fork = ctypes.PyDLL(None).fork
kept = os.dup(1)
os.dup2(os.memfd_create("stdout"), 1)
started = time.perf_counter()
for _ in range(count):
    pid = fork()
    if pid == 0:
        exec(compile(source, "<program>", "exec"), {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
os.write(kept, repr(count / (time.perf_counter() - started)).encode())
"""


def _base_interpreter() -> str:
    return str(getattr(sys, "_base_executable", sys.executable))


def measure_floor(count: int) -> float:
    """Return programs per second of the bare fork loop."""
    command = [_base_interpreter(), "-S", "-s", "-P", "-X", "utf8", "-c", _FLOOR, SOURCE.decode(), str(count)]
    environment = {"PYTHONPATH": str(_PACKAGE_ROOT), "PYTHONHASHSEED": "0"}
    return float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


def measure_slot(tier: Tier, count: int) -> float:
    """Return programs per second of one slot, driven from this thread."""
    slot = Slot(tier=tier)
    slot.start()
    program = Program(source=SOURCE)
    slot.run(program, LIMITS)
    started = time.perf_counter()
    for _ in range(count):
        slot.run(program, LIMITS)
    elapsed = time.perf_counter() - started
    slot.stop()
    return count / elapsed


def measure_python_process(count: int) -> float:
    """Return programs per second of `python -I -S -c`."""
    command = [_base_interpreter(), "-I", "-S", "-c", SOURCE.decode()]
    started = time.perf_counter()
    for _ in range(count):
        subprocess.run(command, capture_output=True, check=True)
    return count / (time.perf_counter() - started)


def measure_executor(count: int) -> float:
    """Return programs per second of an executor with a slot per core, in the tier it chooses."""
    with Executor(SandboxSection()) as executor:
        programs = [Program(source=SOURCE)] * count
        executor.run(programs[:10], LIMITS)
        started = time.perf_counter()
        executor.run(programs, LIMITS)
        return count / (time.perf_counter() - started)


def run_benchmark(*, programs: int = 400, rounds: int = 3) -> dict[str, float]:
    """Return medians of programs per second by name; tiers that do not work here are left out."""
    tiers: list[Tier] = [*(tier for tier in TIERS if probe(tier).works), "unsafe"]
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        rates.setdefault("floor", []).append(measure_floor(programs))
        for tier in tiers:
            rates.setdefault(tier, []).append(measure_slot(tier, programs))
        rates.setdefault("python_process", []).append(measure_python_process(max(5, programs // 20)))
        rates.setdefault("all_cores", []).append(measure_executor(2 * programs))
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    """Print the figures and their ratio to the floor."""
    figures = run_benchmark()
    for name, rate in figures.items():
        print(f"{name:16} {rate:8.0f} programs/s  {1e6 / rate:8.0f} us  {rate / figures['floor']:5.2f} of the floor")


if __name__ == "__main__":
    main()
