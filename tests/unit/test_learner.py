"""One update: gradients equal to the padded batch's, state that goes on bit for bit, and failures that keep weights."""

import dataclasses
import hashlib
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from altlas.config.sections import Config, ModelSection, ObjectiveSection, OptimizerSection, SamplingSection
from altlas.core.grammar import Unconstrained
from altlas.core.policy import build_policy, policy_sha256
from altlas.core.prefix_tree import build_prefix_tree
from altlas.core.program import ProgramStatus
from altlas.core.sampling import Sampler
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.core.teacher_forcing import TeacherForcing
from altlas.core.vocabulary import parse_vocabulary
from altlas.errors import CheckpointError, LearningError, ProtocolError
from altlas_trainer.trainer import Trainer

VOCABULARY = parse_vocabulary(
    '{"version": 1, "special_tokens": ["<PAD>", "<SOS>", "<EOS>", "<UNK>"], "vocabularies": {"python": ['
    + ", ".join(f'{{"text": "{word}", "kind": "name"}}' for word in "abcdef")
    + "]}}"
)
CPU = torch.device("cpu")
OBJECTIVES = {
    "reinforce": ObjectiveSection(baseline="leave_one_out", pqt_weight=0.0),
    "ema_pqt": ObjectiveSection(baseline="ema", entropy_weight=0.03, pqt_weight=2.0, pqt_size=4),
    "risk_novelty": ObjectiveSection(name="risk_seeking", novelty_weight=0.3, pqt_weight=0.5),
}


def make_config(objective=OBJECTIVES["reinforce"], **model):
    return Config(
        model=ModelSection(**{"embedding": 6, "hidden": 10, **model}),
        sampling=SamplingSection(batch_size=32, max_tokens=9),
        objective=objective,
        optimizer=OptimizerSection(learning_rate=0.02),
    )


def make_trainer(config, tmp_path=None):
    return Trainer(
        config, vocabulary=VOCABULARY, constraint=Unconstrained(VOCABULARY), device=CPU, seed=4, inspection_dir=tmp_path
    )


def draw(trainer, config, update):
    sampler = Sampler(
        trainer.policy,
        constraint=Unconstrained(VOCABULARY),
        vocabulary=VOCABULARY,
        sampling=config.sampling,
        device=CPU,
    )
    return sampler.sample(seed=4, update=update, first_index=0, count=32, policy_version=update)


def judge(batch):
    """Reward the share of a's; behaviour is the program."""
    scores = []
    for row, length in zip(batch.tokens, batch.lengths, strict=True):
        behaviour = hashlib.sha256(row[:length].tobytes()).digest()[:16]
        share = float((row[:length] == VOCABULARY.id_of["a"]).mean())
        scores.append(Score(status=ProgramStatus.OK, reward=share, behaviour=behaviour))
    return batch_scores(scores)


def run_updates(trainer, config, updates):
    for update in updates:
        batch = draw(trainer, config, update)
        trainer.learn(batch, judge(batch), update=update)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("model", [{}, {"cell": "gru", "layers": 2}], ids=["lstm", "gru2"])
def test_a_new_trainer_with_the_state_goes_on_bit_for_bit(objective, model):
    config = make_config(objective, **model)
    straight = make_trainer(config)
    run_updates(straight, config, range(6))
    first = make_trainer(config)
    run_updates(first, config, range(3))
    tensors, meta = first.state_dict()
    run_updates(first, config, range(3, 4))  # a state is a copy: what its trainer does later does not reach it
    second = make_trainer(config)
    second.load_state(tensors, json.loads(json.dumps(meta)))
    run_updates(second, config, range(3, 6))
    assert second.updates == 6
    assert policy_sha256(second.policy) == policy_sha256(straight.policy)
    for name, tensor in straight.state_dict()[0].items():
        assert torch.equal(second.state_dict()[0][name], tensor), name


def test_a_state_before_the_first_update_can_be_loaded():
    config = make_config()
    trainer = make_trainer(config)
    trainer.load_state(*make_trainer(config).state_dict())
    run_updates(trainer, config, range(1))
    assert trainer.updates == 1


def test_a_state_that_lacks_parts_names_them():
    tensors, meta = make_trainer(make_config()).state_dict()
    del tensors["queue.tokens"]
    with pytest.raises(CheckpointError, match=r"queue\.tokens"):
        make_trainer(make_config()).load_state(tensors, meta)


def test_metrics_tell_what_happened():
    config = make_config(OBJECTIVES["ema_pqt"])
    trainer = make_trainer(config)
    batch = draw(trainer, config, 0)
    scores = judge(batch)
    report = trainer.learn(batch, scores, update=0)
    rewards = scores.rewards
    metrics = report.metrics
    assert report.policy_version == 1
    assert metrics["mean_reward"] == pytest.approx(np.mean(rewards))
    assert metrics["max_reward"] == metrics["queue_best"] == max(rewards)
    assert metrics["advantage_std"] == pytest.approx(np.std(rewards))
    # The policy has not moved between sampling and the update's forward pass.
    assert metrics["entropy"] == pytest.approx(batch.entropies.sum() / batch.lengths.sum(), rel=1e-5)
    advantages = rewards - rewards.mean()
    assert metrics["policy_loss"] == pytest.approx(-(advantages * batch.log_probs.sum(axis=1)).mean(), abs=1e-6)
    assert metrics["loss"] == pytest.approx(
        metrics["policy_loss"] + 2.0 * metrics["pqt_loss"] - 0.03 * metrics["entropy"], abs=1e-6
    )
    assert metrics["gradient_norm"] > 0


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_equal_those_of_one_padded_batch(cell, layers):
    """The padded side is nn.LSTM or nn.GRU under autograd, with every softmax written out."""
    policy = build_policy(ModelSection(embedding=6, hidden=10, cell=cell, layers=layers), len(VOCABULARY), seed=1)
    config = make_config()
    trainer = make_trainer(config)
    batch = draw(trainer, config, 0)
    assert len(set(batch.lengths.tolist())) > 3
    tokens = np.concatenate([batch.tokens, batch.tokens[:5]])  # with duplicates
    lengths = np.concatenate([batch.lengths, batch.lengths[:5]])
    generator = torch.Generator().manual_seed(0)
    w, v = torch.randn(37, generator=generator), torch.randn(37, generator=generator)

    forcing = TeacherForcing(
        policy,
        constraint=Unconstrained(VOCABULARY),
        vocabulary=VOCABULARY,
        max_tokens=9,
        temperature=1.3,
        device=CPU,
    )
    values = forcing.evaluate(tokens, lengths)
    (-(w * values.log_probs).sum() - (v * values.entropies).sum()).backward()
    found = {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}

    policy.zero_grad()
    inputs = torch.from_numpy(np.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=VOCABULARY.sos_id))
    logits, _ = policy(inputs)
    log_prob_sums, entropy_sums = [], []
    for row, length in enumerate(lengths.tolist()):
        log_prob_sum, entropy_sum = 0.0, 0.0
        for step in range(length):
            legal = Unconstrained(VOCABULARY).legal(np.array([0]), remaining=9 - step)[0]
            probabilities = torch.softmax(logits[row, step, torch.from_numpy(legal)] / 1.3, dim=0)
            position = legal[: tokens[row, step]].sum()
            log_prob_sum = log_prob_sum + probabilities[position].log()
            entropy_sum = entropy_sum - (probabilities * probabilities.log()).sum()
        log_prob_sums.append(log_prob_sum)
        entropy_sums.append(entropy_sum)
    log_probs, entropies = torch.stack(log_prob_sums), torch.stack(entropy_sums)
    (-(w * log_probs).sum() - (v * entropies).sum()).backward()
    torch.testing.assert_close(values.log_probs.detach(), log_probs.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values.entropies.detach(), entropies.detach(), rtol=1e-4, atol=1e-5)
    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@given(
    programs=st.lists(st.lists(st.integers(3, 6), max_size=5).map(lambda body: (*body, 2)), min_size=1, max_size=12),
)
def test_the_tree_has_one_node_per_distinct_proper_prefix(programs):
    lengths = np.array([len(program) for program in programs])
    tokens = np.zeros((len(programs), lengths.max()), dtype=np.int64)
    for row, program in enumerate(programs):
        tokens[row, : len(program)] = program
    tree = build_prefix_tree(tokens, lengths, sos_id=1)
    prefixes = []
    for node, (parent, token) in enumerate(zip(tree.parents.tolist(), tree.tokens.tolist(), strict=True)):
        assert parent < node
        prefixes.append(() if parent < 0 else (*prefixes[parent], token))
    assert sorted(prefixes) == sorted({program[:end] for program in programs for end in range(len(program))})
    assert [len(prefix) for prefix in prefixes] == sorted(len(prefix) for prefix in prefixes)
    for level, (first, end) in enumerate(pairwise(tree.bounds)):
        assert {len(prefix) for prefix in prefixes[first:end]} == {level}
    steps = zip(tree.step_programs.tolist(), tree.step_nodes.tolist(), tree.step_tokens.tolist(), strict=True)
    expected = [
        (row, program[:end], program[end]) for row, program in enumerate(programs) for end in range(len(program))
    ]
    assert sorted((row, prefixes[node], token) for row, node, token in steps) == sorted(expected)


def test_a_program_that_could_not_be_sampled_is_refused():
    config = make_config()
    trainer = make_trainer(config)
    batch = draw(trainer, config, 0)
    tokens = batch.tokens.copy()
    tokens[7, 0] = VOCABULARY.unk_id
    with pytest.raises(ProtocolError, match=r"trajectory 7: '<UNK>' is not legal|cannot follow"):
        trainer.learn(dataclasses.replace(batch, tokens=tokens), judge(batch), update=0)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_equal_rewards_leave_everything_finite(objective):
    config = make_config(objective)
    trainer = make_trainer(config)
    batch = draw(trainer, config, 0)
    scores = batch_scores([Score(status=ProgramStatus.OK, reward=0.25, behaviour=bytes(16))] * 32)
    report = trainer.learn(batch, scores, update=0)
    assert all(np.isfinite(value) for value in report.metrics.values())
    assert all(torch.isfinite(parameter).all() for parameter in trainer.policy.parameters())


def test_a_batch_of_one_can_be_learned_from():
    config = make_config()
    trainer = make_trainer(config)
    batch = draw(trainer, config, 0)
    one = batch.part(0, 1)
    report = trainer.learn(one, judge(one), update=0)
    assert all(np.isfinite(value) for value in report.metrics.values())


def test_a_loss_that_is_not_finite_keeps_the_weights_and_saves_the_batch(tmp_path):
    config = make_config()
    trainer = make_trainer(config, tmp_path)
    run_updates(trainer, config, range(2))
    before = policy_sha256(trainer.policy)
    batch = draw(trainer, config, 2)
    scores = judge(batch)
    scores.rewards[3] = float("nan")
    with pytest.raises(LearningError, match="not finite") as caught:
        trainer.learn(batch, scores, update=2)
    assert policy_sha256(trainer.policy) == before
    assert trainer.updates == 2
    (path,) = tmp_path.iterdir()
    assert str(path) in str(caught.value)
    saved = load_file(path)
    assert np.array_equal(saved["tokens"].numpy(), batch.tokens)
    assert saved["rewards"].isnan().sum() == 1
    assert torch.equal(saved["policy.output.bias"], trainer.policy.state_dict()["output.bias"])


def test_reinitialise_draws_new_weights_and_does_not_learn_from_the_old_ones_batch():
    config = make_config(OBJECTIVES["ema_pqt"])
    trainer = make_trainer(config)
    run_updates(trainer, config, range(2))
    batch = draw(trainer, config, 2)
    report = trainer.learn(batch, judge(batch), update=2, reinitialise=True)
    fresh = build_policy(config.model, len(VOCABULARY), seed=4, restart_index=1)
    assert report.policy_version == 3
    assert trainer.restarts == 1
    assert policy_sha256(trainer.policy) == policy_sha256(fresh)
    assert report.metrics["mean_reward"] == pytest.approx(judge(batch).rewards.mean())
    run_updates(trainer, config, range(3, 5))
    restored = make_trainer(config)
    restored.load_state(*trainer.state_dict())
    assert restored.restarts == 1


@pytest.mark.parametrize(
    ("update", "scored", "message"), [(5, 32, "0 updates are done"), (0, 31, "32 trajectories with 31 scores")]
)
def test_what_does_not_fit_is_refused(update, scored, message):
    config = make_config()
    trainer = make_trainer(config)
    batch = draw(trainer, config, 0)
    with pytest.raises(ProtocolError, match=message):
        trainer.learn(batch, judge(batch).take(np.arange(scored)), update=update)
    assert trainer.updates == 0
