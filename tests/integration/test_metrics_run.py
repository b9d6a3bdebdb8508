"""Every role's /metrics, /healthz and /readyz over real runs: all names are there, and the counts are the runs' own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluator_process import ALTLAS, free_port, wait_until
from metrics_page import Samples, get_page, samples_of
from prometheus import require_tools

from altlas import __version__
from altlas.cli.coordinator_client import open_coordinator
from altlas.cli.metrics_reference import declared_metrics
from altlas.cli.submit import SubmitRequest, run_submit
from altlas.config.sections import Config
from altlas.rpc.channel import wait_until_serving
from altlas.transport.embedded import EmbeddedRedis

TASK = "stdin/echo"
PROGRAMS = 256
SETTINGS = (
    *("sampling.batch_size=64", "model.hidden=16", "run.stop_on_solved=false", "run.checkpoint_every=3"),
    *("objective.entropy_target=0.3", "watchdog.report_after=1", "watchdog.least_report_s=1"),
)
NAMES = {
    "coordinator": """
        jobs_issued_total jobs_committed_total jobs_duplicate_total jobs_reclaimed_total jobs_dead_total
        programs_total evaluated_programs_total unique_programs_total updates_total update_seconds stage_seconds
        reward_mean reward_max reward_best task_reward_mean task_reward_best task_solved solves_total verified_total
        lag_updates in_flight_updates refused_results_total rollbacks_total stalled_seconds fence waiting_seconds
        last_progress_timestamp_seconds runs_active runs_total""",
    "trainer": """
        learning entropy entropy_floor gradient_norm loss nonfinite_total checkpoint_timestamp_seconds checkpoint_bytes
        checkpoint_seconds phase_seconds learn_seconds policy_version""",
    "generator": "policy_version policy_fetch_seconds sample_seconds programs_total tokens_total",
    "evaluator": """
        jobs_total job_seconds scored_programs_total programs_total queue_seconds fork_seconds run_seconds
        collect_seconds call_programs call_bytes tier launcher_restarts_total sandbox_faults_total slots slots_busy
        waiting""",
}
QUEUE = "admission_wait_seconds_total window_jobs depth_jobs pending_jobs oldest_job_seconds lease_seconds"
EVERYWHERE = "altlas_build_info altlas_last_progress_timestamp_seconds"
DEVICES = "altlas_device_memory_bytes altlas_device_utilisation_ratio"
CALLED = "altlas_rpc_calls_total altlas_rpc_seconds"  # nobody calls the evaluator here


class Role:
    """A role's process, with its metrics."""

    def __init__(self, name: str, address: str, arguments: tuple[str, ...], directory: Path) -> None:
        self.name, self.address, self._directory = name, address, directory
        self._port = free_port()
        self._command = [ALTLAS, "serve", name, "--listen", address, "--metrics-port", str(self._port), *arguments]
        self.start()

    def start(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ALTLAS_")}
        with (self._directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory, env=environment
            )

    def wait_until_serving(self) -> None:
        asyncio.run(wait_until_serving(self.address, role=self.name, timeout_s=60))

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer; status 0 where there is none."""
        return get_page(self._port, path)

    def samples(self) -> Samples:
        """Every sample by its name and labels."""
        return samples_of(self.get("/metrics")[1])

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Stack:
    """Redis and one process of each role. `texts`: their metrics after the first run, whose result `report` is."""

    def __init__(self, directory: Path, roles: dict[str, Role]) -> None:
        self.directory, self.roles = directory, roles
        self.report = self.submit(budget=PROGRAMS, is_watched=True)
        self.texts = {name: role.get("/metrics")[1] for name, role in roles.items()}
        self.samples = {name: samples_of(text) for name, text in self.texts.items()}

    def submit(self, *, budget: int, is_watched: bool = False) -> dict[str, object]:
        """Submit a run as `altlas submit` does, and return what it prints."""
        request = SubmitRequest(
            task=TASK,
            coordinator=self.roles["coordinator"].address,
            preset=None,
            config_file=None,
            overrides=(*SETTINGS, f"run.budget={budget}"),
            name=None,
            run_dir=None,
            request_id=None,
            is_watched=is_watched,
            as_json=True,
        )
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            run_submit(request)
        return dict(json.loads(printed.getvalue().splitlines()[-1]))

    def stop(self, run_id: object) -> None:
        """Stop a run, and wait for its end."""

        async def ask() -> None:
            async with open_coordinator(self.roles["coordinator"].address, Config()) as coordinator:
                await coordinator.stop(str(run_id))

        asyncio.run(ask())
        wait_until(lambda: self.value("coordinator", "altlas_coordinator_runs_active") == 0, what="the run's end")

    def value(self, role: str, name: str, **labels: str) -> float:
        """What a role says now; -1 where it says nothing."""
        return self.roles[role].samples().get((name, tuple(sorted(labels.items()))), -1.0)

    def figures(self) -> list[dict[str, float]]:
        """The first run's metrics.jsonl."""
        path = self.directory / str(self.report["run_dir"]) / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("stack")
    sockets = Path(tempfile.mkdtemp(prefix="altlas-"))  # a socket's path is 107 bytes at most
    at = {name: f"unix:{sockets}/{name}" for name in ("trainer", "generator", "evaluator", "coordinator")}
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, sockets)
        redis = cleanup.enter_context(EmbeddedRedis(directory / "redis"))
        further = {
            "trainer": (),
            "generator": ("--trainer", at["trainer"]),
            "evaluator": ("--redis-url", redis.url, "--set", "sandbox.slots=2"),
            "coordinator": ("--trainer", at["trainer"], "--generator", at["generator"], "--redis-url", redis.url),
        }
        roles = {name: Role(name, address, further[name], directory) for name, address in at.items()}
        for role in roles.values():
            cleanup.callback(role.end)
        # All at once, before the first is waited for.
        cleanup.callback(lambda: [role.process.terminate() for role in roles.values()])
        for role in roles.values():
            role.wait_until_serving()
        yield Stack(directory, roles)


@pytest.mark.parametrize("role", NAMES)
def test_a_role_shows_every_name_of_its_own_and_nothing_undeclared(stack: Stack, role: str) -> None:
    shown = {name.removesuffix("_sum") for name, _ in stack.samples[role]}
    due = {f"altlas_{role}_{name}" for name in NAMES[role].split()} | set(EVERYWHERE.split())
    due |= set() if role == "evaluator" else set(CALLED.split())
    due |= {f"altlas_queue_{name}" for name in QUEUE.split()} if role == "coordinator" else set()
    assert due - shown == set()
    ours = {name for name in shown if name.startswith("altlas_") and not name.endswith(("_bucket", "_count"))}
    assert ours - due <= set(DEVICES.split()), "a metric that is not here for a role to have"
    assert ours - declared_metrics().keys() == set(), "a metric that docs/metrics.md does not tell of"
    assert "process_resident_memory_bytes" in shown
    assert stack.samples[role]["altlas_build_info", (("role", role), ("version", __version__))] == 1


@pytest.mark.parametrize("role", NAMES)
def test_promtool_finds_no_fault_with_the_metrics(stack: Stack, role: str) -> None:
    tool = require_tools().promtool_path
    checked = subprocess.run(
        [tool, "check", "metrics"], input=stack.texts[role], capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize("role", NAMES)
def test_a_role_without_work_is_healthy_and_ready(stack: Stack, role: str) -> None:
    assert stack.roles[role].get("/healthz") == (200, "ok\n")
    assert stack.roles[role].get("/readyz") == (200, "ready\n")
    progress = stack.samples[role]["altlas_last_progress_timestamp_seconds", (("role", role),)]
    assert 0 < time.time() - progress < 300


def test_the_counts_are_those_of_the_run_s_own_report(stack: Stack) -> None:
    report, figures = stack.report, stack.figures()
    said, updates = stack.samples["coordinator"], len(figures)

    def coordinator(name: str, **labels: str) -> float:
        return said[f"altlas_coordinator_{name}", tuple(sorted(labels.items()))]

    assert (updates, report["programs"]) == (PROGRAMS // 64, PROGRAMS)
    by_status = {key[1][0][1]: value for key, value in said.items() if key[0] == "altlas_coordinator_programs_total"}
    assert sum(by_status.values()) == PROGRAMS
    assert by_status["ok"] == sum(line["statuses"].get("ok", 0) for line in figures)
    assert coordinator("updates_total") == coordinator("update_seconds_count") == updates
    assert coordinator("unique_programs_total") == report["unique_programs"]
    assert coordinator("evaluated_programs_total") == report["evaluated_programs"]
    assert coordinator("update_seconds_sum") == pytest.approx(figures[-1]["seconds"])
    assert coordinator("reward_mean") == coordinator("task_reward_mean", task=TASK) == figures[-1]["mean_reward"]
    assert coordinator("reward_max") == figures[-1]["max_reward"]
    assert coordinator("reward_best") == coordinator("task_reward_best", task=TASK) == report["best_reward"]
    assert coordinator("task_solved", task=TASK) == report["solved"]
    assert bool(coordinator("solves_total", task=TASK)) == report["solved"]
    assert bool(coordinator("verified_total", task=TASK)) == report["verified"]
    assert [coordinator("runs_total", state=state) for state in ("finished", "failed", "stopped")] == [1, 0, 0]
    assert coordinator("runs_active") == 0


def test_the_counts_of_the_roles_agree(stack: Stack) -> None:
    coordinator, evaluator = stack.samples["coordinator"], stack.samples["evaluator"]
    trainer, generator = stack.samples["trainer"], stack.samples["generator"]
    updates = len(stack.figures())
    evaluated = [0, *(int(line["evaluated_programs"]) for line in stack.figures())]
    shards = sum(-(-(after - before) // 32) for before, after in itertools.pairwise(evaluated))
    assert coordinator["altlas_coordinator_jobs_issued_total", ()] == shards
    assert coordinator["altlas_coordinator_jobs_committed_total", ()] == shards
    assert evaluator["altlas_evaluator_jobs_total", (("outcome", "committed"),)] == shards
    assert evaluator["altlas_evaluator_scored_programs_total", (("language", "python"),)] == evaluated[-1]
    for name in ("duplicate", "reclaimed", "dead"):
        assert coordinator[f"altlas_coordinator_jobs_{name}_total", ()] == 0
    assert coordinator["altlas_queue_lease_seconds", ()] == Config().transport.lease_s
    assert generator["altlas_generator_programs_total", ()] == PROGRAMS
    assert generator["altlas_generator_policy_version", ()] == updates - 1
    assert trainer["altlas_trainer_policy_version", ()] == updates
    for phase in ("wait", "read", "remember", "backpropagate", "step"):
        assert trainer["altlas_trainer_phase_seconds_count", (("phase", phase),)] == updates
    phases_s = sum(value for (name, _), value in trainer.items() if name == "altlas_trainer_phase_seconds_sum")
    assert 0 < phases_s <= trainer["altlas_trainer_learn_seconds_sum", ()]


def test_the_trainer_shows_its_last_update_and_its_newest_checkpoint(stack: Stack) -> None:
    trainer, learning = stack.samples["trainer"], stack.figures()[-1]["learning"]
    for name in ("entropy", "loss", "gradient_norm"):
        assert trainer[f"altlas_trainer_{name}", ()] == learning[name]
    assert trainer["altlas_trainer_entropy_floor", ()] == 0.3
    assert trainer["altlas_trainer_nonfinite_total", ()] == 0
    assert trainer["altlas_trainer_checkpoint_seconds_count", ()] == 3, "at the beginning, after 3 updates, at the end"
    checkpoint = stack.directory / str(stack.report["checkpoint"])
    written = trainer["altlas_trainer_checkpoint_timestamp_seconds", ()]
    assert written == pytest.approx(checkpoint.stat().st_mtime, abs=5)
    files = [file.stat().st_size for file in checkpoint.iterdir() if file.name != "manifest.json"]
    assert trainer["altlas_trainer_checkpoint_bytes", ()] == sum(files)


def test_a_run_that_stands_still_makes_the_coordinator_unready_and_a_new_coordinator_counts_on(stack: Stack) -> None:
    coordinator, trainer = stack.roles["coordinator"], stack.roles["trainer"].process
    run_id = stack.submit(budget=1_000_000)["run_id"]
    wait_until(lambda: stack.value("coordinator", "altlas_coordinator_update_seconds_median") > 0, what="an update")
    assert stack.value("coordinator", "altlas_coordinator_runs_active") == 1
    trainer.send_signal(signal.SIGSTOP)
    wait_until(lambda: coordinator.get("/readyz")[0] == 503, what="being unready")
    reason = coordinator.get("/readyz")[1]
    assert f"run {run_id}: no update for " in reason
    assert "waiting for trainer" in reason
    assert coordinator.get("/healthz") == (200, "ok\n")
    samples = coordinator.samples()
    assert samples["altlas_coordinator_stalled_seconds", ()] >= 1
    assert time.time() - samples["altlas_coordinator_last_progress_timestamp_seconds", ()] >= 1
    # Its lease and its port are the next one's at once, since that has its name.
    coordinator.process.kill()
    coordinator.process.wait()
    trainer.send_signal(signal.SIGCONT)
    coordinator.start()
    coordinator.wait_until_serving()
    wait_until(lambda: stack.value("coordinator", "altlas_coordinator_updates_total") >= 1, what="a run that goes on")
    assert coordinator.get("/readyz") == (200, "ready\n")
    stack.stop(run_id)
    committed = stack.value("evaluator", "altlas_evaluator_jobs_total", outcome="committed")
    assert stack.value("coordinator", "altlas_coordinator_jobs_committed_total") == committed
    assert stack.value("coordinator", "altlas_coordinator_jobs_issued_total") == committed
    assert stack.value("coordinator", "altlas_coordinator_runs_total", state="stopped") == 1
