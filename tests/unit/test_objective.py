"""Every formula of the objective against a slow, literal transcription."""

import math

import numpy as np
import pytest
import torch

from altlas.config.sections import ObjectiveSection
from altlas.core.novelty import BehaviourCounts
from altlas.core.objective import (
    batch_mean_baseline,
    build_objective,
    ema_update,
    leave_one_out_baseline,
    mean_entropy,
    queue_loss,
    reinforce_loss,
    risk_seeking_advantages,
)
from altlas.core.priority_queue import PriorityQueue
from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.core.trajectory import TrajectoryBatch

REWARDS = [0.2, 0.9, 0.2, 0.0, 0.55, 0.9, 0.1]


def as_rewards(values=REWARDS):
    return torch.tensor(values, dtype=torch.float64)


def test_leave_one_out_is_the_mean_of_the_others():
    expected = [sum(r for j, r in enumerate(REWARDS) if j != i) / 6 for i in range(7)]
    assert leave_one_out_baseline(as_rewards()).tolist() == pytest.approx(expected)
    assert leave_one_out_baseline(as_rewards([0.7])).tolist() == [0.0]


def test_batch_mean_is_the_mean_of_all():
    assert batch_mean_baseline(as_rewards()).tolist() == pytest.approx([sum(REWARDS) / 7] * 7)


def test_ema_starts_at_the_first_mean_and_decays():
    baseline = ema_update(None, as_rewards([0.4, 0.6]), 0.9)
    assert baseline == pytest.approx(0.5)
    assert ema_update(baseline, as_rewards([1.0]), 0.9) == pytest.approx(0.9 * 0.5 + 0.1 * 1.0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", REWARDS),
        ("batch_mean", [r - sum(REWARDS) / 7 for r in REWARDS]),
        ("leave_one_out", [r - (sum(REWARDS) - r) / 6 for r in REWARDS]),
        ("ema", [r - sum(REWARDS) / 7 for r in REWARDS]),
    ],
)
def test_reinforce_subtracts_the_configured_baseline(kind, expected):
    objective = build_objective(ObjectiveSection(baseline=kind))
    assert objective.advantages(as_rewards()).tolist() == pytest.approx(expected)


def test_ema_subtracts_what_was_known_before_the_batch():
    objective = build_objective(ObjectiveSection(baseline="ema", ema_decay=0.5))
    objective.advantages(as_rewards([0.4]))
    assert objective.advantages(as_rewards([1.0])).tolist() == pytest.approx([0.6])
    assert objective.baseline == pytest.approx(0.7)


def test_reinforce_loss_and_its_gradient():
    log_probs = torch.tensor([-1.0, -2.5, -0.3], requires_grad=True)
    advantages = torch.tensor([0.5, -0.25, 0.0])
    loss = reinforce_loss(log_probs, advantages)
    assert loss.item() == pytest.approx(-(0.5 * -1.0 + -0.25 * -2.5 + 0.0) / 3)
    loss.backward()
    assert log_probs.grad.tolist() == pytest.approx([-0.5 / 3, 0.25 / 3, 0.0])


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 1.0])
def test_risk_seeking_keeps_the_top_and_subtracts_the_quantile(epsilon):
    ordered = sorted(REWARDS)
    position = (1 - epsilon) * 6
    low = math.floor(position)
    quantile = ordered[low] + (position - low) * (ordered[min(low + 1, 6)] - ordered[low])
    expected = [(r - quantile) / epsilon if r >= quantile else 0.0 for r in REWARDS]
    assert risk_seeking_advantages(as_rewards(), epsilon).tolist() == pytest.approx(expected)
    objective = build_objective(ObjectiveSection(name="risk_seeking", risk_quantile=epsilon))
    assert objective.advantages(as_rewards()).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["reinforce", "risk_seeking"])
@pytest.mark.parametrize("baseline", ["ema", "batch_mean", "leave_one_out"])
def test_equal_rewards_have_no_advantage(name, baseline):
    objective = build_objective(ObjectiveSection(name=name, baseline=baseline))
    assert objective.advantages(as_rewards([0.3] * 8)).tolist() == pytest.approx([0.0] * 8)


def test_mean_entropy_is_per_sampled_token():
    entropies = torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 0.0]])
    assert mean_entropy(entropies, torch.tensor([2, 1])).item() == pytest.approx(7.0 / 3)


def test_queue_loss_is_the_mean_negative_log_prob_per_token():
    assert queue_loss(torch.tensor([-4.0, -9.0]), torch.tensor([2, 3])).item() == pytest.approx((2 + 3) / 2)


def batch_of(programs):
    lengths = np.array([len(program) for program in programs])
    tokens = np.zeros((len(programs), lengths.max()), dtype=np.int64)
    for row, program in enumerate(programs):
        tokens[row, : len(program)] = program
    zeros = np.zeros(tokens.shape, dtype=np.float32)
    return TrajectoryBatch(
        indices=np.arange(len(programs)),
        tokens=tokens,
        lengths=lengths,
        log_probs=zeros,
        entropies=zeros,
        policy_version=0,
    )


def score(reward, behaviour):
    return Score(status=ProgramStatus.OK, reward=reward, behaviour=bytes([behaviour]) * 16)


def test_queue_keeps_the_best_unique_by_behaviour_the_shorter_of_equals():
    queue = PriorityQueue(3)
    queue.add(
        batch_of([[5, 6, 7, 2], [8, 2], [9, 9, 2], [4, 2]]),
        [score(0.5, 1), score(0.1, 2), score(0.9, 3), score(0.3, 4)],
    )
    assert [item.reward for item in queue.items] == [0.9, 0.5, 0.3]
    queue.add(batch_of([[5, 2], [3, 3, 3, 2], [6, 2]]), [score(0.5, 1), score(0.9, 3), score(0.4, 5)])
    assert [(item.reward, item.tokens) for item in queue.items] == [(0.9, (9, 9, 2)), (0.5, (5, 2)), (0.4, (6, 2))]
    assert queue.best_reward == 0.9


def test_queue_survives_its_tensors():
    queue = PriorityQueue(5)
    queue.add(batch_of([[5, 6, 7, 2], [8, 2]]), [score(0.1, 1), score(0.7, 255)])
    restored = PriorityQueue(5)
    restored.load(queue.tensors())
    assert restored.items == queue.items
    restored.load(PriorityQueue(5).tensors())
    assert restored.items == []
    assert restored.best_reward == 0.0


def test_novelty_bonus_falls_with_the_square_root_of_sightings():
    counts = BehaviourCounts()
    first, second = b"a" * 16, b"b" * 16
    assert counts.bonuses([first, first, second], 0.5) == pytest.approx([0.5, 0.5 / math.sqrt(2), 0.5])
    restored = BehaviourCounts()
    restored.load(counts.tensors())
    assert restored.bonuses([first, second], 1.0) == pytest.approx([1 / math.sqrt(3), 1 / math.sqrt(2)])
