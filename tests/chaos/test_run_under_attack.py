"""A run whose roles and whose Redis are lied to while it trains ends as one that was left alone."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from run_processes import children, updates_done, wait_for

from altlas.cli.drills import Trace, count_differences, read_updates
from altlas.errors import TransientError
from altlas.rpc.trainer.v1 import trainer_pb2
from altlas.transport.ports import Commit, Delivery
from altlas.transport.redis_client import connect_blocking
from altlas.transport.redis_streams import RedisJobSource

CODES = grpc.StatusCode
UPDATES = 48
FORGERIES = 4
SERVICES = {"trainer": "TrainerService", "generator": "GeneratorService", "coordinator": "CoordinatorService"}
RUN_ID = "attacked"


def start(run_dir: Path) -> subprocess.Popen[str]:
    settings = ["run.stop_on_solved=false", "sampling.batch_size=64", "run.checkpoint_every=5", "transport.lease_s=2"]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "altlas.cli.main", "train", "basics/hello_world", "--run-dir", str(run_dir)),
            *("--seed", "3", "--budget", str(64 * UPDATES), "--json", "--quiet", "--no-shrink"),
            *(word for setting in settings for word in ("--set", setting)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def trace(process: subprocess.Popen[str], run_dir: Path) -> Trace:
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode in (0, 3), stderr
    return Trace(json.loads(stdout.splitlines()[-1]), read_updates(run_dir))


def addresses(pid: int) -> dict[str, str]:
    """The socket of each role, and of Redis."""
    found = {}
    for command in children(pid).values():
        if match := re.search(r" serve (\w+) --listen unix:(\S+)", command):
            found[match[1]] = match[2]
        elif match := re.search(r"unixsocket:(\S+)", command):
            found["redis"] = match[1]
    return found


def throw_bytes(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(path)
        stream.sendall(b"\xff" * 4096)


def status_of(path: str, method: str, body: bytes) -> grpc.StatusCode:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            channel.unary_unary(method)(body, timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return CODES.OK


def attack_roles(at: dict[str, str]) -> list[grpc.StatusCode]:
    """Send each role what it must refuse: no message, no method, and to the trainer calls of an earlier coordinator."""
    statuses = []
    for role, service in SERVICES.items():
        throw_bytes(at[role])
        statuses += [
            status_of(at[role], f"/altlas.rpc.{role}.v1.{service}/OpenRun", b"\xff" * 99),
            status_of(at[role], f"/altlas.rpc.{role}.v1.{service}/CreateRun", b"\xff" * 99),
            status_of(at[role], f"/altlas.rpc.{role}.v1.{service}/Sample", b"\xff" * 99),
        ]
    old = {
        "Learn": trainer_pb2.LearnRequest(run_id=RUN_ID, update=1, fence=1),
        "SaveCheckpoint": trainer_pb2.SaveCheckpointRequest(run_id=RUN_ID, update=1, fence=1, is_last=True),
        "GetPolicy": trainer_pb2.GetPolicyRequest(run_id=RUN_ID, fence=1),
    }
    for method, message in old.items():
        path = f"/altlas.rpc.trainer.v1.TrainerService/{method}"
        statuses.append(status_of(at["trainer"], path, message.SerializeToString()))
    return statuses


def forge(source: RedisJobSource, updates: Callable[[], int]) -> tuple[int, list[Delivery]]:
    """Take a job in each of some updates and commit what is no result; return how often, and what was taken."""
    taken: list[Delivery] = []
    last = -1
    while len(taken) < FORGERIES and updates() < UPDATES - 2:
        if updates() == last:
            time.sleep(0.005)
            continue
        for delivery in source.take(count=1, block_s=0.2):
            last = updates()
            assert source.commit(Commit(delivery=delivery, payload=b"\xff" * 200))
            taken.append(delivery)
    return len(taken), taken


@pytest.mark.timeout(300)
def test_lies_to_roles_and_redis_change_nothing(redis_url: str, tmp_path: Path) -> None:
    calm = trace(start(tmp_path / "calm"), tmp_path / "calm")
    run_dir = tmp_path / RUN_ID
    process = start(run_dir)
    try:
        wait_for(lambda: updates_done(run_dir) >= 1 or process.poll() is not None)
        at = addresses(process.pid)
        statuses = attack_roles(at)
        with connect_blocking(f"unix://{at['redis']}") as client:
            source = RedisJobSource(client)
            forged, taken = forge(source, lambda: updates_done(run_dir))
            for delivery in taken:
                try:
                    assert not source.commit(Commit(delivery=delivery, payload=b"again"))
                except TransientError:  # the run has ended and its Redis with it
                    break
        shaken = trace(process, run_dir)
    finally:
        process.kill()
        process.communicate()
    assert CODES.OK not in statuses
    assert CODES.DEADLINE_EXCEEDED not in statuses
    assert forged >= 1
    assert (run_dir / "training.log").read_text().count("result refused") == forged
    assert count_differences(calm, shaken) == (0, 0)
    assert shaken.summary["policy_sha256"] == calm.summary["policy_sha256"]
