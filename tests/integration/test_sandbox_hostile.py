"""Hostile programs are held in both tiers, by any user, without namespaces; and each layer is seen to be needed.

What one program does is not felt by the next, nor by those beside it, and no reward is had but by solving the task.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
from hostile_programs import OK, TIMEOUT, rewards, state

from altlas.config.sections import RewardSection, SandboxSection
from altlas.core.program import Limits, Program
from altlas.core.task import parse_task
from altlas_evaluator.engine import Executor
from altlas_evaluator.sandbox import supervisor
from altlas_evaluator.sandbox.supervisor import Slot, Tier
from altlas_evaluator.scoring import TaskScorer

NOBODY = 65534
WHOLE_START = supervisor._START


@pytest.fixture(scope="module", params=["namespaces", "landlock"])
def outside(request: pytest.FixtureRequest) -> Iterator[hostile.Outside]:
    tier: Tier = request.param
    with hostile.outside_of(tier) as made:
        yield made


@pytest.mark.parametrize("name", hostile.PROGRAMS)
def test_hostile_program_is_held(outside: hostile.Outside, name: str) -> None:
    assert hostile.check(outside, name) == ""


@pytest.fixture(scope="module")
def found(outside: hostile.Outside) -> bytes:
    return hostile.find_state(outside)


@pytest.mark.parametrize("name", state.POISONS)
def test_next_program_finds_what_it_would_have_found(outside: hostile.Outside, found: bytes, name: str) -> None:
    outside.run(state.POISONS[name], stdin=state.STDIN)
    expected, got = json.loads(found), json.loads(hostile.find_state(outside))
    assert {key: value for key, value in got.items() if value != expected[key]} == {}


@pytest.mark.parametrize("name", rewards.PROGRAMS)
def test_reward_is_what_the_output_deserves(outside: hostile.Outside, name: str) -> None:
    program = rewards.PROGRAMS[name]
    task = parse_task(rewards.TASK, where="add.toml")
    (score,) = TaskScorer(outside.executor, RewardSection()).score(task, [program.source.encode()])
    assert score.status in program.statuses, score
    assert score.cases_passed == program.cases_passed, score
    assert score.solved == score.verified == (program.cases_passed == len(task.cases))
    assert (score.reward == 1.0) == score.solved


@pytest.mark.parametrize("tier", ["namespaces", "landlock"])
def test_programs_beside_them_are_left_alone(tier: Tier) -> None:
    """Two slots; every other program adds up numbers while a hostile one runs in the other slot."""
    attacks = [item for item in hostile.PROGRAMS.values() if TIMEOUT not in item.statuses and item.language == "python"]
    victim = Program(source=b"import sys\nprint(sum(map(int, sys.stdin)) + sum(range(99_999)))", stdin=b"20\n22\n")
    with Executor(SandboxSection(slots=2), tier=tier) as executor:
        futures = []
        for attack in attacks:
            source = attack.source if isinstance(attack.source, bytes) else attack.source.encode()
            executor.submit(Program(source=source), hostile.SHORT)
            futures.append(executor.submit(victim, Limits()))
        executions = [future.result() for future in futures]
        assert {(item.status, item.stdout, item.stderr) for item in executions} == {(OK, b"4999850043\n", b"")}
        assert executor.counters().launcher_restarts == executor.counters().faults == 0


def run_suite(*arguments: str) -> dict[str, Any]:
    """Run the programs in a process of its own and return its report."""
    command = [sys.executable, hostile.__file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def is_open_to_all(path: Path) -> bool:
    return all(item.stat().st_mode & 0o005 == 0o005 for item in (path, *path.parents))


@pytest.fixture(scope="module")
def interpreter() -> Iterator[str]:
    """An interpreter that an ordinary user can start: this one, or a copy where it lives in somebody's home."""
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    if is_open_to_all(base):
        yield str(base)
        return
    prefix = base.parent.parent
    with tempfile.TemporaryDirectory(prefix="altlas-python-") as name:
        copy = Path(name)
        copy.chmod(0o755)
        library = Path(sysconfig.get_path("stdlib"))
        skipped = shutil.ignore_patterns("site-packages", "test", "idlelib", "ensurepip", "__pycache__", "config-*")
        shutil.copytree(library, copy / library.relative_to(prefix), ignore=skipped)
        (copy / "bin").mkdir()
        shutil.copy(base, copy / "bin" / base.name)
        for shared in (prefix / "lib").glob("libpython*.so*"):
            shutil.copy(shared, copy / "lib" / shared.name)
        yield str(copy / "bin" / base.name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; the tests above run as this one")
@pytest.mark.parametrize("tier", ["namespaces", "landlock"])
def test_ordinary_user_is_as_safe(interpreter: str, tier: str) -> None:
    as_user = ("--uid", str(NOBODY), "--interpreter", interpreter)
    library = "import os; os.environ['LD_LIBRARY_PATH'] = " + repr(str(Path(interpreter).parent.parent / "lib"))
    report = run_suite("--tier", tier, *as_user, "--prelude", library)
    assert report["failures"] == {}
    assert report["ran"] == len(hostile.ELSEWHERE)
    assert f"uid: {NOBODY}" in report["layers"]
    assert ("namespaces: user namespace" in report["layers"]) == (tier == "namespaces")


def test_without_namespaces_the_landlock_tier_is_taken_and_holds() -> None:
    report = run_suite("--prelude", hostile.REFUSE_NAMESPACES)
    assert report["failures"] == {}
    assert (report["tier"], report["ran"]) == ("landlock", len(hostile.ELSEWHERE))


# What takes one layer out of a launcher; the loop in Python, since the layers of a child can be reached there.
TAKEN_OUT = {
    "seccomp": "from altlas_evaluator.sandbox import seccomp\nseccomp.install = lambda program: None",
    "landlock": (
        "from altlas_evaluator.sandbox import landlock\n"
        "landlock.create_ruleset = landlock.create_scope\n"
        "landlock.allow = lambda *arguments: None"
    ),
    "signal scope": (
        "from altlas_evaluator.sandbox import confinement, landlock\n"
        "whole = confinement.confine_child\n"
        "def confine_child(*arguments):\n"
        "    landlock.restrict_self = lambda ruleset: None\n"
        "    whole(*arguments)\n"
        "confinement.confine_child = confine_child"
    ),
    "closed descriptors": (
        "import signal\n"
        "from altlas_evaluator.sandbox import forkloop\n"
        "forkloop.release = lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, forkloop.AWAITED)"
    ),
} | {
    f"limit {name}": (
        "import resource\n"
        "whole = resource.setrlimit\n"
        f"resource.setrlimit = lambda which, limits: None if which == resource.RLIMIT_{name} else whole(which, limits)"
    )
    for name in ("NPROC", "AS", "FSIZE", "NOFILE")
}


@pytest.mark.parametrize("layer", TAKEN_OUT)
def test_without_a_layer_the_suite_fails(layer: str) -> None:
    start = (
        "from altlas_evaluator.sandbox import forkloop\nforkloop.load_native = lambda: None\n"
        f"{TAKEN_OUT[layer]}\n"
        "from altlas_evaluator.sandbox.launcher import main\nmain()"
    )
    prelude = f"from altlas_evaluator.sandbox import supervisor\nsupervisor._START = {start!r}"
    report = run_suite("--tier", "landlock", "--prelude", prelude, "--first")
    assert report["failures"], f"{layer} can be taken out and nothing is seen to fail"


LOOKS_AROUND = """
import os
def exists(path):
    try: os.stat(path)
    except FileNotFoundError: return False
    return True
print(exists('/etc/passwd'), exists('/proc/1'), os.getppid() == 1, os.getuid() == 0, os.getgroups())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a uid to give up")
def test_namespaces_and_uid_are_seen_to_be_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these two layers alone keep from a program, with each of them taken out."""

    def look(tier: Tier, patch: str = "") -> bytes:
        monkeypatch.setattr(supervisor, "_START", patch + WHOLE_START)
        slot = Slot(tier=tier)
        execution = slot.run(Program(source=LOOKS_AROUND.encode()), Limits())
        slot.stop()
        return execution.stdout

    assert look("namespaces") == b"False False True False []\n"
    assert look("landlock") == b"True True False False []\n"
    no_uid = "from altlas_evaluator.sandbox import privileges\nprivileges.drop_ids = lambda uid: None\n"
    assert look("landlock", no_uid).startswith(b"True True False True ")
