"""Roles, Redis and whole commands are killed in the middle of a run: it ends as one that was left alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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
