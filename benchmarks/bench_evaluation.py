"""The evaluator beside what bounds it and what others do, alternately in one run: `make bench ARGS=evaluation`.

One core means that supervisor, launcher and programs share one. Every figure is the median of the rounds. The floor is
fork, compile, exec, print, exit and wait in the launchers' interpreter, without a layer and with nobody to report to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from altlas.config.sections import RewardSection, SandboxSection, TransportSection
from altlas.core.grading import make_grading
from altlas.core.program import Limits, Program
from altlas.transport.embedded import EmbeddedRedis
from altlas_evaluator.engine import Executor
from altlas_evaluator.sandbox.probe import TIERS, probe
from altlas_evaluator.sandbox.supervisor import Phases, Slot, Tier
from benchmarks import bench_brainf, peers

ROUNDS = 3
LIMITS = Limits()
CASES = 8
_ALTLAS = Path(sys.executable).with_name("altlas")
_TASK = """
name = "forty_five"
description = "Print 45."
reference = "print(45)"
[[cases]]
expected_stdout = "45\\n"
"""

Measure = Callable[[int], float | None]


class SlotMeasure:
    """Programs per second of one slot, driven from this thread; the launcher stays between rounds."""

    def __init__(self, tier: Tier, language: str, source: bytes) -> None:
        self._slot = Slot(tier=tier, language=language)
        self._program = Program(source=source, language=language)
        self.phases: list[Phases] = []
        for _ in range(50):
            if self._slot.run(self._program, LIMITS).stdout != peers.OUTPUT:
                raise SystemExit(f"{language} in {tier} printed something else")

    def __call__(self, count: int) -> float:
        """Run `count` programs."""
        started = time.perf_counter()
        for _ in range(count):
            self._slot.run(self._program, LIMITS)
            self.phases.append(self._slot.phases)
        return count / (time.perf_counter() - started)

    def close(self) -> None:
        """End the launcher."""
        self._slot.stop()


def medians(contestants: dict[str, tuple[Measure, int]], *, rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median rate of each contestant; they take turns. One that cannot run here is left out."""
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, (measure, count) in contestants.items():
            rate = measure(count)
            if rate is not None:
                rates.setdefault(name, []).append(rate)
    return {name: statistics.median(values) for name, values in rates.items()}


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Bind this thread, and the processes that it starts meanwhile, to one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def measure_one_core(programs: int) -> tuple[dict[str, float], dict[str, SlotMeasure]]:
    """Return programs per second on one core by name, and what was measured of ours."""
    tiers: list[Tier] = [*(tier for tier in TIERS if probe(tier).works), "unsafe"]
    with one_core():
        ours = {f"{tier} tier": SlotMeasure(tier, "python", peers.PYTHON_SOURCE) for tier in tiers}
        ours[f"javascript, {tiers[0]}"] = SlotMeasure(tiers[0], "javascript", peers.JAVASCRIPT_SOURCE)
        few = max(5, programs // 20)
        figures = medians(
            {
                "fork floor": (peers.fork_floor, programs),
                "floor": (peers.floor, programs),
                **{name: (slot, programs) for name, slot in ours.items()},
                "python -I -S -c": (peers.python_process, few),
                "bubblewrap": (peers.bubblewrap, few),
                "human-eval's method": (peers.human_eval, few),
                "node -e": (peers.node_process, few // 2),
            }
        )
    for slot in ours.values():
        slot.close()
    return figures, ours


def measure_cores(programs: int) -> dict[str, float]:
    """Return programs per second of an executor by the number of its slots, a core each."""
    cores = sorted(os.sched_getaffinity(0))
    batch = [Program(source=peers.PYTHON_SOURCE)] * programs

    def run(executor: Executor) -> Measure:
        def measure(count: int) -> float:
            started = time.perf_counter()
            executor.run(batch[:count], LIMITS)
            return count / (time.perf_counter() - started)

        return measure

    with contextlib.ExitStack() as stack:
        with one_core():
            single = stack.enter_context(Executor(SandboxSection(slots=1)))
        every = stack.enter_context(Executor(SandboxSection(slots=len(cores))))
        return medians(
            {
                "one core": (run(single), programs),
                "all cores": (run(every), programs * len(cores)),
            }
        )


def measure_cases(programs: int) -> dict[str, float]:
    """Return cases per second of programs with many, on one core, by how cases are kept apart."""
    program, inputs = Program(source=b"print(int(input()) * 2)"), [b"%d\n" % n for n in range(CASES)]
    with one_core():
        slots = {name: Slot(tier=probe_best(), is_shared=name == "shared") for name in ("isolated", "shared")}
        single = Slot(tier=probe_best())

        def one_by_one(count: int) -> float:
            started = time.perf_counter()
            for number in range(count):
                single.run(Program(source=program.source, stdin=inputs[number % CASES]), LIMITS)
            return count / (time.perf_counter() - started)

        def together(slot: Slot) -> Measure:
            def measure(count: int) -> float:
                started = time.perf_counter()
                for _ in range(count // CASES):
                    slot.run_cases(program, inputs, LIMITS)
                return count / (time.perf_counter() - started)

            return measure

        contestants: dict[str, tuple[Measure, int]] = {"one by one": (one_by_one, programs)}
        contestants |= {name: (together(slot), programs) for name, slot in slots.items()}
        figures = medians(contestants)
    for slot in (single, *slots.values()):
        slot.stop()
    return figures


def probe_best() -> Tier:
    """Return the strongest tier that works here."""
    return next(tier for tier in TIERS if probe(tier).works)


def distinct(count: int, start: int) -> list[str]:
    """Return programs that differ, so that none is looked up."""
    return [peers.PYTHON_SOURCE.decode() + f"# {number}\n" for number in range(start, start + count)]


class ExecuteMeasure:
    """Programs per second of `altlas execute` on all cores: JSON lines in, answers out."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([_ALTLAS, "execute"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self(50)

    def __call__(self, count: int) -> float:
        """Write `count` lines and read their answers."""
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        lines = b"".join(json.dumps({"id": n, "source": s}).encode() + b"\n" for n, s in enumerate(distinct(count, 0)))
        started = time.perf_counter()
        writer = threading.Thread(target=self._write, args=(lines,))
        writer.start()
        for number in range(count):
            answer = json.loads(process.stdout.readline())
            if answer["id"] != number or answer["stdout"] != peers.OUTPUT.decode():
                raise SystemExit(f"altlas execute answered {answer}")
        writer.join()
        return count / (time.perf_counter() - started)

    def _write(self, lines: bytes) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(lines)
            self._process.stdin.flush()

    def close(self) -> None:
        """End the command."""
        self._process.communicate()


class ServiceMeasure:
    """Programs per second through the coordinator's side, Redis, an evaluator process, the scorer, and back."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._done = 0
        self._evaluator = subprocess.Popen(
            [_ALTLAS, "serve", "evaluator", "--listen", "127.0.0.1:0", "--redis-url", redis_url],
            stderr=subprocess.DEVNULL,
        )
        self(200)

    def __call__(self, count: int) -> float:
        """Evaluate batches of the size that runs have by default until `count` programs are scored."""
        return asyncio.run(self._evaluate(count))

    async def _evaluate(self, count: int) -> float:
        from altlas.transport.redis_client import connect
        from altlas.transport.redis_streams import RedisJobQueue
        from altlas_coordinator.evaluation import Evaluation

        grading = make_grading(_TASK, RewardSection(), where="the benchmark's task")
        client = await connect(self._redis_url)
        run_id = f"bench-{time.monotonic_ns()}"
        queue = RedisJobQueue(client, run_id)
        evaluation = Evaluation(queue, run_id=run_id, grading=grading, section=TransportSection())
        await evaluation.open()
        sources = [source.encode() for source in distinct(count, self._done)]
        self._done += count
        await evaluation.evaluate(0, [b"print(45)"])  # the evaluator has found the run
        started = time.perf_counter()
        batch = await evaluation.evaluate(1, sources)
        seconds = time.perf_counter() - started
        if not batch.scores.solved.all() or batch.evaluated != count:
            raise SystemExit("the evaluator's scores are not right")
        await queue.close()
        await client.aclose()
        return count / seconds

    def close(self) -> None:
        """End the evaluator."""
        self._evaluator.terminate()
        self._evaluator.wait()


def measure_service(programs: int) -> dict[str, float]:
    """Return programs per second on all cores through `altlas execute`, and through Redis with scoring."""
    with tempfile.TemporaryDirectory(prefix="altlas-bench-") as directory, EmbeddedRedis(Path(directory)) as server:
        execute, service = ExecuteMeasure(), ServiceMeasure(server.url)
        try:
            contestants = {"altlas execute": (execute, programs), "redis and scoring": (service, programs)}
            return medians(contestants, rounds=2 * ROUNDS + 1)
        finally:
            execute.close()
            service.close()


def _print_row(name: str, rate: float, note: str) -> None:
    print(f"{name:<28} {rate:>10,.0f} {1e6 / rate:>10,.0f}  {note}", flush=True)


def _print_phases(ours: dict[str, SlotMeasure], figures: dict[str, float]) -> None:
    print("\nwhere the microseconds of one program go, medians")
    print(f"  fork, exit, wait alone {1e6 / figures['fork floor']:.0f}; with compile, exec, print", end="")
    print(f" {1e6 / figures['floor']:.0f}")
    for name, slot in ours.items():
        parts = {
            "fork": [phases.fork_s for phases in slot.phases],
            "the child until its end is known": [phases.run_s for phases in slot.phases],
            "handing over and collecting": [phases.collect_s for phases in slot.phases],
        }
        print(f"  {name}: " + ", ".join(f"{part} {statistics.median(v) * 1e6:.0f}" for part, v in parts.items()))


def report(programs: int = 1000) -> None:
    """Measure everything and print it."""
    print(f"{'one core':<28} {'programs/s':>10} {'us each':>10}")
    figures, ours = measure_one_core(programs)
    floor = figures["floor"]
    bare = figures["unsafe tier"]
    others = ("python -I -S -c", "bubblewrap", "human-eval's method")
    for name, rate in figures.items():
        note = f"{rate / floor:.2f} of the floor"
        if name.endswith("tier") and name != "unsafe tier":
            note += f", layers {bare / rate - 1:+.1%}, " + ", ".join(
                f"{rate / figures[other]:.1f} x {other}" for other in others if other in figures
            )
        if name.startswith("javascript") and "node -e" in figures:
            note = f"{rate / figures['node -e']:.0f} x node -e"
        _print_row(name, rate, note)
    _print_phases(ours, figures)

    cores = measure_cores(programs)
    print(f"\n{'an executor':<28} {'programs/s':>10} {'us each':>10}")
    for name, rate in cores.items():
        _print_row(name, rate, f"{rate / cores['one core']:.2f} x one core")

    cases = measure_cases(programs)
    print(f"\n{f'one core, {CASES} cases a program':<28} {'cases/s':>10} {'us each':>10}")
    for name, rate in cases.items():
        _print_row(name, rate, f"{rate / cases['one by one']:.2f} x one by one")

    with one_core():
        brainf = medians(bench_brainf.contestants(20 * programs))
    print(f"\n{f'one core, {bench_brainf.TASK}':<28} {'programs/s':>10} {'us each':>10}")
    for name, rate in brainf.items():
        length = name.rpartition(", ")[2]
        _print_row(name, rate, f"{rate / brainf[f'in Python, {length}']:.0f} x in Python")

    service = measure_service(2 * programs)
    print(f"\n{'all cores':<28} {'programs/s':>10} {'us each':>10}")
    for name, rate in service.items():
        _print_row(name, rate, f"{rate / service['altlas execute']:.2f} x altlas execute")
