"""Every formula of the objective against a slow, literal transcription."""

import math

import pytest
import torch

from altlas.config.sections import ObjectiveSection
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
