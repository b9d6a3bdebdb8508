"""A run that goes on, and a Prometheus that scrapes every role of it each second, with the rules of deploy/prometheus.

Invariants: everything ends with the block; one evaluator of three is a target that is not there, so that an alert is
pending. The task is solved within a few batches and the run goes on, so that every event there is to count happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluator_process import ALTLAS, free_port
from prometheus import Prometheus
from redis_exporter import RedisExporter

from altlas.rpc.channel import wait_until_serving
from altlas.transport.embedded import EmbeddedRedis

RULES = Path(__file__).parents[2] / "deploy/prometheus/rules"
TASK = """
name = "one"
description = "Print 1."
max_tokens = 6
reference = "print(1)"

[[cases]]
expected_stdout = "1\\n"
"""
SETTINGS = (
    *("sampling.batch_size=32", "model.hidden=16", "run.stop_on_solved=false", "run.checkpoint_every=5"),
    *("objective.entropy_target=0.3",),
)


@dataclass(frozen=True)
class ScrapedRun:
    """Where the run's files are, and the Prometheus that watches it."""

    prometheus: Prometheus
    directory: Path


@contextlib.contextmanager
def scraped_run(directory: Path) -> Iterator[ScrapedRun]:
    """Start Redis, its exporter, a trainer, a generator, two evaluators, a coordinator and Prometheus; submit a run."""
    sockets = Path(tempfile.mkdtemp(prefix="altlas-"))  # a socket's path is 107 bytes at most
    names = ("trainer", "generator", "evaluator-0", "evaluator-1", "coordinator")
    at = {name: f"unix:{sockets}/{name}" for name in names}
    ports = {name: free_port() for name in names}
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, sockets)
        redis = stack.enter_context(EmbeddedRedis(directory / "redis"))
        evaluator = ("--redis-url", redis.url, "--set", "sandbox.slots=1")
        further: dict[str, Sequence[str]] = {
            "trainer": (),
            "generator": ("--trainer", at["trainer"]),
            "evaluator-0": evaluator,
            "evaluator-1": evaluator,
            "coordinator": ("--trainer", at["trainer"], "--generator", at["generator"], "--redis-url", redis.url),
        }
        commands = {
            name: [
                str(ALTLAS),
                "serve",
                name.partition("-")[0],
                "--listen",
                at[name],
                "--metrics-port",
                str(ports[name]),
            ]
            for name in names
        }
        stack.enter_context(_processes({name: [*commands[name], *further[name]] for name in names}, directory))
        exporter = stack.enter_context(RedisExporter(redis.url, directory))
        config = _write_config(directory, ports, exporter.port)
        prometheus = stack.enter_context(Prometheus(config, directory))
        for name in names:
            asyncio.run(wait_until_serving(at[name], role=name, timeout_s=60))
        _submit(at["coordinator"], directory)
        yield ScrapedRun(prometheus, directory)


def _write_config(directory: Path, ports: dict[str, int], exporter: int) -> Path:
    jobs: dict[str, list[int]] = {"redis": [exporter]}
    for name, port in ports.items():
        jobs.setdefault(name.partition("-")[0], []).append(port)
    jobs["evaluator"].append(free_port())
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"{RULES}/*.yml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in found]}]}
            for job, found in jobs.items()
        ],
    }
    path = directory / "prometheus.yml"
    path.write_text(json.dumps(config), encoding="utf-8")  # which is YAML
    return path


def _submit(coordinator: str, directory: Path) -> None:
    task = directory / "one.toml"
    task.write_text(TASK, encoding="utf-8")
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [ALTLAS, "submit", task, "--coordinator", coordinator, "--budget", "1000000", *settings]
    submitted = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    assert submitted.returncode == 0, submitted.stderr


@contextlib.contextmanager
def _processes(commands: Mapping[str, Sequence[str]], directory: Path) -> Iterator[None]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ALTLAS_")}
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name, command in commands.items():
            with (directory / f"{name}.log").open("wb") as log:
                started.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=directory, env=environment))
        yield
    finally:
        # The coordinator, which comes last, goes first: what it has under way ends only with those that it calls.
        _end(started[-1:])
        _end(started[:-1])


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
