"""The sandbox's own behaviour: statuses, determinism, recovery, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile
import pytest

from altlas.config.sections import SandboxSection
from altlas.core.program import Execution, Limits, Program, ProgramStatus
from altlas.errors import ConfigError, SandboxError
from altlas_evaluator.engine import Executor
from altlas_evaluator.sandbox import kernel, probe, records, supervisor
from altlas_evaluator.sandbox.probe import choose_tier
from altlas_evaluator.sandbox.supervisor import Slot, Tier

LIMITS = Limits(cpu_s=1.0, wall_s=3.0)
SLEEPER = b"import time\nprint('begun', flush=True)\ntime.sleep(0.5)\nprint(input())"


PYTHON_LOOP = "from altlas_evaluator.sandbox import forkloop; forkloop.load_native = lambda: None; "


@pytest.fixture(scope="module", params=[("namespaces", "C"), ("landlock", "C"), ("namespaces", "Python")])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """The fork loop in C is built where there is a compiler, as there is where tests run; both must do the same."""
    tier, loop = request.param
    with pytest.MonkeyPatch.context() as patch:
        if loop == "Python":
            patch.setattr(supervisor, "_START", PYTHON_LOOP + supervisor._START)
        with Executor(SandboxSection(slots=2), tier=tier) as running:
            assert f"fork loop: {loop}" in running.layers
            yield running


def run(executor: Executor, source: bytes | str, *, stdin: bytes = b"", limits: Limits = LIMITS) -> Execution:
    encoded = source if isinstance(source, bytes) else source.encode()
    return executor.run([Program(source=encoded, stdin=stdin)], limits)[0]


def children_of(pid: int) -> list[int]:
    """Process ids of all descendants."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children_of(child)]
    return found


def wait_until(condition: Callable[[], object], *, timeout_s: float = 20.0) -> None:
    """Wait for a callable to be true; the outside world has no event for it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_output_input_and_measures_are_reported(executor: Executor) -> None:
    source = "import sys\nprint(input().upper())\nprint('oops', file=sys.stderr)\nsum(range(10 ** 6))"
    execution = run(executor, source, stdin="grüße\n".encode())
    assert execution.status is ProgramStatus.OK
    assert (execution.stdout, execution.stderr, execution.exit_code) == ("GRÜSSE\n".encode(), b"oops\n", 0)
    assert 0 < execution.cpu_s <= execution.wall_s + 0.02
    assert 4 << 20 < execution.peak_memory_bytes < 200 << 20


def test_uncaught_exception_ends_with_its_traceback(executor: Executor) -> None:
    execution = run(executor, "def f():\n    return 1 / 0\nf()")
    assert (execution.status, execution.exit_code) == (ProgramStatus.RUNTIME_ERROR, 1)
    lines = execution.stderr.decode().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert [line.strip() for line in lines[1:-1]] == [
        'File "<program>", line 3, in <module>',
        'File "<program>", line 2, in f',
    ]


def test_order_is_kept_over_slots(executor: Executor) -> None:
    programs = [Program(source=f"print({n})".encode()) for n in range(60)]
    assert [item.stdout for item in executor.run(programs, LIMITS)] == [f"{n}\n".encode() for n in range(60)]


def test_executor_serves_several_threads(executor: Executor) -> None:
    results: dict[int, list[bytes]] = {}

    def work(number: int) -> None:
        programs = [Program(source=f"print({number}, {n})".encode()) for n in range(15)]
        results[number] = [item.stdout for item in executor.run(programs, LIMITS)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [f"{n} {i}\n".encode() for i in range(15)] for n in range(4)}


def test_programs_are_deterministic(executor: Executor) -> None:
    source = (
        "import random, os\nclass A: pass\ndef f(): pass\n"
        "print(hash('a'), random.random(), random.sample(range(99), 5), list({'x', 'y', 'z'}), A, sorted(os.environ))"
    )
    outputs = {run(executor, source).stdout for _ in range(6)}
    assert len(outputs) == 1
    assert b"0.844" in outputs.pop()  # random.seed(0)


def test_nothing_is_carried_over(executor: Executor) -> None:
    first = "import builtins, sys, random\nbuiltins.leak = 1\nsys.leak = 1\nrandom.leak = 1\nx = 5\ninput()"
    second = (
        "import builtins, sys, random\n"
        "print([hasattr(item, 'leak') for item in (builtins, sys, random)], 'x' in globals(), sys.stdin.read())"
    )
    for _ in range(3):
        run(executor, first, stdin=b"a\nb\nc\n")
        assert run(executor, second, stdin=b"rest").stdout == b"[False, False, False] False rest\n"


def test_shorter_content_replaces_longer(executor: Executor) -> None:
    run(executor, "print('a' * 9000)\n#" + "x" * 50_000, stdin=b"y" * 50_000)
    execution = run(executor, "print(len(input()))", stdin=b"abc")
    assert (execution.stdout, execution.stderr) == (b"3\n", b"")


def test_standard_library_can_be_imported(executor: Executor) -> None:
    source = (
        "import asyncio, csv, dataclasses, datetime, decimal, fractions, hashlib, numbers, statistics, typing, zlib\n"
        "async def main(): return statistics.mean([1, 2, 3])\n"
        "print(asyncio.run(main()), decimal.Decimal('0.1') + 1, hashlib.sha256(b'').hexdigest()[:4])"
    )
    execution = run(executor, source)
    assert (execution.status, execution.stdout) == (ProgramStatus.OK, b"2 1.1 e3b0\n"), execution.stderr


def test_installed_packages_cannot_be_read(executor: Executor) -> None:
    source = (
        "import os, sys\nroot = os.path.dirname(os.__file__)\n"
        "for name in ('site-packages', 'dist-packages'):\n"
        "    for path, _, files in os.walk(os.path.join(root, name)):\n"
        "        for file in files:\n"
        "            try: open(os.path.join(path, file)); print('read', file)\n"
        "            except OSError: pass\n"
    )
    assert run(executor, source).stdout == b""


@pytest.mark.parametrize(
    ("limits", "source", "status"),
    [
        (Limits(cpu_s=0.2, wall_s=3.0), "while True: pass", ProgramStatus.TIMEOUT),
        (Limits(cpu_s=1.0, wall_s=0.3), "import time\ntime.sleep(9)", ProgramStatus.TIMEOUT),
        (Limits(memory_bytes=16 << 20), "x = bytearray(17 << 20)", ProgramStatus.MEMORY_LIMIT),
        (Limits(memory_bytes=64 << 20), "x = bytearray(17 << 20)", ProgramStatus.OK),
        (Limits(output_bytes=10), "print('123456789')", ProgramStatus.OK),
        (Limits(output_bytes=10), "print('1234567890')", ProgramStatus.OUTPUT_LIMIT),
        (Limits(output_bytes=10), "x = (", ProgramStatus.SYNTAX_ERROR),
        (Limits(output_bytes=1), "x = " + "(" * 300, ProgramStatus.SYNTAX_ERROR),
    ],
)
def test_limits_hold_to_the_letter(executor: Executor, limits: Limits, source: str, status: ProgramStatus) -> None:
    execution = run(executor, source, limits=limits)
    assert execution.status is status
    assert len(execution.stdout) <= limits.output_bytes
    if status is ProgramStatus.TIMEOUT:
        reached = min(limits.cpu_s, limits.wall_s)
        assert reached * 0.95 <= execution.wall_s < limits.wall_s + 0.5


@pytest.mark.parametrize(
    ("program", "limits", "message"),
    [
        (Program(source=b"", language="cobol"), LIMITS, "cobol"),
        (Program(source=b" " * ((1 << 20) + 1)), LIMITS, "source_bytes"),
        (Program(source=b""), Limits(cpu_s=99), "cpu_s"),
        (Program(source=b""), Limits(wall_s=0), "wall_s"),
        (Program(source=b""), Limits(cpu_s=float("nan")), "cpu_s"),
        (Program(source=b""), Limits(memory_bytes=1 << 40), "memory_bytes"),
        (Program(source=b""), Limits(output_bytes=-1), "output_bytes"),
    ],
)
def test_what_is_above_the_ceiling_is_refused(
    executor: Executor, program: Program, limits: Limits, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        executor.run([Program(source=b""), program], limits)


@pytest.fixture(params=["namespaces", "landlock"])
def slot(request: pytest.FixtureRequest) -> Iterator[Slot]:
    tier: Tier = request.param
    made = Slot(tier=tier)
    made.start()
    yield made
    made.stop()


def test_killed_launcher_is_replaced_and_the_program_run_again(slot: Slot) -> None:
    pid = slot.launcher_pid
    assert pid is not None
    idle = len(children_of(pid))

    def kill() -> None:
        wait_until(lambda: len(children_of(pid)) > idle)
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    execution = slot.run(Program(source=SLEEPER, stdin=b"right"), LIMITS)
    killer.join()
    assert (execution.status, execution.stdout) == (ProgramStatus.OK, b"begun\nright\n")
    assert (slot.counters.starts, slot.counters.faults) == (2, 1)


def test_killed_program_is_run_again(slot: Slot) -> None:
    pid = slot.launcher_pid
    assert pid is not None
    before = set(children_of(pid))

    def kill() -> None:
        wait_until(lambda: set(children_of(pid)) - before)
        for child in set(children_of(pid)) - before:
            os.kill(child, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    execution = slot.run(Program(source=SLEEPER, stdin=b"right"), LIMITS)
    killer.join()
    assert (execution.status, execution.stdout) == (ProgramStatus.OK, b"begun\nright\n")
    assert slot.counters.starts == 1


def test_stopped_launcher_is_ended_and_reported(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "GRACE_S", 0.2)
    monkeypatch.setattr(supervisor, "ATTEMPTS", 1)
    pid = slot.launcher_pid
    assert pid is not None
    os.killpg(pid, signal.SIGSTOP)
    execution = slot.run(Program(source=b"print(1)"), Limits(cpu_s=0.1, wall_s=0.1))
    assert execution.status is ProgramStatus.SANDBOX_ERROR
    assert not is_alive(pid)
    assert slot.run(Program(source=b"print(2)"), LIMITS).stdout == b"2\n"


def test_launcher_is_recycled() -> None:
    slot = Slot(tier="landlock", recycle_after=3)
    outputs = [slot.run(Program(source=b"print(1)"), LIMITS).stdout for _ in range(7)]
    assert outputs == [b"1\n"] * 7
    assert (slot.counters.starts, slot.counters.faults) == (3, 0)
    slot.stop()


def test_aborted_program_is_gone_and_the_slot_goes_on(slot: Slot) -> None:
    endless = Program(source=b"while True: pass")
    ticket = supervisor.Ticket()
    threading.Timer(0.2, slot.abort, [ticket]).start()
    started = time.monotonic()
    with pytest.raises(supervisor.AbortedError):
        slot.run(endless, Limits(cpu_s=2.0, wall_s=4.0), ticket)
    assert time.monotonic() - started < 1.0
    slot.abort(ticket)  # nothing runs under it: nothing happens
    assert slot.run(Program(source=b"print(1)"), LIMITS).stdout == b"1\n"
    assert slot.counters.faults == 0
    phases = slot.phases
    assert 0 < phases.fork_s < 0.1
    assert 0 < phases.run_s < 1
    assert phases.collect_s > 0


def test_many_programs_leave_nothing_behind() -> None:
    sources = [b"print(1)", b"x = (", b"1 / 0", b"import os\nos.fork()", b"raise SystemExit", b"print('a' * 99999)"]
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with Executor(SandboxSection(slots=2)) as executor:
        executor.run([Program(source=source) for source in sources], LIMITS)
        descriptors_running = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        running = {pid: children_of(pid) for pid in executor.launcher_pids()}
        executions = executor.run([Program(source=source) for source in sources * 50], LIMITS)
        assert len(executions) == 300
        assert {pid: children_of(pid) for pid in executor.launcher_pids()} == running
        assert len(os.listdir("/proc/self/fd")) == descriptors_running  # noqa: PTH208
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208
    assert not any(is_alive(pid) for pid in running)


@pytest.mark.parametrize(("tier", "processes_per_launcher"), [("namespaces", 2), ("landlock", 1)])
def test_launchers_and_programs_die_with_the_service(tier: str, processes_per_launcher: int) -> None:
    script = textwrap.dedent("""
        import sys
        from altlas.config.sections import SandboxSection
        from altlas.core.program import Limits, Program
        from altlas_evaluator.engine import Executor
        executor = Executor(SandboxSection(slots=2, tier=sys.argv[1]))
        print(*executor.launcher_pids(), flush=True)
        executor.run([Program(source=b"while True: pass")] * 2, Limits(cpu_s=2.0, wall_s=4.0))
    """)
    with subprocess.Popen([sys.executable, "-c", script, tier], stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        launchers = {int(word) for word in service.stdout.readline().split()}
        wait_until(lambda: len(children_of(service.pid)) == 2 * processes_per_launcher + 2)
        everybody = children_of(service.pid)
        assert launchers < set(everybody)
        service.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in everybody))


def run_restricted(prelude: str, tier: str) -> str:
    """Run an executor in a process that has put restrictions on itself first; return what it printed."""
    script = textwrap.dedent(prelude) + textwrap.dedent("""
        import sys
        from altlas.config.sections import SandboxSection
        from altlas.core.program import Limits, Program
        from altlas_evaluator.engine import Executor
        sources = [b"print(input())", b"import os; os.fork()", b"open('/etc/passwd')", b"while True: pass"]
        with Executor(SandboxSection(slots=1, tier=sys.argv[1])) as executor:
            programs = [Program(source=source, stdin=b"hi") for source in sources]
            executions = executor.run(programs, Limits(cpu_s=0.2, wall_s=2.0))
            print(executor.tier, *(item.status for item in executions), executions[0].stdout.decode().strip())
            print(executor.layers)
    """)
    done = subprocess.run([sys.executable, "-c", script, tier], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


HELD = "ok runtime_error runtime_error timeout hi"


def test_landlock_tier_holds_where_namespaces_are_refused() -> None:
    assert f"landlock {HELD}" in run_restricted(hostile.REFUSE_NAMESPACES, "auto")


def test_namespaces_tier_says_why_it_does_not_work() -> None:
    output = run_restricted(hostile.REFUSE_NAMESPACES, "namespaces")
    assert "SandboxError" in output
    assert "unshare" in output
    assert "allow_unsafe" in output


DROP_CAPABILITIES = """
    import pathlib, struct
    from altlas_evaluator.sandbox import kernel
    status = pathlib.Path("/proc/self/status").read_text()
    held = int(status.partition("CapEff:")[2].split()[0], 16)
    dropped = held & @MASK@
    for capability in range(64):
        if dropped >> capability & 1:
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
    kept = held & ~dropped
    low, high = kept & 0xFFFFFFFF, kept >> 32
    sets = struct.pack("=6I", low, low, 0, high, high, 0)
    kernel.syscall("capset", struct.pack("=Ii", 0x20080522, 0), sets)
"""
CAP_SYS_ADMIN = 1 << 21


def test_namespaces_tier_holds_by_user_namespace() -> None:
    output = run_restricted(DROP_CAPABILITIES.replace("@MASK@", str(CAP_SYS_ADMIN)), "namespaces")
    assert f"namespaces {HELD}" in output
    assert "user namespace" in output


def test_landlock_tier_holds_for_a_root_without_capabilities() -> None:
    output = run_restricted(DROP_CAPABILITIES.replace("@MASK@", "-1"), "landlock")
    assert f"landlock {HELD}" in output
    assert ("fork guard" in output) == (os.geteuid() == 0)  # RLIMIT_NPROC binds everybody else


@pytest.mark.parametrize("tier", ["namespaces", "landlock"])
def test_who_is_process_1_of_a_container_is_left_no_zombie(tier: str) -> None:
    """Orphans come to a subreaper as they come to process 1."""
    script = (
        "from pathlib import Path\n"
        "from altlas.core.program import Limits, Program\n"
        "from altlas_evaluator.sandbox import kernel\n"
        "from altlas_evaluator.sandbox.supervisor import Slot\n"
        "kernel.prctl(36, 1)\n"  # PR_SET_CHILD_SUBREAPER
        f"slot = Slot(tier={tier!r}, recycle_after=2)\n"
        "for _ in range(7): slot.run(Program(source=b'print(1)'), Limits())\n"
        "slot.stop()\n"
        "print(repr(Path('/proc/thread-self/children').read_text()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "''\n", done


@pytest.mark.parametrize("tier", ["namespaces", "landlock"])
def test_a_launcher_that_is_recycled_leaves_in_good_order(tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no half of it is left for others to reap."""
    ended: list[int | None] = []
    stop = Slot.stop

    def note(slot: Slot) -> None:
        ended.append(slot._process.returncode if slot._process else None)
        stop(slot)

    monkeypatch.setattr(Slot, "stop", note)
    slot = Slot(tier=tier, recycle_after=1)
    for _ in range(3):
        assert slot.run(Program(source=b"print(1)"), LIMITS).stdout == b"1\n"
    slot.retire()
    assert ended == [None, 0, 0, 0]


def test_program_aborted_while_its_launcher_starts_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    slot, ticket = Slot(tier="landlock"), supervisor.Ticket()
    spawn = Slot._spawn

    def abort_first(slot: Slot, control: int, source: int) -> subprocess.Popen[bytes]:
        slot.abort(ticket)
        return spawn(slot, control, source)

    monkeypatch.setattr(Slot, "_spawn", abort_first)
    started = time.monotonic()
    with pytest.raises(supervisor.AbortedError):
        slot.run(Program(source=b"while True: pass"), Limits(cpu_s=20.0, wall_s=20.0), ticket)
    assert time.monotonic() - started < 10.0
    assert slot.launcher_pid is None


@pytest.mark.parametrize("tier", ["namespaces", "landlock"])
def test_without_a_signal_scope_no_program_reaches_its_launcher(tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on kernels before 6.12: the launcher is process 1 of its namespace, or nobody may send signals."""
    old_kernel = "from altlas_evaluator.sandbox import landlock; landlock.SCOPE_ABI = 99; "
    monkeypatch.setattr(supervisor, "_START", old_kernel + supervisor._START)
    slot = Slot(tier=tier)
    slot.start()
    attack = b"import os, signal\nfor n in signal.valid_signals():\n"
    attack += b"    try: os.kill(os.getppid(), n)\n    except OSError: pass\nprint('done')"
    for _ in range(3):
        assert slot.run(Program(source=attack), LIMITS).stdout == b"done\n"
    assert slot.counters.starts == 1
    loop = Program(source=b"print('begun', flush=True)\nwhile True: pass")
    pid = slot.launcher_pid
    assert pid is not None
    execution = slot.run(loop, Limits(cpu_s=0.1, wall_s=1.0))
    assert (execution.status, execution.stdout) == (ProgramStatus.TIMEOUT, b"begun\n")
    assert slot.run(Program(source=b"print(2)"), LIMITS).stdout == b"2\n"
    assert slot.counters.faults == 0
    slot.stop()
    assert not is_alive(pid)


def test_closed_executor_fails_what_waits() -> None:
    executor = Executor(SandboxSection(slots=1), tier="landlock")
    sleeper = Program(source=b"import time\ntime.sleep(0.3)")
    futures = [executor.submit(sleeper, LIMITS) for _ in range(3)]
    wait_until(futures[0].running)
    executor.close()
    assert futures[0].result().status is ProgramStatus.OK
    for future in futures[1:]:
        with pytest.raises(SandboxError, match="closed"):
            future.result()
    with pytest.raises(SandboxError, match="closed"):
        executor.submit(sleeper, LIMITS)
    executor.close()


def test_launcher_is_made_of_the_standard_library_alone() -> None:
    root = str(Path(supervisor.__file__).parents[2])
    script = (
        "import sys, altlas_evaluator.sandbox.launcher\n"
        "names = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "print(sorted(names - {'__main__', 'altlas_evaluator', 'sitecustomize'}))"
    )
    command = [sys.executable, "-S", "-s", "-P", "-c", script]
    output = subprocess.run(command, env={"PYTHONPATH": root}, capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"


def test_engine_does_not_import_grpc_or_torch() -> None:
    script = "import sys, altlas_evaluator.engine, altlas_evaluator.stream; print({'grpc', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"set()\n"


def test_refuses_to_run_unprotected(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(probe, "CANARY_OUTPUT", b"something else\n")
    with pytest.raises(SandboxError, match="allow_unsafe"):
        choose_tier("auto", allow_unsafe=False)
    assert choose_tier("auto", allow_unsafe=True) == "unsafe"
    assert "UNSAFE" in caplog.text


def test_auto_takes_the_strongest_tier_that_works() -> None:
    strongest = next(tier for tier in probe.TIERS if probe.probe(tier).works)
    assert choose_tier("auto", allow_unsafe=False) == strongest


RESULT = records.Result(7, -1, 3, 1, 2, 3, 4)


@pytest.mark.parametrize("data", [b"", b"ALr3", b"x" * records.RESULT_BYTES, b"ALr3" + bytes(records.RESULT_BYTES)])
def test_what_is_not_a_record_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a result record"):
        records.unpack_result(data)


def test_a_packet_holds_as_many_records_as_were_asked_for_at_most() -> None:
    packet = records.pack_result(RESULT) * 3
    assert records.unpack_results(packet, 3) == [RESULT] * 3
    for data in (b"", packet, packet[:-1]):
        with pytest.raises(ValueError, match="not a packet of 1 to 2 results"):
            records.unpack_results(data, 2)


def test_records_survive_the_way() -> None:
    request = records.Request(7, 10**9, 2 * 10**9, 1 << 26, 1 << 16, 64, 16, 1)
    assert records.unpack_request(records.pack_request(request)) == request
    assert records.unpack_result(records.pack_result(RESULT)) == RESULT


def test_machine_is_known() -> None:
    assert kernel.machine() in kernel.NUMBERS


@pytest.mark.parametrize("tier", ["namespaces", "landlock"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP", "SIGTERM"])
def test_what_the_evaluators_own_parent_ignores_ends_a_program_all_the_same(tier: Tier, name: str) -> None:
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_IGN)  # as nohup and a shell's background do
    try:
        with Executor(SandboxSection(slots=1), tier=tier) as executor:
            source = f"import os, signal\nos.kill(os.getpid(), signal.{name})\nprint('went on')".encode()
            execution = executor.submit(Program(source=source), Limits(cpu_s=1.0, wall_s=2.0)).result()
    finally:
        signal.signal(number, before)
    assert (execution.status, execution.stdout) == (ProgramStatus.RUNTIME_ERROR, b"")
