"""Sampler and trainer together learn: the mean reward rises under every objective."""

import hashlib

import numpy as np
import pytest
import torch

from altlas.config.sections import Config, ModelSection, ObjectiveSection, OptimizerSection, SamplingSection
from altlas.core.grammar import Unconstrained
from altlas.core.program import ProgramStatus
from altlas.core.sampling import Sampler
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.core.vocabulary import parse_vocabulary
from altlas_trainer.trainer import Trainer

VOCABULARY = parse_vocabulary(
    '{"version": 1, "special_tokens": ["<PAD>", "<SOS>", "<EOS>", "<UNK>"], "vocabularies": {"python": ['
    + ", ".join(f'{{"text": "{word}", "kind": "name"}}' for word in "abcdef")
    + "]}}"
)
TARGET = [VOCABULARY.id_of[word] for word in "abcabc"]


def score(tokens):
    """The share of positions at which a program agrees with abcabc."""
    hits = sum(left == right for left, right in zip(tokens, TARGET, strict=False))
    reward = hits / max(len(TARGET), len(tokens) - 1)
    behaviour = hashlib.sha256(bytes(tokens)).digest()[:16]
    return Score(status=ProgramStatus.OK, reward=reward, behaviour=behaviour, solved=reward == 1.0)


def learn(objective, updates=60):
    """Return the mean reward per update."""
    config = Config(
        model=ModelSection(embedding=8, hidden=24),
        sampling=SamplingSection(batch_size=64, max_tokens=10),
        objective=objective,
        optimizer=OptimizerSection(learning_rate=0.02),
    )
    constraint, device = Unconstrained(VOCABULARY), torch.device("cpu")
    trainer = Trainer(config, vocabulary=VOCABULARY, constraint=constraint, device=device, seed=1)
    sampler = Sampler(
        trainer.policy, constraint=constraint, vocabulary=VOCABULARY, sampling=config.sampling, device=device
    )
    means = []
    for update in range(updates):
        batch = sampler.sample(seed=1, update=update, first_index=0, count=64, policy_version=update)
        scores = [
            score(row[:length].tolist()) for row, length in zip(batch.tokens, batch.lengths.tolist(), strict=True)
        ]
        means.append(trainer.learn(batch, batch_scores(scores), update=update).metrics["mean_reward"])
    return means


@pytest.mark.parametrize(
    "objective",
    [
        ObjectiveSection(baseline="leave_one_out", entropy_weight=0.01, pqt_weight=0.0),
        ObjectiveSection(baseline="ema", entropy_weight=0.01, pqt_weight=1.0),
        ObjectiveSection(name="risk_seeking", risk_quantile=0.2, entropy_weight=0.01, pqt_weight=0.0),
    ],
    ids=["reinforce", "ema_pqt", "risk_seeking"],
)
def test_mean_reward_rises(objective):
    means = learn(objective)
    assert np.mean(means[:5]) < 0.2
    assert np.mean(means[-5:]) > 0.5


def test_without_reward_differences_nothing_is_learned():
    """The control: an objective that is fed no signal does not drift to the target."""
    means = learn(ObjectiveSection(name="risk_seeking", risk_quantile=1.0, entropy_weight=10.0, pqt_weight=0.0))
    assert np.mean(means[-5:]) < 0.35
