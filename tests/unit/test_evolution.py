"""Learners with elites: each goes on bit for bit, from what it published the next batch is proposed, in whole runs."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from scored import batch_of, scores_of, toy_vocabulary

from altlas.config.sections import (
    AlgorithmSection,
    ArchiveSection,
    Config,
    ModelSection,
    ObjectiveSection,
    OptimizerSection,
    ProposalsSection,
    SamplingSection,
)
from altlas.core.archive import Archive
from altlas.core.grammar import build_constraint
from altlas.core.policy import tensors_from_bytes, tensors_to_bytes
from altlas.core.proposals import Origin, build_proposer, elites_to_tensors, next_population
from altlas.errors import CheckpointError, ConfigError, ProtocolError
from altlas_trainer.learner import build_learner

VOCABULARY = toy_vocabulary("abcdef")
CPU = torch.device("cpu")
BATCH, LONGEST = 32, 9
VARIED = ProposalsSection(mutation=0.4, infill=0.4)


def make_config(name="policy", *, length="free", proposals=VARIED, **objective):
    return Config(
        algorithm=AlgorithmSection(name=name),
        model=ModelSection(embedding=6, hidden=10),
        sampling=SamplingSection(batch_size=BATCH, max_tokens=LONGEST, grammar="none", length=length),
        archive=ArchiveSection(size=6, per_case=2),
        proposals=proposals,
        objective=ObjectiveSection(**{"pqt_source": "archive", "pqt_weight": 1.0, **objective}),
        optimizer=OptimizerSection(learning_rate=0.02),
    )


CONFIGS = {
    "policy": make_config(),
    "policy_fixed": make_config(length="fixed"),
    "policy_varies_all": make_config(proposals=ProposalsSection(mutation=0.5, infill=0.5)),
    "random": make_config("random"),
    "ga_archive": make_config("ga_archive"),
    "ga": make_config("ga", length="fixed"),
}


def constraint_of(config):
    return build_constraint(VOCABULARY, language="python", grammar="none", length=config.sampling.length)


def make_learner(config):
    return build_learner(config, vocabulary=VOCABULARY, constraint=constraint_of(config), device=CPU, seed=4)


def propose(learner, config, update, *, first=0, count=BATCH):
    published = tensors_from_bytes(tensors_to_bytes(learner.snapshot()))
    proposer = build_proposer(published, config, vocabulary=VOCABULARY, constraint=constraint_of(config), device=CPU)
    return proposer.propose(seed=4, update=update, first_index=first, count=count, policy_version=update)


def judge(batch):
    """Three cases: the share of a's, of b's, and how short it is; the reward is their mean."""
    cases, behaviours = [], []
    for row, length in zip(batch.tokens, batch.lengths.tolist(), strict=True):
        program = row[:length]
        cases.append([float((program == 4).mean()), float((program == 5).mean()), 1.0 - length / 16])
        behaviours.append(int.from_bytes(hashlib.sha256(program.tobytes()).digest()[:12], "big"))
    return scores_of([sum(by_case) / 3 for by_case in cases], behaviours, cases)


def run_updates(learner, config, updates):
    for update in updates:
        batch = propose(learner, config, update)
        learner.learn(batch, judge(batch), update=update)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_new_learner_with_the_state_goes_on_bit_for_bit(config):
    straight, first, second = (make_learner(config) for _ in range(3))
    run_updates(straight, config, range(6))
    run_updates(first, config, range(3))
    tensors, meta = first.state_dict()
    run_updates(first, config, range(3, 5))  # a state is a copy: what its learner does later does not reach it
    second.load_state(tensors_from_bytes(tensors_to_bytes(tensors)), json.loads(json.dumps(meta)))
    run_updates(second, config, range(3, 6))
    assert second.updates == 6
    assert second.sha256() == straight.sha256()
    assert second.state_dict()[1] == straight.state_dict()[1]
    for name, tensor in straight.state_dict()[0].items():
        assert torch.equal(second.state_dict()[0][name], tensor), name
    assert propose(second, config, 6).tokens.tobytes() == propose(straight, config, 6).tokens.tobytes()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_is_proposed_is_learned_from_and_gets_better_but_for_random(config):
    learner = make_learner(config)
    before = judge(propose(learner, config, 0)).rewards.mean()
    run_updates(learner, config, range(12))
    after = judge(propose(learner, config, 12)).rewards.mean()
    assert after > before + 0.05 or config.algorithm.name == "random"
    assert all(np.isfinite(tensor.numpy()).all() for tensor in learner.state_dict()[0].values())


def test_the_snapshot_of_ga_archive_is_the_archive_of_all_that_it_learned():
    config = CONFIGS["ga_archive"]
    learner, archive = make_learner(config), Archive(config.archive)
    assert learner.snapshot() == {}
    for update in range(3):
        batch = propose(learner, config, update)
        report = learner.learn(batch, judge(batch), update=update)
        entered = archive.offer(batch, judge(batch))
        assert report.metrics["archive_entered"] == len(entered)
    expected = elites_to_tensors(archive.elites())
    assert report.metrics["archive_size"] == len(archive)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in learner.snapshot().items())


def test_the_snapshot_of_ga_is_its_population():
    config = CONFIGS["ga"]
    learner = make_learner(config)
    state = (np.zeros((0, LONGEST), dtype=np.int64), np.zeros(0))
    for update in range(3):
        batch = propose(learner, config, update)
        learner.learn(batch, judge(batch), update=update)
        population, rewards, *state = next_population(batch.tokens, judge(batch).rewards, *state)
        snapshot = learner.snapshot()
        assert np.array_equal(snapshot["population.tokens"].numpy(), population)
        assert np.array_equal(snapshot["population.rewards"].numpy(), rewards)
    assert len(population) == BATCH + 2


@pytest.mark.parametrize("name", ["random", "ga", "ga_archive"])
def test_a_restart_begins_anew_and_does_not_keep_the_batch(name):
    config = CONFIGS[name]
    learner = make_learner(config)
    run_updates(learner, config, range(2))
    batch = propose(learner, config, 2)
    assert learner.learn(batch, judge(batch), update=2, reinitialise=True).policy_version == 3
    assert learner.snapshot() == {}
    assert learner.sha256() == make_learner(config).sha256()
    assert learner.state_dict()[1] == {"updates": 3, "restarts": 1}
    assert learner.parameters == 0


@pytest.mark.parametrize("missing", ["population.elites", "archive.tokens"])
def test_a_state_that_lacks_parts_names_them(missing):
    learner = make_learner(CONFIGS["ga"])
    tensors, meta = learner.state_dict()
    del tensors[missing]
    with pytest.raises(CheckpointError, match=missing.removeprefix("archive.")):
        learner.load_state(tensors, meta)


def test_an_update_out_of_turn_is_refused():
    learner = make_learner(CONFIGS["random"])
    batch = propose(learner, CONFIGS["random"], 0)
    with pytest.raises(ProtocolError, match="0 updates are done"):
        learner.learn(batch, judge(batch), update=1)


def test_breeding_needs_a_fixed_length():
    with pytest.raises(ConfigError, match=r"sampling\.length = fixed .* --preset paper-ga"):
        make_learner(make_config("ga"))


def test_only_sampled_programs_enter_the_policy_gradient():
    """Replacing what was not sampled moves no weight while nothing is imitated."""
    config = make_config(pqt_weight=0.0)
    learners = [make_learner(config) for _ in range(2)]
    for learner in learners:
        run_updates(learner, config, range(2))
    batch = propose(learners[0], config, 2)
    scores = judge(batch)
    varied = np.flatnonzero(batch.origins != Origin.SAMPLED)
    assert 0 < len(varied) < BATCH
    tokens, lengths, rewards = batch.tokens.copy(), batch.lengths.copy(), scores.rewards.copy()
    tokens[varied] = 0
    tokens[varied, 0] = VOCABULARY.eos_id
    lengths[varied], rewards[varied] = 1, 0.9
    other = dataclasses.replace(batch, tokens=tokens, lengths=lengths)
    learners[0].learn(batch, scores, update=2)
    learners[1].learn(other, dataclasses.replace(scores, rewards=rewards), update=2)
    assert learners[0].sha256() == learners[1].sha256()


def test_the_archive_is_imitated_and_its_newcomers_are_counted_by_origin():
    config = make_config()
    trainer = make_learner(config)
    programs = [[4, 2], [5, 5, 2], [6, 2], [7, 4, 2]]
    batch = batch_of(programs, origins=[Origin.MUTATED, Origin.INFILLED, Origin.INFILLED, Origin.MUTATED])
    scores = scores_of([0.9, 0.8, 0.7, 0.6], [1, 2, 3, 3], [[0.0]] * 4)
    with torch.no_grad():
        logits = [trainer.policy(torch.tensor([[1, *program[:-1]]]))[0][0] for program in programs[:3]]
    legal = [token not in (0, 1, 3) for token in range(len(VOCABULARY))]
    literal = 0.0
    for program, steps in zip(programs[:3], logits, strict=True):
        log_probs = steps.masked_fill(~torch.tensor(legal), -torch.inf).log_softmax(dim=1)
        literal -= sum(float(row[token]) for row, token in zip(log_probs, program, strict=True)) / len(program) / 3
    metrics = trainer.learn(batch, scores, update=0).metrics
    assert metrics["pqt_loss"] == pytest.approx(literal, rel=1e-5)
    assert metrics["loss"] == pytest.approx(literal, rel=1e-5)
    assert (metrics["archive_size"], metrics["entered_sampled"]) == (3, 0)
    assert (metrics["entered_mutated"], metrics["entered_infilled"]) == (1, 2)


def test_a_policy_without_elites_publishes_its_weights_alone():
    config = make_config(proposals=ProposalsSection(mutation=0.0), pqt_source="queue")
    trainer = make_learner(config)
    run_updates(trainer, config, range(1))
    assert {name.partition(".")[0] for name in trainer.snapshot()} == {"policy"}
    assert not len(trainer.state_dict()[0]["archive.rewards"])
