"""Many cases of one program: compiled once, an input, outputs, limits and a verdict each, and no hold on the others."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from altlas.config.sections import SandboxSection
from altlas.core.program import Execution, Limits, Program, ProgramStatus
from altlas_evaluator.engine import Executor
from altlas_evaluator.sandbox import records, supervisor
from altlas_evaluator.sandbox.supervisor import Slot, Tier

LIMITS = Limits(cpu_s=0.3, wall_s=0.6, output_bytes=4096)
OK, RUNTIME, TIMEOUT = ProgramStatus.OK, ProgramStatus.RUNTIME_ERROR, ProgramStatus.TIMEOUT
PYTHON_LOOP = "from altlas_evaluator.sandbox import forkloop; forkloop.load_native = lambda: None; "
# As on kernels before 6.12: no scope for signals, so that each case is run by itself.
OLD_KERNEL = "from altlas_evaluator.sandbox import landlock; landlock.SCOPE_ABI = 99; "
KINDS = [*product(["namespaces", "landlock"], ["C", "Python"], ["isolated", "shared"], ["new"])]
KINDS += [
    *product(["namespaces", "landlock"], ["C"], ["isolated", "shared"], ["old"]),
    ("landlock", "Python", "shared", "old"),
]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def slot(request: pytest.FixtureRequest) -> Iterator[Slot]:
    tier, loop, cases, kernel = request.param
    with pytest.MonkeyPatch.context() as patch:
        prelude = (PYTHON_LOOP if loop == "Python" else "") + (OLD_KERNEL if kernel == "old" else "")
        patch.setattr(supervisor, "_START", prelude + supervisor._START)
        made = Slot(tier=tier, is_shared=cases == "shared")
        made.start()
    assert made.layers["fork loop"] == loop
    yield made
    made.stop()


@pytest.fixture(params=["namespaces", "landlock"])
def isolated(request: pytest.FixtureRequest) -> Iterator[Slot]:
    tier: Tier = request.param
    made = Slot(tier=tier)
    made.start()
    yield made
    made.stop()


def run(slot: Slot, source: str | bytes, inputs: int = 5, limits: Limits = LIMITS) -> list[Execution]:
    encoded = source if isinstance(source, bytes) else source.encode()
    return slot.run_cases(Program(source=encoded), [f"{number}\n".encode() for number in range(inputs)], limits)


def test_each_case_has_its_own_input_and_outputs(slot: Slot) -> None:
    source = "import sys\nn = int(sys.stdin.read())\nprint(n * n)\nprint('to stderr', n, file=sys.stderr)"
    for inputs in (1, 2, records.MAX_CASES, records.MAX_CASES + 3):
        executions = run(slot, source, inputs)
        assert [item.stdout for item in executions] == [b"%d\n" % (n * n) for n in range(inputs)]
        assert [item.stderr for item in executions] == [b"to stderr %d\n" % n for n in range(inputs)]
        assert {item.status for item in executions} == {OK}
        assert all(item.has_read_stdin and 0 < item.cpu_s < 0.3 and 0 < item.wall_s < 0.6 for item in executions)
    assert slot.counters.faults == 0


@pytest.mark.parametrize(
    ("misdeed", "status"),
    [
        ("1 / 0", RUNTIME),
        ("while True: pass", TIMEOUT),
        ("import time; time.sleep(9)", TIMEOUT),
        ("x = bytearray(1 << 30)", ProgramStatus.MEMORY_LIMIT),
        ("print('x' * 9999)", ProgramStatus.OUTPUT_LIMIT),
        ("import os; os._exit(3)", RUNTIME),
        ("import ctypes; ctypes.string_at(0)", RUNTIME),
        ("import ctypes; ctypes.CDLL(None).unshare(0x10000000)", ProgramStatus.FORBIDDEN),
        ("import os; os.fork()", RUNTIME),
    ],
)
def test_a_case_that_fails_fails_alone(slot: Slot, misdeed: str, status: ProgramStatus) -> None:
    executions = run(slot, f"n = input()\nprint(n)\nif n == '2':\n    {misdeed}")
    assert [item.status for item in executions] == [OK, OK, status, OK, OK]
    others = [item.stdout for number, item in enumerate(executions) if number != 2]
    assert others == [b"0\n", b"1\n", b"3\n", b"4\n"]
    assert executions[2].wall_s < LIMITS.wall_s + 0.2
    assert slot.counters.faults == 0


def test_a_source_that_does_not_compile_has_one_verdict_for_all(slot: Slot) -> None:
    executions = run(slot, "print((")
    assert [item.status for item in executions] == [ProgramStatus.SYNTAX_ERROR] * 5
    assert b"SyntaxError" in executions[4].stderr
    assert run(slot, "print(1)")[4].stdout == b"1\n"


def test_an_input_left_unread_is_known_of_each_case(slot: Slot) -> None:
    executions = run(slot, "import os\nprint(1)\nif os.lseek(1, 0, 1) == 0: input()")
    assert {item.has_read_stdin for item in executions} <= {True, False}
    assert not any(item.has_read_stdin for item in run(slot, "print(1)"))
    assert all(item.has_read_stdin for item in run(slot, "print(input())"))


def test_globals_are_fresh_and_random_numbers_the_same(slot: Slot) -> None:
    source = (
        "import random, sys\nprint('seen' in globals(), random.random(), sys.argv, __name__, input() != '')\nseen = 1\n"
    )
    (output,) = {item.stdout for item in run(slot, source)}
    assert output.startswith(b"False 0.84")
    assert run(slot, source, 1)[0].stdout == output


POISON = (
    "import atexit, builtins, json, os, signal, sys\n"
    "n = int(input())\n"
    "print(n, getattr(builtins, 'leak', None), getattr(json, 'leak', None), 'leak' in sys.modules, os.getcwd() != '',\n"
    "      signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, os.umask(0o77) == 0o77, sys.getrecursionlimit())\n"
    "builtins.leak = json.leak = sys.modules['leak'] = n\n"
    "signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n"
    "sys.setrecursionlimit(500 + n)\n"
)


def test_isolated_cases_find_nothing_of_each_other(isolated: Slot) -> None:
    outputs = [item.stdout.split(b" ", 1)[1] for item in run(isolated, POISON)]
    assert len(set(outputs)) == 1, outputs
    assert outputs[0].startswith(b"None None False True True")


def test_shared_cases_find_what_was_left_behind() -> None:
    """Why isolated is the default."""
    slot = Slot(tier="landlock", is_shared=True)
    outputs = [item.stdout for item in run(slot, POISON)]
    slot.stop()
    assert outputs[0].startswith(b"0 None None False True True")
    assert outputs[1].startswith(b"1 0 0 True True False")


ATTACKS = {
    "kills its parent": "os.kill(os.getppid(), signal.SIGKILL)",
    "stops its parent": "os.kill(os.getppid(), signal.SIGSTOP)",
    "kills its group": "os.killpg(0, signal.SIGTERM) if n == 9 else os.kill(os.getppid(), signal.SIGTERM)",
    "writes on every descriptor": "[os.write(f, b'ALr3' * 14) for f in range(3, 200)]",
    "reads every descriptor": "[print(os.read(f, 99)) for f in range(3, 200)]",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_isolated_case_has_no_hold_on_the_others(isolated: Slot, attack: str) -> None:
    source = f"import os, signal\nn = int(input())\nprint(n, flush=True)\n{ATTACKS[attack]}"
    executions = run(isolated, source)
    assert [(item.status, item.stdout) for item in executions] == [(RUNTIME, b"%d\n" % n) for n in range(5)]
    assert (isolated.counters.starts, isolated.counters.faults) == (1, 0)


def test_an_isolated_case_has_no_memory_shared_with_others(isolated: Slot) -> None:
    """The page through which a launcher learns of its cases is gone before the program's first line."""
    source = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for line in range(0): pass\n"
        "print([n for n in range(3, 70) if libc.fcntl(n, 1) >= 0])"
    )
    assert {item.stdout for item in run(isolated, source)} == {b"[]\n"}


SCRIBBLE = """
import ctypes, sys
n = input()
print(n, flush=True)
if n == '1':
    # Overwrites every shared mapping it can find, the page that tells the launcher of its cases among them.
    libc = ctypes.CDLL(None, use_errno=True)
    page = ctypes.create_string_buffer(1)
    code = ctypes.cast(libc.mincore, ctypes.c_void_p).value >> 12 << 12
    for address in range(code - (96 << 20), code + (16 << 20), 4096):
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(4096), page) == 0:
            if ctypes.string_at(address + 32, 4) == b'ALr3':
                ctypes.memset(address, 0xFF, 4096)
                print('found', flush=True)
    while True: pass
"""


def test_a_program_that_forges_its_shared_stage_spoils_itself_alone() -> None:
    slot = Slot(tier="landlock", is_shared=True)
    executions = run(slot, SCRIBBLE, 3)
    assert b"found" in executions[1].stdout, "the page was not found: the test shows nothing"
    assert ProgramStatus.SANDBOX_ERROR not in {item.status for item in executions}
    assert slot.counters.faults == 0
    assert [item.stdout for item in run(slot, "print(input())", 3)] == [b"0\n", b"1\n", b"2\n"]
    assert slot.counters.starts <= 2
    slot.stop()


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


@pytest.mark.parametrize("tier", ["namespaces", "landlock"])
@pytest.mark.parametrize("depth", [1, 2], ids=["the process that compiled", "the case"])
def test_processes_killed_from_outside_are_run_again(tier: Tier, depth: int) -> None:
    slot = Slot(tier=tier)
    slot.start()
    assert slot.launcher_pid is not None
    launcher = [slot.launcher_pid, *descendants(slot.launcher_pid)][-1]
    source = "import time\nn = input()\nif n == '1': time.sleep(0.3)\nprint(n)"
    results: list[list[Execution]] = []
    # The launcher dies with the thread that started it: the program runs in this one, the kill comes from another.
    killed = threading.Event()

    def kill() -> None:
        while not killed.is_set():
            below = descendants(launcher)
            if len(below) == 2:
                # It may have ended since it was found; then another comes.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(below[depth - 1], signal.SIGKILL)
                    killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    results.append(run(slot, source, 4, Limits(cpu_s=1.0, wall_s=2.0)))
    thread.join()
    assert [(item.status, item.stdout) for item in results[0]] == [(OK, b"%d\n" % n) for n in range(4)]
    assert slot.launcher_pid is not None
    assert descendants([slot.launcher_pid, *descendants(slot.launcher_pid)][0])[1:] == []
    slot.stop()


@pytest.mark.parametrize("cases", ["isolated", "shared"])
def test_the_setting_reaches_the_slots(cases: str) -> None:
    with Executor(SandboxSection.model_validate({"slots": 1, "cases": cases}), tier="landlock") as executor:
        source = Program(source=b"import builtins\nbuiltins.n = getattr(builtins, 'n', 0) + 1\nprint(builtins.n)")
        (executions,) = executor.run_cases([source], [b"", b""], LIMITS)
        assert executions[1].stdout == (b"2\n" if cases == "shared" else b"1\n")
        assert sum(executor.counters().programs.values()) == 2
        script = Program(source=b"globalThis.n = (globalThis.n || 0) + 1; print(n)", language="javascript")
        (executions,) = executor.run_cases([script], [b"", b""], LIMITS)
        assert [item.stdout for item in executions] == [b"1\n", b"1\n"], "a language without reset is isolated"


def test_no_process_is_left_and_none_is_a_zombie(isolated: Slot) -> None:
    assert isolated.launcher_pid is not None
    before = descendants(isolated.launcher_pid)
    for source in ("while True: pass", "print(1)", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "x = ("):
        run(isolated, source, 2, Limits(cpu_s=0.1, wall_s=0.2))
        assert descendants(isolated.launcher_pid) == before
