"""The sampler against a slow, literal one: same noise, nn.LSTM step by step, softmax, every lane on its own."""

import math

import numpy as np
import pytest
import torch

from altlas.config.sections import ModelSection, SamplingSection
from altlas.core.grammar import Unconstrained
from altlas.core.policy import build_policy
from altlas.core.rng import uniform
from altlas.core.sampling import Sampler, gumbel
from altlas.core.vocabulary import parse_vocabulary
from altlas.errors import ConfigError

WORDS = "abcdefg"
VOCABULARY = parse_vocabulary(
    '{"version": 1, "special_tokens": ["<PAD>", "<SOS>", "<EOS>", "<UNK>"], "vocabularies": {"python": ['
    + ", ".join(f'{{"text": "{word}", "kind": "name"}}' for word in WORDS)
    + "]}}"
)
SIZE = len(VOCABULARY)
MODELS = {
    "lstm": ModelSection(cell="lstm", embedding=5, hidden=9),
    "gru": ModelSection(cell="gru", embedding=5, hidden=9),
    "lstm2": ModelSection(cell="lstm", embedding=5, hidden=9, layers=2),
    "gru2": ModelSection(cell="gru", embedding=5, hidden=9, layers=2),
}


class NeverTwice(Unconstrained):
    """No token directly after itself; a node is the last token's id."""

    start = VOCABULARY.sos_id

    def legal(self, nodes, *, remaining):
        masks = super().legal(np.zeros_like(nodes), remaining=remaining)
        if remaining > 1:
            masks[np.arange(len(nodes)), nodes] = False
        return masks

    def advance(self, nodes, tokens):
        return tokens


def make_sampler(policy, constraint, **sampling):
    return Sampler(
        policy,
        constraint=constraint,
        vocabulary=VOCABULARY,
        sampling=SamplingSection(**{"max_tokens": 12, **sampling}),
        device=torch.device("cpu"),
    )


def sample_literally(policy, constraint, index, *, seed, update, max_tokens, temperature):
    """One program, one token at a time, the whole prefix through the network each time."""
    tokens, log_probs, entropies = [], [], []
    node = np.array([constraint.start])
    for step in range(max_tokens):
        with torch.no_grad():
            logits, _ = policy(torch.tensor([[VOCABULARY.sos_id, *tokens]]))
        legal = constraint.legal(node, remaining=max_tokens - step)[0]
        scores = [math.exp(float(x) / temperature) if ok else 0.0 for x, ok in zip(logits[0, -1], legal, strict=True)]
        probabilities = [value / sum(scores) for value in scores]
        noise = uniform(seed, "sample", update=update, first_index=index, count=1, per_index=SIZE, step=step)[0]
        keys = [
            math.log(p) - math.log(-math.log(float(u))) if p > 0 else -math.inf
            for p, u in zip(probabilities, noise, strict=True)
        ]
        token = int(np.argmax(keys))
        tokens.append(token)
        log_probs.append(math.log(probabilities[token]))
        entropies.append(-sum(p * math.log(p) for p in probabilities if p > 0))
        if token == VOCABULARY.eos_id:
            break
        node = constraint.advance(node, np.array([token]))
    return tokens, log_probs, entropies


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("constraint", [Unconstrained(VOCABULARY), NeverTwice(VOCABULARY)], ids=["free", "masked"])
def test_sampler_equals_the_literal_one(model, constraint):
    policy = build_policy(model, SIZE, seed=3)
    sampler = make_sampler(policy, constraint, temperature=0.8)
    batch = sampler.sample(seed=5, update=2, first_index=10, count=24, policy_version=7)
    assert batch.policy_version == 7
    assert batch.indices.tolist() == list(range(10, 34))
    for row, index in enumerate(batch.indices.tolist()):
        tokens, log_probs, entropies = sample_literally(
            policy, constraint, index, seed=5, update=2, max_tokens=12, temperature=0.8
        )
        length = len(tokens)
        assert batch.lengths[row] == length
        assert batch.tokens[row, :length].tolist() == tokens
        assert batch.log_probs[row, :length] == pytest.approx(log_probs, abs=2e-5)
        assert batch.entropies[row, :length] == pytest.approx(entropies, abs=2e-5)
        assert (batch.tokens[row, length:] == VOCABULARY.pad_id).all()
        assert (batch.log_probs[row, length:] == 0).all()
        assert (batch.entropies[row, length:] == 0).all()


def test_the_same_range_gives_the_same_bytes_and_a_split_the_same_programs():
    sampler = make_sampler(build_policy(MODELS["lstm"], SIZE, seed=3), Unconstrained(VOCABULARY))
    whole = sampler.sample(seed=1, update=0, first_index=0, count=64, policy_version=0)
    again = sampler.sample(seed=1, update=0, first_index=0, count=64, policy_version=0)
    for name in ("tokens", "lengths", "log_probs", "entropies"):
        assert getattr(whole, name).tobytes() == getattr(again, name).tobytes()
    part = sampler.sample(seed=1, update=0, first_index=40, count=24, policy_version=0)
    longest = part.tokens.shape[1]
    assert np.array_equal(part.tokens, whole.tokens[40:, :longest])
    np.testing.assert_allclose(part.log_probs, whole.log_probs[40:, :longest], atol=1e-5)


def test_seed_and_update_give_other_programs():
    sampler = make_sampler(build_policy(MODELS["lstm"], SIZE, seed=3), Unconstrained(VOCABULARY))
    drawn = [
        sampler.sample(seed=seed, update=update, first_index=0, count=64, policy_version=0).tokens[:, 0].tolist()
        for seed, update in [(1, 0), (2, 0), (1, 1)]
    ]
    assert drawn[0] != drawn[1]
    assert drawn[0] != drawn[2]


def test_every_program_ends_with_eos_within_max_tokens():
    policy = build_policy(MODELS["lstm"], SIZE, seed=3)
    with torch.no_grad():
        policy.output.bias[VOCABULARY.eos_id] = -20.0
    batch = make_sampler(policy, Unconstrained(VOCABULARY), max_tokens=6).sample(
        seed=1, update=0, first_index=0, count=32, policy_version=0
    )
    assert batch.lengths.tolist() == [6] * 32
    assert (batch.tokens[:, -1] == VOCABULARY.eos_id).all()
    assert (batch.log_probs[:, -1] == 0).all()


def test_masked_tokens_are_never_drawn():
    sampler = make_sampler(build_policy(MODELS["lstm"], SIZE, seed=3), NeverTwice(VOCABULARY))
    batch = sampler.sample(seed=1, update=0, first_index=0, count=500, policy_version=0)
    assert not np.isin(batch.tokens[batch.log_probs != 0], [VOCABULARY.sos_id, VOCABULARY.unk_id]).any()
    inside = np.arange(1, batch.tokens.shape[1]) < batch.lengths[:, None]
    assert not ((batch.tokens[:, 1:] == batch.tokens[:, :-1]) & inside).any()


def test_an_unresolved_token_budget_is_refused():
    with pytest.raises(ConfigError, match=r"sampling\.max_tokens: 0 stands for the task's own"):
        make_sampler(build_policy(MODELS["lstm"], SIZE, seed=3), Unconstrained(VOCABULARY), max_tokens=0)


def test_moved_weights_are_seen_without_notice():
    policy = build_policy(MODELS["lstm"], SIZE, seed=3)
    sampler = make_sampler(policy, Unconstrained(VOCABULARY))
    with torch.no_grad():
        policy.output.bias[VOCABULARY.id_of["c"]] = 50.0
    batch = sampler.sample(seed=1, update=0, first_index=0, count=8, policy_version=1)
    assert (batch.tokens[:, :-1] == VOCABULARY.id_of["c"]).all()


def test_gumbel_argmax_samples_the_softmax():
    probabilities = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03])
    noise = torch.from_numpy(uniform(1, "sample", update=0, first_index=0, count=40_000, per_index=5))
    drawn = (probabilities.log() + gumbel(noise)).argmax(dim=1)
    counts = torch.bincount(drawn, minlength=5)
    expected = probabilities * 40_000
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 23.5  # 4 degrees of freedom: above once in 10,000 keys, and this key is fixed


def test_first_tokens_follow_the_tempered_distribution_of_the_policy():
    policy = build_policy(MODELS["lstm"], SIZE, seed=3)
    with torch.no_grad():
        policy.output.bias += torch.linspace(0.0, 2.0, SIZE)
        logits = policy(torch.tensor([[VOCABULARY.sos_id]]))[0][0, 0]
    legal = torch.from_numpy(Unconstrained(VOCABULARY).legal(np.array([0]), remaining=2)[0])
    probabilities = torch.softmax((logits / 0.7).masked_fill(~legal, -torch.inf), dim=0)
    sampler = make_sampler(policy, Unconstrained(VOCABULARY), temperature=0.7, max_tokens=2)
    batch = sampler.sample(seed=1, update=0, first_index=0, count=20_000, policy_version=0)
    counts = np.bincount(batch.tokens[:, 0], minlength=SIZE)[legal.numpy()]
    expected = probabilities[legal].numpy() * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # 7 degrees of freedom: once in 4,000 keys, fixed key
