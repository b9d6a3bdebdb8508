"""A trainer of two processes under torchrun, with gloo: what it learns is what one process learns.

Sums are added up in another order, so equal means within a tolerance: 1e-5 of each figure that an update reports, the
gradient's norm among them, and after five updates 1e-4 of each weight, a twentieth of one step of Adam. Two processes
among themselves repeat to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from run_processes import children
from safetensors.torch import load_file

from altlas.cli.train import load_named, make_local_run
from altlas.cli.watch import make_spec
from altlas.config.loader import config_from_json, load_config
from altlas.core.grammar import build_constraint
from altlas.core.prefix_tree import build_prefix_tree
from altlas.core.program import ProgramStatus
from altlas.core.proposals import build_proposer
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.core.trajectory import TrajectoryBatch
from altlas.rpc.batches import scores_to_proto
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.tasks import parse_tasks
from altlas.rpc.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from altlas.rpc.trajectories import trajectories_to_proto
from altlas_trainer.runs import TrainerRun, open_run
from altlas_trainer.sharing import shares

# The first call waits for the launch: torch is imported three times.
CALL_S = 120.0
pytestmark = pytest.mark.timeout(240)
UPDATES = 5
OF_FIGURES, OF_WEIGHTS = 1e-5, 1e-4

SMALL = ("model.device=cpu", "model.hidden=24", "model.embedding=8", "sampling.batch_size=48")
CASES = {
    "default": ("stdin/echo", None, ()),
    "ppo": ("stdin/echo", None, ("objective.name=ppo", "objective.baseline=ema", "proposals.mutation=0", "run.seed=2")),
    "pqt": ("brainf/reverse", "paper-pqt", ()),
    "risk_gru": (
        "stdin/echo",
        None,
        (
            *("objective.name=risk_seeking", "objective.entropy_target=2", "objective.novelty_weight=0.2"),
            *("objective.pqt_source=archive", "model.cell=gru", "model.layers=2", "proposals.infill=0.1"),
        ),
    ),
    # Fewer programs than processes: the queue is off, and a batch is one program.
    "one_program": ("stdin/echo", None, ("objective.pqt_weight=0", "proposals.mutation=0", "sampling.batch_size=1")),
}


def spec_of(case: str, run_dir: Path) -> common_pb2.RunSpec:
    task, preset, settings = CASES[case]
    small = () if preset else SMALL
    config = load_config(config_file=None, environ={}, overrides=(*small, "model.device=cpu", *settings), preset=preset)
    named = load_named(task, languages=None)
    run = make_local_run(task, named, config, run_id=run_dir.name, run_dir=run_dir, resume=False)
    return make_spec(run)


def clean_environment() -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("ALTLAS_")}
    return own | {"OMP_NUM_THREADS": "1"}


@dataclass
class TwoProcesses:
    """A trainer under torchrun, as the coordinator sees it."""

    process: subprocess.Popen[bytes]
    stub: Any
    log: Path
    learned: dict[str, tuple[list[trainer_pb2.LearnRequest], str]] = field(default_factory=dict)

    def open(self, spec: common_pb2.RunSpec, *, fence: int = 0, resume: bool = False) -> trainer_pb2.OpenRunResponse:
        request = trainer_pb2.OpenRunRequest(spec=spec, fence=fence, resume=resume)
        opened: trainer_pb2.OpenRunResponse = self.stub.OpenRun(request, timeout=CALL_S, wait_for_ready=True)
        return opened

    def learn(self, request: trainer_pb2.LearnRequest, run_id: str, *, fence: int = 0) -> trainer_pb2.LearnResponse:
        sent = trainer_pb2.LearnRequest()
        sent.CopyFrom(request)
        sent.run_id, sent.fence = run_id, fence
        learned: trainer_pb2.LearnResponse = self.stub.Learn(sent, timeout=CALL_S)
        return learned

    def save(self, run_id: str, update: int, *, fence: int = 0) -> trainer_pb2.SaveCheckpointResponse:
        request = trainer_pb2.SaveCheckpointRequest(run_id=run_id, update=update, fence=fence)
        saved: trainer_pb2.SaveCheckpointResponse = self.stub.SaveCheckpoint(request, timeout=CALL_S)
        return saved

    @property
    def ranks(self) -> list[int]:
        """Process ids, rank 0 first."""
        found = {pid: command for pid, command in children(self.process.pid).items() if "serve trainer" in command}
        environ = {pid: Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in found}
        return sorted(environ, key=lambda pid: b"RANK=1" in environ[pid])


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoProcesses]:
    directory = tmp_path_factory.mktemp("ddp")
    address, log = f"unix:{directory}/trainer", directory / "log"
    command = [
        *(Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc-per-node", "2", "--log-dir", directory),
        *("-m", "altlas.cli.main"),
        *("serve", "trainer", "--listen", address),
    ]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=clean_environment()) as process,
        grpc.insecure_channel(address, options=[("grpc.max_reconnect_backoff_ms", 500)]) as channel,
    ):
        yield TwoProcesses(process, trainer_pb2_grpc.TrainerServiceStub(channel), log)
        process.terminate()


def next_batch(run: TrainerRun) -> trainer_pb2.LearnRequest:
    """The programs that the run would draw now, and scores of theirs that nobody has to run them for."""
    config, task = config_from_json(run.spec.config_json), parse_tasks(run.spec)[0]
    constraint = build_constraint(
        run.vocabulary, language=task.language, grammar=config.sampling.grammar, length=config.sampling.length
    )
    proposer = build_proposer(
        run.learner.snapshot(), config, vocabulary=run.vocabulary, constraint=constraint, device=torch.device("cpu")
    )
    update = run.policy_version
    batch = proposer.propose(
        seed=config.run.seed,
        update=update,
        first_index=0,
        count=config.sampling.batch_size,
        policy_version=update,
    )
    return request_of(batch, cases=len(task.cases))


def request_of(batch: TrajectoryBatch, *, cases: int) -> trainer_pb2.LearnRequest:
    def score(tokens: Any) -> Score:
        digest = hashlib.sha256(tokens.tobytes()).digest()
        of_cases = tuple(byte / 255 for byte in digest[16 : 16 + cases])
        return Score(
            status=ProgramStatus.OK,
            reward=sum(of_cases) / cases,
            behaviour=digest[:16],
            cases=cases,
            case_rewards=of_cases,
        )

    scores = [score(row[:length]) for row, length in zip(batch.tokens, batch.lengths, strict=True)]
    return trainer_pb2.LearnRequest(
        update=batch.policy_version,
        behaviour_version=batch.policy_version,
        trajectories=[trajectories_to_proto(batch, [b""] * len(batch))],
        scores=scores_to_proto(batch_scores(scores)),
    )


def test_shares_are_all_programs_once_with_as_many_nodes_each() -> None:
    luck = np.random.default_rng(0)
    lengths = luck.integers(1, 12, 300)
    tokens = np.where(np.arange(12) < lengths[:, None], luck.integers(3, 6, (300, 12)), 0)
    found = shares(tokens, lengths, 4)
    assert sorted(np.concatenate(found)) == list(range(300))
    nodes = [len(build_prefix_tree(tokens[rows], lengths[rows], sos_id=1).parents) for rows in found]
    whole = len(build_prefix_tree(tokens, lengths, sos_id=1).parents)
    # Each share has the root and a path to its first program besides its own nodes.
    assert max(nodes) <= whole / 4 + 2 * 12
    assert [len(rows) for rows in shares(tokens[:1], lengths[:1], 3)].count(0) == 2


@pytest.mark.parametrize(("codes", "expected"), [({0: 1, 1: -9}, -9), ({0: 2, 1: 1}, 2)])
def test_what_launched_them_ends_as_they_did(codes: dict[int, int], expected: int) -> None:
    program = f"from altlas.cli.serve import end_as; end_as({codes})"
    assert (
        subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL, check=False).returncode == expected
    )


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_learns(trainer: TwoProcesses, tmp_path: Path, case: str) -> None:
    one = open_run(spec_of(case, tmp_path / "one"), resume=False)
    run_id = f"two_{case}"
    opened = trainer.open(spec_of(case, tmp_path / run_id))
    assert "shared by 2 processes" in opened.device
    assert opened.policy_sha256 == one.learner.sha256()
    requests = []
    for update in range(UPDATES):
        requests.append(next_batch(one))
        expected, found = one.learn(requests[-1]), trainer.learn(requests[-1], run_id)
        assert found.policy_version == expected.policy_version == update + 1
        assert dict(found.metrics) == pytest.approx(dict(expected.metrics), rel=OF_FIGURES, abs=OF_FIGURES), update
    saved = trainer.save(run_id, UPDATES)
    trainer.learned[case] = requests, saved.policy_sha256
    tensors = load_file(Path(saved.path) / "trainer.safetensors")
    state, _ = one.learner.state_dict()
    assert tensors.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(
            tensors[name], tensor, rtol=OF_WEIGHTS, atol=OF_WEIGHTS, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("case", ["default", "pqt"])
def test_two_processes_repeat_to_the_last_bit_also_from_a_checkpoint(
    trainer: TwoProcesses, tmp_path: Path, case: str
) -> None:
    requests, expected = trainer.learned[case]
    run_id, middle = f"again_{case}", UPDATES // 2
    spec = spec_of(case, tmp_path / run_id)
    trainer.open(spec)
    for request in requests[:middle]:
        trainer.learn(request, run_id)
    saved = trainer.save(run_id, middle)
    trainer.learn(requests[middle], run_id)
    opened = trainer.open(spec, fence=1, resume=True)
    assert (opened.policy_version, opened.policy_sha256) == (middle, saved.policy_sha256)
    for request in requests[middle:]:
        trainer.learn(request, run_id, fence=1)
    assert trainer.save(run_id, UPDATES, fence=1).policy_sha256 == expected


def test_what_one_share_refuses_all_refuse_and_the_run_goes_on(trainer: TwoProcesses, tmp_path: Path) -> None:
    one = open_run(spec_of("default", tmp_path / "one"), resume=False)
    trainer.open(spec_of("default", tmp_path / "refused"))
    good = next_batch(one)
    bad = trainer_pb2.LearnRequest()
    bad.CopyFrom(good)
    tokens = np.frombuffer(good.trajectories[0].tokens, dtype="<u2").copy()
    tokens[0] = one.vocabulary.unk_id
    bad.trajectories[0].tokens = tokens.tobytes()
    with pytest.raises(grpc.RpcError, match="'<UNK>' cannot follow in the grammar"):
        trainer.learn(bad, "refused")
    assert trainer.learn(good, "refused").policy_version == 1


def test_a_run_with_every_role_solves_its_task(tmp_path: Path) -> None:
    settings = ("trainer.processes=2", "run.evaluators=1", "run.checkpoint_every=1")
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("altlas"), "train", "basics/hello_world", "--seed", "1", "--json"),
            *("--no-shrink", "--run-dir", str(tmp_path / "run")),
            *(word for setting in settings for word in ("--set", setting)),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["verified"]
    assert result["restarts"] == {}
    assert "shared by 2 processes" in (tmp_path / "run" / "training.log").read_text()


def test_a_rank_that_is_killed_ends_them_all(trainer: TwoProcesses) -> None:
    first, second = trainer.ranks
    os.kill(second, signal.SIGKILL)
    assert trainer.process.wait(timeout=60) == 1
    assert not Path(f"/proc/{first}").exists()
    log = trainer.log.read_text()
    assert "process 0 of the trainer cannot go on" in log
    assert "Signal 9 (SIGKILL)" in log
