"""The policy network: shapes, reproducible first weights, bytes and hash."""

import hashlib

import pytest
import torch

from altlas.config.sections import ModelSection
from altlas.core.policy import build_policy, policy_from_tensors, policy_sha256, tensors_from_bytes, tensors_to_bytes
from altlas.errors import CheckpointError

MODELS = [
    ModelSection(cell="lstm", embedding=5, hidden=7),
    ModelSection(cell="gru", embedding=5, hidden=7),
    ModelSection(cell="lstm", embedding=5, hidden=7, layers=2),
]


@pytest.fixture(params=MODELS, ids=["lstm", "gru", "lstm2"])
def model(request):
    return request.param


def test_forward_gives_logits_for_every_prefix_and_a_state_to_go_on_from(model):
    policy = build_policy(model, 11, seed=1)
    tokens = torch.arange(12).reshape(2, 6) % 11
    logits, _ = policy(tokens)
    assert logits.shape == (2, 6, 11)
    first, state = policy(tokens[:, :2])
    rest, _ = policy(tokens[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), logits)


def test_first_weights_depend_on_seed_and_restart_and_on_nothing_else(model):
    first = policy_sha256(build_policy(model, 11, seed=1))
    torch.manual_seed(99)
    assert policy_sha256(build_policy(model, 11, seed=1)) == first
    assert policy_sha256(build_policy(model, 11, seed=2)) != first
    assert policy_sha256(build_policy(model, 11, seed=1, restart_index=1)) != first


def test_building_a_policy_draws_nothing_from_the_global_generator(model):
    before = torch.get_rng_state()
    build_policy(model, 11, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_first_weights_fill_their_range():
    policy = build_policy(ModelSection(hidden=64), 50, seed=1)
    for name, parameter in policy.named_parameters():
        bound = 3**0.5 if name == "embedding.weight" else 64**-0.5
        assert 0.8 * bound < parameter.abs().max() < bound, name
    weight = policy.rnn.weight_hh_l0
    assert abs(weight.mean()) < 0.02 * 64**-0.5
    assert weight.std().item() == pytest.approx(64**-0.5 / 3**0.5, rel=0.02)


def test_bytes_give_an_equal_policy_in_a_new_instance(model):
    policy = build_policy(model, 11, seed=1)
    restored = policy_from_tensors(tensors_from_bytes(tensors_to_bytes(policy.state_dict())), model, 11)
    assert policy_sha256(restored) == policy_sha256(policy)
    for name, parameter in policy.state_dict().items():
        assert torch.equal(restored.state_dict()[name], parameter)


def test_bytes_of_another_shape_are_refused_by_name():
    tensors = build_policy(ModelSection(hidden=7), 11, seed=1).state_dict()
    with pytest.raises(CheckpointError, match=r"output\.weight.*\(11, 8\).*\(11, 7\)"):
        policy_from_tensors(tensors, ModelSection(hidden=8), 11)


def test_bytes_that_are_no_weights_are_refused():
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        tensors_from_bytes(b"\x80\x04 not this")


def test_hash_is_over_sorted_names_types_shapes_and_bytes():
    policy = torch.nn.Linear(2, 1)
    with torch.no_grad():
        policy.weight.copy_(torch.tensor([[1.0, 2.0]]))
        policy.bias.copy_(torch.tensor([3.0]))
    by_hand = b"bias:<f4:(1,);" + bytes.fromhex("00004040") + b"weight:<f4:(1, 2);" + bytes.fromhex("0000803f00000040")
    assert policy_sha256(policy) == hashlib.sha256(by_hand).hexdigest()


def test_hash_sees_a_single_bit():
    policy = build_policy(MODELS[0], 11, seed=1)
    before = policy_sha256(policy)
    with torch.no_grad():
        policy.output.bias.view(torch.int32)[0] ^= 1
    assert policy_sha256(policy) != before
