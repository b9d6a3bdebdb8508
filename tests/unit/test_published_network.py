"""The published network: its first weights and size, and sampling and learning without an output bias or an <EOS>."""

import math

import numpy as np
import pytest
import torch

from altlas.config.loader import load_config
from altlas.config.sections import ModelSection, SamplingSection
from altlas.core.grammar import FixedLength, Unconstrained, build_constraint
from altlas.core.policy import build_policy, policy_from_tensors, policy_sha256, tensors_from_bytes, tensors_to_bytes
from altlas.core.sampling import Sampler
from altlas.core.teacher_forcing import TeacherForcing
from altlas.core.vocabulary import parse_vocabulary
from altlas.errors import ConfigError, ProtocolError

VOCABULARY = parse_vocabulary(
    '{"version": 1, "special_tokens": ["<PAD>", "<SOS>", "<EOS>", "<UNK>"], "vocabularies": {"python": ['
    + ", ".join(f'{{"text": "{word}", "kind": "name"}}' for word in "abcdef")
    + "]}}"
)
SIZE, LONGEST, CPU = len(VOCABULARY), 12, torch.device("cpu")
PUBLISHED = load_config(config_file=None, environ={}, overrides=(), preset="paper-pqt").model
SMALL = ModelSection(embedding=5, hidden=9, layers=2, initialisation="glorot", output_bias=False)
MODELS = {"lstm2": SMALL, "gru": SMALL.model_copy(update={"cell": "gru", "layers": 1})}


def sampler_of(policy, constraint):
    sampling = SamplingSection(max_tokens=LONGEST, length="fixed", grammar="none", temperature=0.8)
    return Sampler(policy, constraint=constraint, vocabulary=VOCABULARY, sampling=sampling, device=CPU)


def forcing_of(policy, constraint):
    return TeacherForcing(
        policy, constraint=constraint, vocabulary=VOCABULARY, max_tokens=LONGEST, temperature=0.8, device=CPU
    )


def test_it_has_as_many_parameters_as_published():
    policy = build_policy(PUBLISHED, 9, seed=1)
    assert sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad) == 16_785


def test_glorots_weights_fill_their_range_and_biases_are_none_but_the_forget_gates():
    policy = build_policy(PUBLISHED, 12, seed=1)
    hidden, factor = 35, 0.5
    bounds = {
        "embedding.weight": 1.0,
        "rnn.weight_ih_l0": math.sqrt(6 * factor / (10 + hidden + 4 * hidden)),
        "rnn.weight_hh_l0": math.sqrt(6 * factor / (10 + hidden + 4 * hidden)),
        "rnn.weight_ih_l1": math.sqrt(6 * factor / (2 * hidden + 4 * hidden)),
        "rnn.weight_hh_l1": math.sqrt(6 * factor / (2 * hidden + 4 * hidden)),
        "output.weight": math.sqrt(6 * factor / (hidden + 12)),
    }
    for name, parameter in policy.named_parameters():
        if name in bounds:
            assert 0.9 * bounds[name] < parameter.abs().max() < bounds[name], name
        else:
            forget = torch.zeros(4 * hidden)
            forget[hidden : 2 * hidden] = 1.0 if "bias_ih" in name else 0.0
            assert torch.equal(parameter.detach(), forget), name
    assert policy.output.bias is None


def test_a_gru_begins_without_biases():
    policy = build_policy(MODELS["gru"], SIZE, seed=1)
    assert not policy.rnn.bias_ih_l0.any()
    assert not policy.rnn.bias_hh_l0.any()


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_first_weights_are_reproducible_and_survive_their_bytes(model):
    policy = build_policy(model, SIZE, seed=1)
    assert policy_sha256(build_policy(model, SIZE, seed=1)) == policy_sha256(policy)
    assert policy_sha256(build_policy(model, SIZE, seed=2)) != policy_sha256(policy)
    assert policy_sha256(
        policy_from_tensors(tensors_from_bytes(tensors_to_bytes(policy.state_dict())), model, SIZE)
    ) == policy_sha256(policy)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_sampled_programs_of_fixed_length_are_whole_and_valued_alike_by_the_network(model):
    policy, constraint = build_policy(model, SIZE, seed=3), FixedLength(VOCABULARY)
    batch = sampler_of(policy, constraint).sample(seed=1, update=0, first_index=0, count=40, policy_version=0)
    assert batch.lengths.tolist() == [LONGEST] * 40
    assert (batch.tokens > VOCABULARY.unk_id).all()
    begun = np.concatenate([np.full((40, 1), VOCABULARY.sos_id), batch.tokens[:, :-1]], axis=1)
    with torch.no_grad():
        logits, _ = policy(torch.from_numpy(begun))
    log_probs = torch.log_softmax(logits[:, :, VOCABULARY.unk_id + 1 :] / 0.8, dim=-1).numpy()
    chosen = np.take_along_axis(log_probs, batch.tokens[:, :, None] - VOCABULARY.unk_id - 1, axis=2)[:, :, 0]
    np.testing.assert_allclose(batch.log_probs, chosen, atol=2e-5)
    np.testing.assert_allclose(batch.entropies, -(np.exp(log_probs) * log_probs).sum(axis=-1), atol=2e-5)


@pytest.mark.parametrize("kind", [FixedLength, Unconstrained])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_learner_sees_every_token_as_the_sampler_did(model, kind):
    policy, constraint = build_policy(model, SIZE, seed=3), kind(VOCABULARY)
    batch = sampler_of(policy, constraint).sample(seed=1, update=0, first_index=0, count=40, policy_version=0)
    values = forcing_of(policy, constraint).evaluate(batch.tokens, batch.lengths)
    assert len(values.token_log_probs) == batch.lengths.sum()
    assert len({*zip(values.programs.tolist(), values.positions.tolist(), strict=True)}) == batch.lengths.sum()
    sampled = batch.log_probs[values.programs, values.positions]
    np.testing.assert_allclose(values.token_log_probs.detach().numpy(), sampled, atol=2e-5)
    np.testing.assert_allclose(values.log_probs.detach().numpy(), batch.log_probs.sum(axis=1), atol=2e-4)
    np.testing.assert_allclose(values.entropies.detach().numpy(), batch.entropies.sum(axis=1), atol=2e-4)


def test_the_second_bias_of_a_published_cell_is_not_learned():
    policy, constraint = build_policy(SMALL, SIZE, seed=3), FixedLength(VOCABULARY)
    batch = sampler_of(policy, constraint).sample(seed=1, update=0, first_index=0, count=8, policy_version=0)
    forcing_of(policy, constraint).evaluate(batch.tokens, batch.lengths).log_probs.sum().backward()
    unlearned = {name for name, parameter in policy.named_parameters() if parameter.grad is None}
    assert unlearned == {"rnn.bias_hh_l0", "rnn.bias_hh_l1"}


def test_replay_of_fixed_length_gives_the_masks_and_refuses_other_lengths():
    constraint = FixedLength(VOCABULARY)
    tokens = np.full((2, 3), VOCABULARY.id_of["a"])
    masks = constraint.replay(tokens, np.array([3, 3]), max_tokens=3)
    assert (masks == (np.arange(SIZE) > VOCABULARY.unk_id)).all()
    with pytest.raises(ProtocolError, match=r"trajectory 1: 2 tokens where every program has 3.*sampling.length"):
        constraint.replay(tokens, np.array([3, 2]), max_tokens=3)


@pytest.mark.parametrize("special", ["pad_id", "sos_id", "eos_id", "unk_id"])
def test_no_special_token_stands_in_a_program_of_fixed_length(special):
    constraint = FixedLength(VOCABULARY)
    with pytest.raises(ProtocolError):
        constraint.advance(np.array([0]), np.array([getattr(VOCABULARY, special)]))
    with pytest.raises(ProtocolError, match="position 0 is not legal"):
        constraint.replay(np.array([[getattr(VOCABULARY, special)]]), np.array([1]), max_tokens=1)


def test_nothing_follows_the_last_token():
    legal = FixedLength(VOCABULARY).legal(np.array([0, 0]), remaining=0)
    assert legal.sum() == 2
    assert legal[:, VOCABULARY.pad_id].all()


def test_the_section_names_the_constraint():
    assert isinstance(build_constraint(VOCABULARY, language="brainf", grammar="none", length="fixed"), FixedLength)
    assert isinstance(build_constraint(VOCABULARY, language="brainf", grammar="none"), Unconstrained)
    with pytest.raises(ConfigError, match=r"grammar = none"):
        build_constraint(VOCABULARY, language="python", grammar="language", length="fixed")
