"""The trainer is killed with SIGKILL while it saves: no checkpoint is unreadable, and none that was told of is lost."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from altlas.checkpoint.store import CheckpointStore
from altlas.cli.train import load_named, make_local_run
from altlas.cli.watch import make_spec
from altlas.config.loader import load_config
from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.core.trajectory import TrajectoryBatch
from altlas.rpc.batches import scores_to_proto
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from altlas.rpc.trajectories import trajectories_to_proto

KILLS = 200
LEAST_INSIDE, LEAST_TORN = KILLS // 2, KILLS // 10
CALL_S = 20.0
RUN_ID = "kills"
BATCH, TOKENS = 8, 6
SETTINGS = (
    *("model.hidden=8", "model.embedding=4", "model.device=cpu", "sampling.grammar=none"),
    *(f"sampling.batch_size={BATCH}", f"sampling.max_tokens={TOKENS}", "run.keep_last=3", "run.keep_best=1"),
)

# Forks a trainer for every line, the address on which it serves: to import torch costs more than a life lasts.
NURSERY = """
import asyncio, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from altlas.checkpoint.manifest import build_manifest
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.trainer.v1 import trainer_pb2
from altlas_trainer.app import serve
from altlas_trainer.runs import open_run
spec, batch = [Path(name).read_bytes() for name in sys.argv[1:]]
run = open_run(common_pb2.RunSpec.FromString(spec), resume=False)
run.learn(trainer_pb2.LearnRequest.FromString(batch))  # compiles what an update takes
build_manifest(0, {}, {}, fence=0, mean_reward=None)  # looks versions and commit up, once for all
for line in sys.stdin:
    child = os.fork()
    if not child:
        asyncio.run(serve(listen=line.strip(), metrics_port=None))
        os._exit(0)
    os.write(1, b"%d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"ended\\n")
"""


def spec_of(run_dir: Path) -> common_pb2.RunSpec:
    """A run that is small, on any task: nobody runs its programs."""
    config = load_config(config_file=None, environ={}, overrides=SETTINGS)
    named = load_named("stdin/echo", languages=None)
    return make_spec(make_local_run("stdin/echo", named, config, run_id=RUN_ID, run_dir=run_dir, resume=False))


def batch_of(update: int) -> trainer_pb2.LearnRequest:
    """The programs and scores of an update, the same whenever it is learned: drawn by nobody, scored by chance."""
    luck = np.random.default_rng(update)
    shape = (BATCH, TOKENS)
    tokens = luck.integers(4, 40, shape)
    tokens[:, -1] = 2  # <EOS>
    batch = TrajectoryBatch(
        indices=np.arange(BATCH),
        tokens=tokens,
        lengths=np.full(BATCH, TOKENS),
        log_probs=luck.uniform(-4, -1, shape).astype(np.float32),
        entropies=np.ones(shape, dtype=np.float32),
        policy_version=update,
    )
    scores = [
        Score(status=ProgramStatus.OK, reward=float(reward), behaviour=hashlib.sha256(bytes([row])).digest()[:16])
        for row, reward in enumerate(luck.uniform(0, 1, BATCH))
    ]
    return trainer_pb2.LearnRequest(
        update=update,
        behaviour_version=update,
        trajectories=[trajectories_to_proto(batch, [b"pass"] * BATCH)],
        scores=scores_to_proto(batch_scores(scores)),
    )


def state_of(update: int) -> bytes:
    """What a coordinator has the trainer keep beside its own state."""
    return b"%d," % update * 3000


@dataclass
class Trainer:
    """A trainer's process that serves, as the coordinator sees it."""

    pid: int
    stub: Any
    run_dir: Path
    fence: int
    is_killed: bool = False

    def kill(self) -> None:
        """Kill it, once: its process id may be another's soon after."""
        if not self.is_killed:
            self.is_killed = True
            os.kill(self.pid, signal.SIGKILL)

    def open(self, *, resume: bool) -> trainer_pb2.OpenRunResponse:
        request = trainer_pb2.OpenRunRequest(spec=spec_of(self.run_dir), fence=self.fence, resume=resume)
        opened: trainer_pb2.OpenRunResponse = self.stub.OpenRun(request, timeout=CALL_S, wait_for_ready=True)
        return opened

    def learn(self, update: int) -> None:
        request = batch_of(update)
        request.run_id, request.fence = RUN_ID, self.fence
        self.stub.Learn(request, timeout=CALL_S)

    def save(self, update: int) -> Any:
        """Ask for a checkpoint; return the answer to come."""
        request = trainer_pb2.SaveCheckpointRequest(
            run_id=RUN_ID,
            update=update,
            coordinator_state=state_of(update),
            fence=self.fence,
            mean_reward=update % 7 / 7,
        )
        return self.stub.SaveCheckpoint.future(request, timeout=CALL_S)


class Nursery:
    """Trainers, one after another, each in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self._process = process
        self._directory = directory
        self.lives = 0

    @contextmanager
    def trainer(self, run_dir: Path) -> Iterator[Trainer]:
        """A new trainer with the next fence, which is killed in the end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.lives += 1
        address = f"unix:{self._directory}/{self.lives}"
        self._process.stdin.write(address + "\n")
        self._process.stdin.flush()
        trainer = Trainer(int(next(self._process.stdout)), None, run_dir, self.lives)
        # Between two tries it would wait for a second, which is longer than a life.
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100)]
        try:
            while not Path(address.removeprefix("unix:")).exists():
                time.sleep(0.001)
            with grpc.insecure_channel(address, options=options) as channel:
                trainer.stub = trainer_pb2_grpc.TrainerServiceStub(channel)
                yield trainer
        finally:
            trainer.kill()
            assert next(self._process.stdout) == "ended\n"


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    (tmp_path / "spec").write_bytes(spec_of(tmp_path / "warm").SerializeToString())
    (tmp_path / "batch").write_bytes(batch_of(0).SerializeToString())
    command = [sys.executable, "-c", NURSERY, tmp_path / "spec", tmp_path / "batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Nursery(process, tmp_path)


@dataclass(frozen=True)
class Standing:
    """A checkpoint as the trainer told of it."""

    update: int
    policy_sha256: str


@dataclass
class Tally:
    """What became of the kills, and how long saves took.

    inside: kills before the save was answered. torn: of these, the ones that left a half-written checkpoint.
    untold: the ones after which the new checkpoint was there all the same.
    """

    inside: int = 0
    torn: int = 0
    untold: int = 0
    save_s: list[float] = field(default_factory=lambda: [0.02])


def live_and_die(trainer: Trainer, newest: Standing, luck: random.Random, tally: Tally) -> Standing:
    """Learn and save an update or two, and kill the trainer in the last save; return the newest standing told of."""
    last = newest.update + luck.randint(1, 2)
    for update in range(newest.update + 1, last + 1):
        trainer.learn(update - 1)
        began = time.monotonic()
        answer = trainer.save(update)
        if update == last:
            # The moment of the kill is the point of this test.
            time.sleep(luck.uniform(0, statistics.median(tally.save_s[-20:])))
            trainer.kill()
        try:
            newest = Standing(update, answer.result().policy_sha256)
            tally.save_s.append(time.monotonic() - began)
        except grpc.RpcError:
            assert update == last
            tally.inside += 1
    return newest


def undisturbed(nursery: Nursery, updates: int, run_dir: Path) -> Standing:
    """Where a run stands that nobody has killed."""
    with nursery.trainer(run_dir) as trainer:
        trainer.open(resume=False)
        for update in range(updates):
            trainer.learn(update)
        return Standing(updates, trainer.save(updates).result().policy_sha256)


@pytest.mark.timeout(300)
def test_after_every_kill_in_a_save_the_newest_is_what_was_told_or_the_one_after(
    tmp_path: Path, nursery: Nursery
) -> None:
    luck, tally = random.Random(7), Tally()
    run_dir = tmp_path / "run"
    store = CheckpointStore(run_dir / "checkpoints", 3)
    with nursery.trainer(run_dir) as trainer:
        trainer.open(resume=False)
        newest = Standing(0, trainer.save(0).result().policy_sha256)
    for _ in range(KILLS):
        with nursery.trainer(run_dir) as trainer:
            found = trainer.open(resume=True)
            reached = Standing(found.policy_version, found.policy_sha256)
            assert reached == newest or reached.update == newest.update + 1
            assert (found.coordinator_state, found.warning) == (state_of(reached.update), "")
            tally.untold += reached != newest
            newest = live_and_die(trainer, reached, luck, tally)
        tally.torn += any(path.suffix == ".tmp" for path in store.root.iterdir())
        assert not [entry for entry in store.list() if entry.problem]
    print(f"{KILLS} kills, {tally.inside} in a save, {tally.torn} torn, {tally.untold} untold, {newest.update} updates")
    assert tally.inside >= LEAST_INSIDE
    assert tally.torn >= LEAST_TORN
    # Whatever was lost and learned again: every update was learned once.
    assert newest == undisturbed(nursery, newest.update, tmp_path / "calm")
