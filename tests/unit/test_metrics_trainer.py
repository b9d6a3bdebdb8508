"""The trainer's metrics over updates that go well and one that does not."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client import REGISTRY, CollectorRegistry

from altlas.cli.submit import SubmitRequest, resolve_remote
from altlas.cli.watch import make_spec
from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.core.trajectory import TrajectoryBatch
from altlas.errors import LearningError
from altlas.rpc.batches import scores_to_proto
from altlas.rpc.trainer.v1 import trainer_pb2
from altlas.rpc.trajectories import trajectories_to_proto
from altlas_trainer.metrics import LastUpdate, phase
from altlas_trainer.servicer import TrainerServicer

BATCH, TOKENS = 8, 6
SETTINGS = (
    *("model.hidden=8", "model.embedding=4", "model.device=cpu", "sampling.grammar=none"),
    *(f"sampling.batch_size={BATCH}", f"sampling.max_tokens={TOKENS}"),
)


class Caller:
    """Of a call what the trainer asks about it."""

    def time_remaining(self) -> float:
        return 60.0


def opened(run_dir: Path, *settings: str, resume: bool = False) -> trainer_pb2.OpenRunRequest:
    request = SubmitRequest(
        task="stdin/echo",
        coordinator="",
        preset=None,
        config_file=None,
        overrides=(*SETTINGS, *settings),
        name="run",
        run_dir=str(run_dir),
        request_id=None,
        is_watched=False,
        as_json=False,
    )
    run = resolve_remote(request)
    return trainer_pb2.OpenRunRequest(spec=make_spec(run), fence=1, resume=resume)


def learn(update: int) -> trainer_pb2.LearnRequest:
    """Programs that nobody drew, scored by chance."""
    luck = np.random.default_rng(update)
    tokens = luck.integers(4, 40, (BATCH, TOKENS))
    tokens[:, -1] = 2  # <EOS>
    batch = TrajectoryBatch(
        indices=np.arange(BATCH),
        tokens=tokens,
        lengths=np.full(BATCH, TOKENS),
        log_probs=np.full((BATCH, TOKENS), -2, dtype=np.float32),
        entropies=np.ones((BATCH, TOKENS), dtype=np.float32),
        policy_version=update,
    )
    scores = [
        Score(status=ProgramStatus.OK, reward=float(reward), behaviour=hashlib.sha256(bytes([row])).digest()[:16])
        for row, reward in enumerate(luck.uniform(0, 1, BATCH))
    ]
    return trainer_pb2.LearnRequest(
        run_id="run",
        fence=1,
        update=update,
        behaviour_version=update,
        trajectories=[trajectories_to_proto(batch, [b"pass"] * BATCH)],
        scores=scores_to_proto(batch_scores(scores)),
    )


def value(metric: str, /, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"altlas_trainer_{metric}", labels)


def counted(phase: str) -> float:
    return value("phase_seconds_count", phase=phase) or 0.0


def test_an_update_that_is_not_finite_is_counted_and_shows_nothing_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        servicer, caller = TrainerServicer(), Caller()
        await servicer.OpenRun(opened(tmp_path), caller)
        before = {name: counted(name) for name in ("wait", "read", "remember", "backpropagate", "step", "publish")}
        response = await servicer.Learn(learn(0), caller)
        after = {name: counted(name) - count for name, count in before.items()}
        assert after == {"wait": 1, "read": 1, "remember": 1, "backpropagate": 1, "step": 1, "publish": 0}
        for name in ("entropy", "loss", "gradient_norm"):
            assert value(name) == value("learning", name=name) == response.metrics[name]
        assert value("entropy_floor") is None, "objective.entropy_target is 0"
        assert value("policy_version") == 1
        refused = value("nonfinite_total")
        policy = servicer._runs["run"].learner.policy
        with torch.no_grad():
            next(policy.parameters()).fill_(math.nan)
        with pytest.raises(LearningError):
            await servicer.Learn(learn(1), caller)
        assert value("nonfinite_total") == refused + 1
        assert (value("loss"), value("policy_version")) == (response.metrics["loss"], 1)
        servicer.close()

    asyncio.run(scenario())


def test_a_trainer_that_was_restarted_shows_the_checkpoint_that_it_goes_on_from(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, caller = TrainerServicer(), Caller()
        await first.OpenRun(opened(tmp_path, "objective.entropy_target=0.4"), caller)
        request = trainer_pb2.SaveCheckpointRequest(run_id="run", fence=1, update=0)
        saved = await first.SaveCheckpoint(request, caller)
        assert value("checkpoint_timestamp_seconds") == pytest.approx(time.time(), abs=60)
        assert value("checkpoint_bytes") == saved.size_bytes
        first.close()
        (checkpoint,) = tmp_path.glob("checkpoints/step_*")
        hour_ago = time.time() - 3600
        os.utime(checkpoint, (hour_ago, hour_ago))
        second = TrainerServicer()
        await second.OpenRun(opened(tmp_path, "objective.entropy_target=0.4", resume=True), caller)
        assert value("checkpoint_timestamp_seconds") == pytest.approx(hour_ago, abs=1)
        assert value("checkpoint_bytes") == saved.size_bytes
        assert value("entropy_floor") == 0.4
        second.close()

    asyncio.run(scenario())


def test_there_is_no_figure_before_an_update_and_none_that_the_last_one_did_not_report() -> None:
    registry, last = CollectorRegistry(), LastUpdate()
    registry.register(last)
    assert list(registry.collect()) == []
    last.show({"mean_reward": 0.5, "entropy": 0.0})
    assert registry.get_sample_value("altlas_trainer_entropy") == 0
    last.show({"mean_reward": 0.5})
    assert [metric.name for metric in registry.collect()] == ["altlas_trainer_learning"]


def test_a_phase_is_counted_without_those_within_it() -> None:
    names = ("step", "remember", "backpropagate")
    before = {name: value("phase_seconds_sum", phase=name) for name in names}
    began = time.perf_counter()
    with phase("step"):
        with phase("remember"):
            spin(0.02)
        with phase("backpropagate"):
            spin(0.02)
    took_s = time.perf_counter() - began
    step, remember, backpropagate = (value("phase_seconds_sum", phase=name) - before[name] for name in names)
    assert min(remember, backpropagate) >= 0.02
    assert 0 <= step <= took_s - remember - backpropagate + 1e-3


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
