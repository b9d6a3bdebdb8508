"""RMSProp as TensorFlow 1 has it, against the formula in numpy, and its state."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from altlas.config.sections import ModelSection, OptimizerSection
from altlas.core.optimizers import Adam, RMSPropTF, build_optimizer
from altlas.core.policy import build_policy

RATE, DECAY, EPSILON = 0.01, 0.9, 1e-10


def make(parameters):
    return RMSPropTF(parameters, learning_rate=RATE, decay=DECAY, epsilon=EPSILON)


def gradients(steps):
    random = np.random.default_rng(3)
    return [random.normal(size=(2, 3)) * 10.0 ** random.integers(-3, 3) for _ in range(steps)]


def move(optimizer, parameter, gradient):
    parameter.grad = torch.from_numpy(gradient)
    optimizer.step()


def test_it_equals_the_formula():
    parameter = nn.Parameter(torch.arange(6, dtype=torch.float64).reshape(2, 3))
    optimizer = make([parameter])
    weights, mean_square = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    for gradient in gradients(20):
        move(optimizer, parameter, gradient)
        for index in np.ndindex(2, 3):
            mean_square[index] = DECAY * mean_square[index] + (1 - DECAY) * gradient[index] ** 2
            weights[index] -= RATE * gradient[index] / np.sqrt(mean_square[index] + EPSILON)
        np.testing.assert_allclose(parameter.detach().numpy(), weights, rtol=0, atol=1e-12)


def test_the_first_step_is_short_since_the_mean_square_begins_at_one():
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    move(make([parameter]), parameter, np.array([1e-3]))
    assert parameter.item() == pytest.approx(-RATE * 1e-3 / (DECAY + 0.1 * 1e-6) ** 0.5)


def test_a_new_optimizer_with_the_state_goes_on_bit_for_bit():
    straight = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
    first = make([straight])
    steps = gradients(6)
    for gradient in steps[:3]:
        move(first, straight, gradient)
    resumed = nn.Parameter(straight.detach().clone())
    second = make([resumed])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for gradient in steps[3:]:
        move(first, straight, gradient)
        move(second, resumed, gradient)
    assert torch.equal(straight, resumed)


def test_what_has_no_gradient_stays():
    still, moving = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = make([still, moving])
    moving.grad = torch.ones(2)
    optimizer.step()
    assert still.tolist() == [1.0, 1.0]
    assert moving[0] < 1.0


def test_adam_equals_torchs():
    ours, theirs = (nn.Parameter(torch.arange(6, dtype=torch.float64).reshape(2, 3)) for _ in range(2))
    optimizer, reference = Adam([ours], learning_rate=RATE), torch.optim.Adam([theirs], lr=RATE)
    for gradient in gradients(20):
        move(optimizer, ours, gradient)
        move(reference, theirs, gradient)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_no_optimizer_imports_torchs_compiler():
    script = """
import sys, torch
from altlas.config.sections import OptimizerSection
from altlas.core.optimizers import build_optimizer
layer = torch.nn.Linear(2, 1)
for name in ("adam", "rmsprop_tf"):
    optimizer = build_optimizer(layer, OptimizerSection(name=name))
    optimizer.zero_grad()
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("rmsprop_tf", RMSPropTF)])
def test_the_section_names_the_optimizer(name, kind):
    policy = build_policy(ModelSection(embedding=3, hidden=4), 6, seed=1)
    optimizer = build_optimizer(policy, OptimizerSection(name=name, learning_rate=0.5))
    assert isinstance(optimizer, kind)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert len(optimizer.param_groups[0]["params"]) == len(list(policy.parameters()))
