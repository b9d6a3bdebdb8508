"""Roles, Redis and whole commands are killed in the middle of a run: it ends as one that was left alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from altlas.checkpoint.manifest import decode_manifest, encode_manifest
from altlas.cli.drills import ROLES, Trace, count_differences


def drill(*arguments: str) -> tuple[int, dict[str, object], str]:
    done = subprocess.run(
        [sys.executable, "-m", "altlas.cli.main", *arguments, "--json"], capture_output=True, text=True, timeout=280
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.timeout(300)
def test_every_role_and_redis_may_be_killed(redis_url: str) -> None:
    code, report, log = drill("chaos", "stdin/echo", "--kills", str(len(ROLES)), "--seed", "2")
    assert (code, report["lost"], report["doubled"], report["hash_equal"]) == (0, 0, 0, True), log
    assert report["kills"] == len(ROLES)
    assert report["roles_killed"] == dict.fromkeys(ROLES, 1)


@pytest.mark.timeout(300)
def test_a_killed_command_goes_on_to_the_same_end(redis_url: str) -> None:
    code, report, log = drill("verify-resume", "brainf/echo-second-seq", "--kills", "2")
    assert (code, report["lost"], report["doubled"], report["hash_equal"]) == (0, 0, 0, True), log


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["stdin/ecko"], "did you mean"), (["stdin/echo", "--set", "run.buget=3"], "did you mean run.budget")],
)
def test_what_was_asked_wrongly_is_said_before_any_run(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "altlas.cli.main", "chaos", *arguments], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.timeout(300)
def test_a_run_is_resumed_under_a_clock_that_was_set_back(tmp_path: Path) -> None:
    base = [sys.executable, "-m", "altlas.cli.main", "train", "stdin/echo", "--json", "--quiet", "--run-dir"]
    settings = ["--set", "run.stop_on_solved=false", "--set", "sampling.batch_size=64", "--set", "run.evaluators=1"]
    first = subprocess.run(
        [*base, str(tmp_path / "run"), "--budget", "128", *settings], capture_output=True, timeout=90
    )
    assert first.returncode in (0, 3), first.stderr
    manifest = tmp_path / "run" / "checkpoints" / "step_2" / "manifest.json"
    found = decode_manifest(manifest.read_bytes())
    # A day ahead is what it looks like from a clock that was set back by a day.
    manifest.write_bytes(encode_manifest({**found, "fence": found["fence"] + 86_400_000_000}))
    shutil.rmtree(tmp_path / "run" / "redis")
    resumed = subprocess.run(
        [*base, str(tmp_path / "run"), "--resume", "--budget", "256"], capture_output=True, text=True, timeout=90
    )
    assert resumed.returncode in (0, 3), resumed.stderr
    assert json.loads(resumed.stdout.splitlines()[-1])["programs"] == 256


@pytest.mark.parametrize(
    ("updates", "lost", "doubled"),
    [
        ([(1, 64, 0.1, 0.2), (2, 100, 0.3, 0.4)], 0, 0),
        ([(1, 64, 0.1, 0.2)], 36, 0),
        ([(1, 64, 0.1, 0.2), (1, 64, 0.1, 0.2), (2, 100, 0.3, 0.4)], 0, 64),
        ([(1, 64, 0.1, 0.2), (2, 100, 0.0, 0.4)], 36, 0),
        ([], 100, 0),
    ],
)
def test_programs_lost_and_doubled_are_counted(
    updates: list[tuple[int, int, float, float]], lost: int, doubled: int
) -> None:
    calm = Trace({}, [(1, 64, 0.1, 0.2), (2, 100, 0.3, 0.4)])
    assert count_differences(calm, Trace({}, updates)) == (lost, doubled)
