"""The roles of a run on hosts of their own: the same run as on one machine, also when hosts are cut off for a while."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from network import Network, why_none
from run_processes import updates_done, wait_for

from altlas.cli.drills import Trace, count_differences, read_updates
from altlas.rpc.channel import KEEPALIVE_MS
from altlas.transport.embedded import find_server

ALTLAS = Path(sys.executable).with_name("altlas")
GENERATORS, EVALUATORS = ("generator-1", "generator-2"), ("evaluator-1", "evaluator-2")
# The desk is where a user sits; Redis and the coordinator are on control.
HOSTS = ("control", "trainer", *GENERATORS, *EVALUATORS, "desk")
PASSWORD = "in-a-namespace"
UPDATES, BATCH = 80, 64
LEASE_S = 2.0
CUT_S = 2 * LEASE_S
# TCP tries again after as long again as the silence was; the rest is for slow machines.
RECOVERY_S = 15.0
# A call asks this long before it takes its host for gone: altlas/rpc/channel.py.
SILENCE_S = 1.5 * KEEPALIVE_MS / 1000
# Shards and deals smaller than a batch: both evaluators and both generators have a part in every update.
SETTINGS = (
    "run.stop_on_solved=false",
    f"sampling.batch_size={BATCH}",
    "sampling.deal=16",
    "transport.shard_size=16",
    f"transport.lease_s={LEASE_S:g}",
    "run.checkpoint_every=20",
)
RUN = (
    *("brainf/echo-second-seq", "--seed", "3", "--budget", str(UPDATES * BATCH)),
    *(word for setting in SETTINGS for word in ("--set", setting)),
)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """The hosts; a skip with the reason where there can be none. CI has the tool for them."""
    assert shutil.which("ip") or not os.environ.get("CI"), "install iproute2"
    if reason := why_none():
        pytest.skip(reason)
    with Network(HOSTS) as hosts:
        yield hosts


@dataclass(frozen=True)
class Stack:
    """A role on every host but the desk."""

    network: Network
    directory: Path

    def submit(self, name: str) -> subprocess.Popen[str]:
        """Give the coordinator a run, from the desk, and watch it to its end."""
        return self.network.start(
            "desk",
            [
                *(ALTLAS, "submit", *RUN, "--name", name, "--run-dir", self.directory / name, "--watch", "--json"),
                *("--coordinator", f"{self.network.address['control']}:50051"),
            ],
            log=self.directory / f"{name}.log",
            stdout=subprocess.PIPE,
        )

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def stack(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """Every role serves on its host's address; the logs are in the directory."""
    directory = tmp_path_factory.mktemp("hosts")
    at = network.address
    redis_url = f"redis://:{PASSWORD}@{at['control']}:6379/0"
    started: dict[str, subprocess.Popen[str]] = {}

    def start(name: str, host: str, *command: str | Path) -> None:
        started[name] = network.start(host, command, log=directory / f"{name}.log")

    def wait_until_said(names: Sequence[str], words: str) -> None:
        for name in names:
            path = directory / f"{name}.log"
            wait_for(lambda name=name, path=path: words in path.read_text() or started[name].poll() is not None)
            assert started[name].poll() is None, path.read_text()

    server = find_server().path
    (directory / "redis").mkdir()
    settings = {"bind": at["control"], "requirepass": PASSWORD, "dir": "redis", "appendonly": "yes", "save": ""}
    start("redis", "control", server, *(word for key, value in settings.items() for word in (f"--{key}", value)))
    wait_until_said(["redis"], "Ready to accept connections")
    serve = (ALTLAS, "serve")
    start("trainer", "trainer", *serve, "trainer", "--listen", f"{at['trainer']}:50053")
    for name in GENERATORS:
        address = f"{at[name]}:50052"
        start(name, name, *serve, "generator", "--listen", address, "--trainer", f"{at['trainer']}:50053")
    for name in EVALUATORS:
        address = f"{at[name]}:50054"
        start(
            name, name, *serve, "evaluator", "--listen", address, "--redis-url", redis_url, "--set", "sandbox.slots=1"
        )
    start(
        *("coordinator", "control", *serve, "coordinator", "--listen", f"{at['control']}:50051"),
        *("--redis-url", redis_url, "--trainer", f"{at['trainer']}:50053", "--set", f"transport.lease_s={LEASE_S:g}"),
        *(word for name in GENERATORS for word in ("--generator", f"{at[name]}:50052")),
    )
    wait_until_said(["trainer", *GENERATORS, *EVALUATORS, "coordinator"], "serves on")
    return Stack(network, directory)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """The run on one machine: `altlas train`, one of each role, unix sockets."""
    run_dir = tmp_path_factory.mktemp("local") / "run"
    done = subprocess.run(
        [
            *(ALTLAS, "train", *RUN, "--run-dir", run_dir, "--json", "--quiet", "--no-shrink"),
            *("--set", "run.evaluators=1", "--set", "run.generators=1"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr
    return Trace(json.loads(done.stdout.splitlines()[-1]), read_updates(run_dir))


@contextmanager
def cut_off(network: Network, host: str, *, for_s: float) -> Iterator[None]:
    """Cut a host off for the block, and for a time at least."""
    network.cut(host)
    until = time.monotonic() + for_s
    yield
    wait_for(lambda: time.monotonic() >= until)
    network.mend(host)


def trace(submitted: subprocess.Popen[str], run_dir: Path) -> Trace:
    stdout, _ = submitted.communicate(timeout=60)
    assert submitted.returncode in (0, 3), stdout
    return Trace(json.loads(stdout.splitlines()[-1]), read_updates(run_dir))


def assert_same(found: Trace, wanted: Trace) -> None:
    assert count_differences(wanted, found) == (0, 0)
    assert found.updates == wanted.updates
    assert len(found.updates) == UPDATES
    assert found.summary["policy_sha256"] == wanted.summary["policy_sha256"]
    assert found.summary["programs"] == UPDATES * BATCH


@pytest.mark.timeout(240)
def test_a_run_on_several_hosts_is_that_of_one_machine(stack: Stack, local: Trace) -> None:
    assert_same(trace(stack.submit("calm"), stack.directory / "calm"), local)


@pytest.mark.timeout(240)
def test_each_host_in_turn_is_cut_off_and_comes_back(stack: Stack, local: Trace) -> None:
    run_dir = stack.directory / "shaken"
    submitted = stack.submit("shaken")

    def wait_for_update(number: int, *, timeout_s: float) -> None:
        wait_for(lambda: updates_done(run_dir) >= number or submitted.poll() is not None, timeout_s=timeout_s)
        assert updates_done(run_dir) < UPDATES, "the run ended before every host was cut off: make it longer"

    wait_for_update(3, timeout_s=60)
    for host in ("control", "trainer", GENERATORS[0]):
        with cut_off(stack.network, host, for_s=CUT_S):
            pass
        wait_for_update(updates_done(run_dir) + 2, timeout_s=RECOVERY_S)
    # The other of its kind goes on alone, with what was in hand here: of the evaluators at last the one that came back.
    for host, noticed_s in ((GENERATORS[1], SILENCE_S), *((name, LEASE_S) for name in EVALUATORS)):
        with cut_off(stack.network, host, for_s=LEASE_S):
            wait_for_update(updates_done(run_dir) + 3, timeout_s=noticed_s + RECOVERY_S)
    assert_same(trace(submitted, run_dir), local)
