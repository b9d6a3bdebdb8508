"""However many processes share the work, a lockstep run ends with the same weights; async runs keep to their bounds."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from run_processes import children, updates_done, wait_for

RUN = (
    *("train", "basics/add_two_numbers", "--seed", "3", "--budget", "512", "--json", "--quiet"),
    *("--set", "run.stop_on_solved=false", "--set", "proposals.mutation=0.5"),
)


@pytest.mark.timeout(300)
def test_evaluators_generators_and_threads_change_nothing(altlas, tmp_path: Path) -> None:
    results = {}
    for evaluators, generators, threads in ((1, 1, 1), (2, 2, 2), (4, 4, 1)):
        done = altlas(
            *RUN,
            *("--run-dir", tmp_path / str(evaluators), "--evaluators", evaluators),
            *("--set", f"run.generators={generators}", "--set", f"model.threads={threads}"),
            *("--set", "sampling.deal=64"),
        )
        assert done.code == 3, done.stderr
        results[evaluators] = [done.result[name] for name in ("policy_sha256", "programs", "unique_programs")]
    assert results[1] == results[2] == results[4]


@pytest.mark.timeout(200)
def test_an_async_run_outlives_its_trainer_and_learns_each_update_once(start_altlas, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start_altlas(
        [
            *(*RUN, "--budget", "1280", "--run-dir", run_dir, "--set", "run.mode=async"),
            *("--set", "sampling.batch_size=64", "--set", "run.checkpoint_every=4"),
        ]
    )
    wait_for(lambda: updates_done(run_dir) >= 6)
    (trainer,) = [pid for pid, command in children(process.pid).items() if "serve trainer" in command]
    os.kill(trainer, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=150)
    assert process.returncode == 3, stderr
    result = json.loads(stdout.splitlines()[-1])
    assert (result["programs"], result["updates"], result["restarts"]) == (1280, 20, {"trainer": 1})
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == list(range(1, 21))
    lags = [line["lag"] for line in lines]
    assert max(lags) == 1
    # From the checkpoint on which it went on, the lag grows anew from nothing.
    assert lags.count(0) >= 2
