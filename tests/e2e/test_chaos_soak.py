"""The soak under kills: what it reports of a short run, and that it sees what it looks for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.chaos_soak import MEASURES, Thresholds, check_updates, judge
from benchmarks.processes import pooled_growth

from altlas.cli.drills import BATCH, ROLES

ROOT = Path(__file__).resolve().parents[2]
# A child that is never waited for, and one whose parent is gone.
LEAKY = """
import subprocess, time
kept = subprocess.Popen(["true"])
subprocess.run(["sh", "-c", "sleep 60 &"])
print(flush=True)
time.sleep(60)
"""
WATCHED = f"""
import json, os, signal, subprocess, sys, time
from benchmarks.chaos_soak import Watcher, adopt_orphans

adopt_orphans()
command = subprocess.Popen([sys.executable, "-c", {LEAKY!r}], stdout=subprocess.PIPE)
command.stdout.readline()
watcher = Watcher(command.pid, warm_up_s=0)
for _ in range(4):
    watcher.look()
    time.sleep(0.2)
command.kill()
command.wait()
left = watcher.left()
for process in left:
    os.kill(process.pid, signal.SIGKILL)
print(json.dumps([watcher.zombies, watcher.orphans, len(left)]))
"""


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )


@pytest.mark.timeout(200)
def test_a_short_soak_leaves_nothing_and_loses_nothing() -> None:
    done = run_module(
        *("-m", "benchmarks.chaos_soak", "--minutes", "0.25", "--every", "5", "--rest", "0"),
        *("--look-every", "0.5", "--warm-up-s", "1", "--json"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["exit_code"], report["stop_reason"], report["found"]) == (130, "requested", [])
    assert (report["lost"], report["doubled"], report["in_order"]) == (0, 0, True)
    assert report["kills"] == 2
    assert report["restarts"] == report["roles_killed"]
    assert report["programs"] == report["updates"] * BATCH > 0
    assert (report["left_processes"], report["left_temporary"], report["left_in_run_dir"]) == ([], [], [])
    assert list(report["roles"]) == ["train", *ROLES]
    assert report["roles"]["train"]["lives"] == 1
    assert sum(role["lives"] for role in report["roles"].values()) >= 8
    for name, role in report["roles"].items():
        assert (role["zombies"], role["orphans"]) == (0, 0), name
    assert all(report["roles"]["train"][measure]["min"] > 0 for measure in MEASURES)


def test_a_zombie_an_orphan_and_what_is_left_are_seen() -> None:
    done = run_module("-c", WATCHED)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"train": 1}, {"unknown": 1}, 1]


def test_pooled_growth_is_the_least_squares_fit_with_an_intercept_for_each_line() -> None:
    luck = np.random.default_rng(1)
    lines = [[(float(x), 3.0 * x + 7 * line + luck.normal()) for x in range(line, 9)] for line in range(4)]
    points = [(line, x, y) for line, column in enumerate(lines) for x, y in column]
    design = np.array([[x, *(float(line == other) for other in range(4))] for line, x, _ in points])
    target = np.array([y for _, _, y in points])
    fit, (left,), *_ = np.linalg.lstsq(design, target, rcond=None)
    error = np.sqrt(left / (len(target) - 5) * np.linalg.inv(design.T @ design)[0, 0])
    growth = pooled_growth(lines)
    assert growth is not None
    assert (growth.slope, growth.error) == (pytest.approx(fit[0]), pytest.approx(error))
    assert pooled_growth([[(1.0, 2.0)], [(2.0, 5.0)]]) is None


@pytest.mark.parametrize(
    ("updates", "lost", "doubled", "in_order"),
    [
        ([(1, 64), (2, 128), (3, 192)], 0, 0, True),
        ([(1, 64), (3, 192)], 1, 0, False),
        ([(1, 64), (2, 128), (2, 128), (3, 192)], 0, 1, False),
        ([(2, 128), (1, 64), (3, 192)], 0, 0, False),
        ([(1, 64), (2, 120), (3, 192)], 0, 0, False),
    ],
)
def test_updates_lost_and_doubled_are_counted(
    updates: list[tuple[int, int]], lost: int, doubled: int, in_order: bool
) -> None:
    checked = check_updates(updates, {"updates": 3, "programs": 192})
    assert checked == {"lost": lost, "doubled": doubled, "in_order": in_order}


def sound(**changes: Any) -> dict[str, Any]:
    held = {"start": 10.0, "end": 10.0, "slope_per_min": 0.0, "error_per_min": 0.0}
    role = {"minutes": 20.0, "resident_mib": held, "descriptors": held, "zombies": 0, "orphans": 0}
    return {
        "exit_code": 130,
        "stop_reason": "requested",
        "updates": 9,
        "programs": 20 * 2**20,
        "seconds": 1200.0,
        "lost": 0,
        "doubled": 0,
        "in_order": True,
        "restarts": {"redis": 1},
        "roles_killed": {"redis": 1},
        "unknown_orphans": 0,
        "left_processes": [],
        "left_temporary": [],
        "roles": {name: role | changes.pop(name, {}) for name in ("train", "coordinator")},
        **changes,
    }


def growing(slope: float, error: float) -> dict[str, float]:
    return {"start": 10.0, "end": 10.0, "slope_per_min": slope, "error_per_min": error}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"exit_code": 1, "stop_reason": "failed"}, ["exit code 1, stopped by failed"]),
        ({"updates": 0}, ["no update is left"]),
        ({"lost": 1}, ["updates lost"]),
        ({"doubled": 1}, ["updates doubled"]),
        ({"in_order": False}, ["updates out of order"]),
        ({"restarts": {}}, ["restarts are not the kills"]),
        ({"unknown_orphans": 1}, ["orphans"]),
        ({"left_processes": ["7 sleep"]}, ["processes left"]),
        ({"left_temporary": ["tmp/altlas-x"]}, ["temporary files left"]),
        ({"train": {"zombies": 1}}, ["zombies"]),
        ({"train": {"orphans": 1}}, ["orphans"]),
        ({"train": {"resident_mib": growing(0.6, 0.1)}}, ["resident_mib of train grow"]),
        ({"train": {"resident_mib": growing(0.4, 0.01)}}, []),
        ({"train": {"resident_mib": growing(0.6, 0.3)}}, []),
        ({"train": {"resident_mib": growing(9.0, 0.1), "minutes": 1.0}}, []),
        ({"train": {"resident_mib": None}}, []),
        ({"coordinator": {"resident_mib": growing(99.0, 0.1)}}, []),
        ({"coordinator": {"resident_mib": growing(101.0, 0.1)}}, ["resident_mib of coordinator grow"]),
        ({"train": {"descriptors": growing(2.0, 0.1)}}, ["descriptors of train grow"]),
        ({"train": {"descriptors": growing(0.0, 0.0) | {"end": 15.0}}}, ["descriptors of train at the end"]),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], found: list[str]) -> None:
    thresholds = Thresholds(
        mib_per_min=0.5, coordinator_bytes=100, descriptors_per_min=1.0, errors=3.0, command_descriptors=4
    )
    assert judge(sound(**changes), thresholds) == found
