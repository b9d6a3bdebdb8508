"""`altlas chaos` and `altlas verify-resume`: a run that is killed again and again, held against one that is left alone.

Both runs are real ones of `altlas train`, with every role as a process, and are compared by what they left: the hash of
the policy, and the programs and rewards of every update.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from altlas.config.loader import load_config
from altlas.errors import AltlasError
from altlas.tasks import expand_references, load_task
from altlas_evaluator.languages.registry import task_languages

EXIT_EQUAL, EXIT_DIFFERENT = 0, 1
ROLES = ("trainer", "generator", "evaluator", "coordinator", "redis")
BATCH = 64
_UPDATES_PER_KILL = 2
_FIRST_UPDATES = 6
_TIMEOUT_S = 1800.0
_POLL_S = 0.02
_LONGEST_PAUSE_S = 0.4
# Small batches and many checkpoints: a kill costs a few updates, and one falls into every stage of an update.
_SETTINGS = (
    "run.stop_on_solved=false",
    f"sampling.batch_size={BATCH}",
    "run.checkpoint_every=5",
    "transport.lease_s=2",
)


@dataclass(frozen=True, slots=True)
class DrillRequest:
    """What was asked on the command line. budget: programs; 0 is enough for the kills.

    Raises:
        TaskError: there is no such task.
        ConfigError: an override is wrong.
    """

    task: str
    kills: int
    seed: int
    budget: int
    overrides: Sequence[str]
    as_json: bool

    def __post_init__(self) -> None:
        # Said here, or the first run would fail with it.
        for reference in expand_references(self.task):
            load_task(reference, languages=task_languages())
        load_config(config_file=None, environ=os.environ, overrides=self.overrides)


@dataclass(frozen=True, slots=True)
class Trace:
    """What a run left. updates: of each line of metrics.jsonl its number, programs so far and rewards, in order."""

    summary: Mapping[str, Any]
    updates: Sequence[tuple[int, int, float, float]]


def run_chaos(request: DrillRequest) -> int:
    """Kill random roles and Redis during a run, print what that did to it, return the exit code."""
    started = time.monotonic()
    with _runs_to_compare(request, "chaos") as runs:
        calm, shaken = runs.directory / "calm", runs.directory / "shaken"
        undisturbed = _undisturbed(request, calm)
        _say(request, f"undisturbed: {_numbers(undisturbed)}")
        with _training(request, shaken) as process:
            killed = _kill_roles(request, process, shaken)
            disturbed = _trace(_result(process), shaken)
        runs.are_equal = _report(request, undisturbed, disturbed, killed, started)
    return EXIT_EQUAL if runs.are_equal else EXIT_DIFFERENT


def run_verify_resume(request: DrillRequest) -> int:
    """Kill whole runs and resume them, print whether the end is the same, return the exit code."""
    started = time.monotonic()
    with _runs_to_compare(request, "resume") as runs:
        calm, broken = runs.directory / "calm", runs.directory / "broken"
        undisturbed = _undisturbed(request, calm)
        _say(request, f"undisturbed: {_numbers(undisturbed)}")
        luck = random.Random(request.seed)
        last = undisturbed.updates[-1][0]
        for kill in range(request.kills):
            # In the order of time, and between the first update and the last but one.
            stop_at = 1 + (last - 1) * kill // request.kills + luck.randrange(max(1, (last - 1) // request.kills))
            with _training(request, broken, resume=_has_checkpoint(broken)) as process:
                _wait_for(partial(_has_done, broken, stop_at), process)
                time.sleep(luck.uniform(0, _LONGEST_PAUSE_S))
                process.kill()
                process.wait()
            _say(request, f"killed in update {_updates_done(broken) + 1}")
        with _training(request, broken, resume=True) as process:
            resumed = _trace(_result(process), broken)
        runs.are_equal = _report(request, undisturbed, resumed, Counter(command=request.kills), started)
    return EXIT_EQUAL if runs.are_equal else EXIT_DIFFERENT


@dataclass(slots=True)
class _Runs:
    """Where both runs of a drill lie, and whether they ended as one."""

    directory: Path
    are_equal: bool = False


@contextmanager
def _runs_to_compare(request: DrillRequest, name: str) -> Iterator[_Runs]:
    """Make room for two runs; they are kept where they differ or one failed, since that may not come again."""
    runs = _Runs(Path(tempfile.mkdtemp(prefix=f"altlas-{name}-")))
    try:
        yield runs
    finally:
        if runs.are_equal:
            shutil.rmtree(runs.directory)
        else:
            _say(request, f"both runs are left in {runs.directory}")


def _report(
    request: DrillRequest, undisturbed: Trace, disturbed: Trace, killed: Mapping[str, int], started: float
) -> bool:
    """Print what the drill showed and return whether nothing was lost, doubled or otherwise different."""
    lost, doubled = count_differences(undisturbed, disturbed)
    is_equal = disturbed.summary["policy_sha256"] == undisturbed.summary["policy_sha256"]
    report = {
        "lost": lost,
        "doubled": doubled,
        "hash_equal": is_equal,
        "kills": sum(killed.values()),
        "roles_killed": dict(killed),
        "seconds": round(time.monotonic() - started, 1),
        "programs": disturbed.summary["programs"],
        "updates": disturbed.summary["updates"],
        "policy_sha256": disturbed.summary["policy_sha256"],
        "undisturbed_sha256": undisturbed.summary["policy_sha256"],
    }
    if request.as_json:
        print(json.dumps(report), flush=True)
    else:
        print(f"  disturbed: {_numbers(disturbed)}")
        who = ", ".join(f"{name} {count}" for name, count in killed.items())
        print(f"{report['kills']} kills ({who}) in {report['seconds']:.0f} s")
        print(f"lost {lost}, doubled {doubled}, hash {'equal' if is_equal else 'DIFFERENT'}", flush=True)
    return is_equal and not lost and not doubled


def count_differences(undisturbed: Trace, disturbed: Trace) -> tuple[int, int]:
    """Return how many programs of the undisturbed run the other lost or has otherwise, and how many it has twice."""
    wanted, found = Counter(undisturbed.updates), Counter(disturbed.updates)
    numbers = Counter(update for update, _, _, _ in disturbed.updates)
    sizes = dict(_sizes(undisturbed.updates))
    lost = sum(sizes[item[0]] for item in (wanted - found))
    doubled = sum((count - 1) * sizes.get(update, 0) for update, count in numbers.items())
    return lost, doubled


def _sizes(updates: Sequence[tuple[int, int, float, float]]) -> Iterator[tuple[int, int]]:
    before = 0
    for update, programs, _, _ in updates:
        yield update, programs - before
        before = programs


def _undisturbed(request: DrillRequest, run_dir: Path) -> Trace:
    with _training(request, run_dir) as process:
        return _trace(_result(process), run_dir)


def make_command(request: DrillRequest, run_dir: Path, *, resume: bool) -> list[str]:
    """Return the command of a run that may lose `request.kills` processes."""
    budget = request.budget or BATCH * (_UPDATES_PER_KILL * request.kills + _FIRST_UPDATES)
    settings = [*_SETTINGS, f"watchdog.restarts={request.kills + 10}", *request.overrides]
    return [
        *(sys.executable, "-m", "altlas.cli.main", "train", request.task, "--run-dir", str(run_dir)),
        *("--json", "--quiet", "--no-shrink"),
        *(["--resume"] if resume else ["--seed", str(request.seed), "--budget", str(budget)]),
        *(word for setting in settings for word in ("--set", setting) if not resume),
    ]


@contextmanager
def _training(request: DrillRequest, run_dir: Path, *, resume: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Start `altlas train`; it does not outlive the block."""
    process = subprocess.Popen(
        make_command(request, run_dir, resume=resume),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the run's end and return the object that it printed.

    Raises:
        AltlasError: it failed, printed none, or did not end.
    """
    try:
        stdout, stderr = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise AltlasError(f"the run did not end within {_TIMEOUT_S:.0f} s") from error
    try:
        result = json.loads(stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise AltlasError(f"the run ended with code {process.returncode} and no result: {stderr.strip()}") from error
    if process.returncode == 1:
        raise AltlasError(f"the run failed: {result.get('error', stderr.strip())}")
    return dict(result)


def _kill_roles(request: DrillRequest, process: subprocess.Popen[str], run_dir: Path) -> Counter[str]:
    """Kill a role every few updates, each kind in turn in an order of chance, until all kills are done."""
    luck = random.Random(request.seed)
    killed: Counter[str] = Counter()
    deck: list[str] = []
    for kill in range(request.kills):
        _wait_for(partial(_has_done, run_dir, kill * _UPDATES_PER_KILL + 1), process)
        time.sleep(luck.uniform(0, _LONGEST_PAUSE_S))
        deck = deck or luck.sample(ROLES, len(ROLES))
        role = deck.pop()
        _wait_for(partial(find_pids, process.pid, role), process)
        os.kill(luck.choice(find_pids(process.pid, role)), signal.SIGKILL)
        killed[role] += 1
        _say(request, f"kill {kill + 1} of {request.kills}: {role}, after update {_updates_done(run_dir)}")
    return killed


def _wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        if process.poll() is not None:
            raise AltlasError(f"the run ended before all kills were done: {process.communicate()[1].strip()}")
        if time.monotonic() > deadline:
            raise AltlasError(f"the run made no progress for {_TIMEOUT_S:.0f} s")
        time.sleep(_POLL_S)


def find_pids(parent: int, role: str) -> list[int]:
    """Return the processes of a role that a command has started and that are up."""
    mark = "unixsocket" if role == "redis" else f" serve {role} "
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(status[1]) == parent and status[0] != "Z" and mark in command:
            found.append(int(entry.name))
    return sorted(found)


def _has_done(run_dir: Path, updates: int) -> bool:
    return _updates_done(run_dir) >= updates


def _updates_done(run_dir: Path) -> int:
    updates = read_updates(run_dir)
    return updates[-1][0] if updates else 0


def read_updates(run_dir: Path) -> list[tuple[int, int, float, float]]:
    """Return of each line of metrics.jsonl its number, programs so far and rewards, in order; none where no file is."""
    try:
        lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [(item["update"], item["programs"], item["mean_reward"], item["max_reward"]) for item in records]


def _has_checkpoint(run_dir: Path) -> bool:
    return any((run_dir / "checkpoints").glob("step_*"))


def _trace(summary: Mapping[str, Any], run_dir: Path) -> Trace:
    return Trace(summary, read_updates(run_dir))


def _numbers(trace: Trace) -> str:
    summary = trace.summary
    return (
        f"{summary['programs']:,} programs in {summary['updates']} updates, {summary['seconds']:.1f} s, "
        f"policy {summary['policy_sha256'][:12]}"
    )


def _say(request: DrillRequest, text: str) -> None:
    print(text, file=sys.stderr if request.as_json else sys.stdout, flush=True)
