"""What a batch is made of: a function of (snapshot, seed, update, index), in the configured shares, always legal."""

import functools

import numpy as np
import pytest
import torch
from scored import batch_of, lists_of, scores_of, toy_vocabulary

from altlas.config.sections import (
    AlgorithmSection,
    ArchiveSection,
    Config,
    ModelSection,
    ProposalsSection,
    SamplingSection,
)
from altlas.core import grammar
from altlas.core.archive import Archive
from altlas.core.genetic import ELITES
from altlas.core.grammar import build_constraint
from altlas.core.javascript_tokenizer import JavaScriptTokenizer
from altlas.core.policy import build_policy, tensors_from_bytes, tensors_to_bytes
from altlas.core.proposals import Origin, alphabet, build_proposer, elites_to_tensors, next_population
from altlas.core.sampling import Sampler
from altlas.core.tokenizer import Tokenizer
from altlas.core.vocabulary import parse_vocabulary
from altlas.tasks import load_vocabulary_text
from altlas_evaluator.languages import javascript

CPU = torch.device("cpu")
torch.set_num_threads(1)  # as in a run
COUNT = 192
FIELDS = ("indices", "tokens", "lengths", "origins")
SHARES = ProposalsSection(mutation=0.5, infill=0.3)


@functools.cache
def vocabulary_of(language):
    return parse_vocabulary(load_vocabulary_text(""), name=language)


@functools.cache
def constraint_of(language, length="free"):
    has_grammar = language in ("python", "javascript")
    return build_constraint(
        vocabulary_of(language), language=language, grammar="language" if has_grammar else "none", length=length
    )


def make_config(*, name="policy", language="python", length="free", proposals=SHARES):
    is_free = language == "brainf" or length == "fixed"
    return Config(
        algorithm=AlgorithmSection(name=name),
        model=ModelSection(embedding=6, hidden=12),
        sampling=SamplingSection(
            batch_size=COUNT, max_tokens=24, length=length, grammar="none" if is_free else "language"
        ),
        archive=ArchiveSection(size=8, per_case=2),
        proposals=proposals,
    )


def snapshot_of(config, language, *, with_archive=True):
    """Random weights, and an archive of what they sample."""
    vocabulary = vocabulary_of(language)
    policy = build_policy(config.model, len(vocabulary), seed=1)
    snapshot = {f"policy.{name}": tensor for name, tensor in policy.state_dict().items()}
    if with_archive:
        constraint = constraint_of(language, config.sampling.length)
        sampler = Sampler(policy, constraint=constraint, vocabulary=vocabulary, sampling=config.sampling, device=CPU)
        batch = sampler.sample(seed=9, update=0, first_index=0, count=40, policy_version=0)
        archive = Archive(config.archive)
        archive.offer(batch, scores_of(np.linspace(0, 1, 40).tolist(), range(40), np.eye(40)[:, :3].tolist()))
        snapshot |= elites_to_tensors(archive.elites())
    return tensors_from_bytes(tensors_to_bytes(snapshot))


def make_proposer(config, language, snapshot):
    return build_proposer(
        snapshot,
        config,
        vocabulary=vocabulary_of(language),
        constraint=constraint_of(language, config.sampling.length),
        device=CPU,
    )


def propose(proposer, *, update=3, first=0, count=COUNT, seed=7):
    return proposer.propose(seed=seed, update=update, first_index=first, count=count, policy_version=5)


def programs_of(batch):
    return lists_of(batch.tokens, batch.lengths)


def assert_splits_are_equal(proposer, cuts):
    whole = propose(proposer)
    parts = [propose(proposer, first=first, count=last - first) for first, last in cuts]
    assert [program for part in parts for program in programs_of(part)] == programs_of(whole)
    for name in ("indices", "lengths", "origins"):
        assert np.concatenate([getattr(part, name) for part in parts]).tolist() == getattr(whole, name).tolist()
    again = propose(proposer)
    for name in (*FIELDS, "log_probs", "entropies"):
        assert getattr(again, name).tobytes() == getattr(whole, name).tobytes(), name
    return whole


CUTS = [(0, 1), (1, 64), (64, 65), (65, 100), (100, COUNT)]


@pytest.mark.parametrize("language", ["python", "javascript", "brainf"])
@pytest.mark.parametrize("name", ["policy", "ga_archive", "random"])
def test_any_split_gives_the_same_legal_programs(language, name):
    config = make_config(name=name, language=language)
    proposer = make_proposer(config, language, snapshot_of(config, language))
    batch = assert_splits_are_equal(proposer, CUTS)
    vocabulary = vocabulary_of(language)
    assert batch.policy_version == 5
    assert batch.indices.tolist() == list(range(COUNT))
    constraint_of(language).replay(batch.tokens, batch.lengths, max_tokens=24)
    assert (batch.tokens == vocabulary.eos_id).sum(axis=1).tolist() == [1] * COUNT
    assert (batch.tokens[np.arange(COUNT), batch.lengths - 1] == vocabulary.eos_id).all()
    for row in batch.tokens:
        if language == "python":
            compile(Tokenizer(vocabulary).decode(row), "program", "exec")
        if language == "javascript":
            javascript.prepare()
            javascript.compile(JavaScriptTokenizer(vocabulary).decode(row).encode())


def test_dropped_grammar_tables_change_nothing(monkeypatch):
    config = make_config()
    proposer = make_proposer(config, "python", snapshot_of(config, "python"))
    expected = propose(proposer)
    monkeypatch.setattr(grammar, "_MOST_ROWS", 0)
    found = propose(proposer)
    for name in FIELDS:
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name


@pytest.mark.parametrize(
    ("name", "proposals", "shares"),
    [
        ("policy", SHARES, (0.2, 0.5, 0.3)),
        ("policy", ProposalsSection(mutation=0.25), (0.75, 0.25, 0.0)),
        ("policy", ProposalsSection(mutation=0.0, infill=1.0), (0.0, 0.0, 1.0)),
        ("policy", ProposalsSection(), (0.1, 0.9, 0.0)),
        ("ga_archive", SHARES, (0.0, 1.0, 0.0)),
        ("random", SHARES, (1.0, 0.0, 0.0)),
    ],
)
def test_origins_come_in_the_configured_shares(name, proposals, shares):
    config = make_config(name=name, language="brainf", proposals=proposals)
    proposer = make_proposer(config, "brainf", snapshot_of(config, "brainf"))
    origins = propose(proposer, count=4000).origins
    assert np.bincount(origins, minlength=4) / 4000 == pytest.approx([*shares, 0.0], abs=0.025)


def test_sampled_programs_are_those_of_the_sampler_with_their_probabilities():
    config = make_config()
    snapshot = snapshot_of(config, "python")
    batch = propose(make_proposer(config, "python", snapshot))
    plain = propose(make_proposer(make_config(proposals=ProposalsSection(mutation=0.0)), "python", snapshot))
    rows = np.flatnonzero(batch.origins == Origin.SAMPLED)
    assert 0 < len(rows) < COUNT
    assert programs_of(batch.take(rows)) == programs_of(plain.take(rows))
    for name in ("log_probs", "entropies"):
        found, expected = getattr(batch, name)[rows], getattr(plain, name)[rows]
        width = min(found.shape[1], expected.shape[1])
        np.testing.assert_allclose(found[:, :width], expected[:, :width], atol=1e-5)
    varied = batch.take(np.flatnonzero(batch.origins != Origin.SAMPLED))
    assert not varied.log_probs.any()
    assert not varied.entropies.any()


def test_rows_that_are_not_asked_for_are_left_empty():
    config = make_config()
    vocabulary, constraint = vocabulary_of("python"), constraint_of("python")
    policy = build_policy(config.model, len(vocabulary), seed=1)
    sampler = Sampler(policy, constraint=constraint, vocabulary=vocabulary, sampling=config.sampling, device=CPU)
    where = {"seed": 7, "update": 3, "first_index": 10, "count": 40, "policy_version": 0}
    whole, rows = sampler.sample(**where), np.array([0, 3, 4, 39])
    some = sampler.sample(**where, only=rows)
    assert programs_of(some.take(rows)) == programs_of(whole.take(rows))
    assert not np.delete(some.lengths, rows).any()
    assert not np.delete(some.tokens, rows, axis=0).any()
    assert some.indices.tolist() == whole.indices.tolist()
    assert not sampler.sample(**where, only=rows[:0]).lengths.any()


def test_random_draws_every_legal_token_alike():
    config = make_config(name="random", language="brainf")
    batch = propose(make_proposer(config, "brainf", {}), count=9000)
    counts = np.bincount(batch.tokens[:, 0], minlength=len(vocabulary_of("brainf")))
    legal = constraint_of("brainf").legal(np.array([0]), remaining=24)[0]
    expected = 9000 / legal.sum()
    assert not counts[~legal].any()
    assert ((counts[legal] - expected) ** 2 / expected).sum() < 27.9  # 8 degrees of freedom: once in 2,000 keys
    np.testing.assert_allclose(batch.log_probs[:, 0], -np.log(legal.sum()), rtol=1e-5)


@pytest.mark.parametrize("name", ["policy", "ga_archive"])
def test_all_are_sampled_while_there_are_no_elites(name):
    config = make_config(name=name, language="brainf")
    snapshot = snapshot_of(config, "brainf", with_archive=False)
    batch = propose(make_proposer(config, "brainf", snapshot))
    assert not batch.origins.any()


@pytest.mark.parametrize("name", ["policy", "ga_archive"])
def test_programs_of_fixed_length_keep_it_and_have_no_eos(name):
    config = make_config(name=name, language="brainf", length="fixed")
    proposer = make_proposer(config, "brainf", snapshot_of(config, "brainf"))
    batch = assert_splits_are_equal(proposer, CUTS)
    assert batch.lengths.tolist() == [24] * COUNT
    assert np.isin(batch.tokens, alphabet(vocabulary_of("brainf"))).all()
    assert (batch.origins != Origin.SAMPLED).mean() > 0.5


def test_an_empty_elite_and_one_at_the_limit_are_varied():
    config, vocabulary = make_config(language="brainf"), vocabulary_of("brainf")
    archive = Archive(config.archive)
    programs = [[vocabulary.eos_id], [*[vocabulary.id_of["+"]] * 23, vocabulary.eos_id]]
    archive.offer(batch_of(programs), scores_of([1.0, 0.5], [1, 2], [[1.0], [0.0]]))
    snapshot = snapshot_of(config, "brainf", with_archive=False) | elites_to_tensors(archive.elites())
    batch = assert_splits_are_equal(make_proposer(config, "brainf", snapshot), CUTS)
    constraint_of("brainf").replay(batch.tokens, batch.lengths, max_tokens=24)
    assert set(batch.origins.tolist()) == {Origin.SAMPLED, Origin.MUTATED, Origin.INFILLED}


def test_seed_and_update_give_other_programs():
    config = make_config(language="brainf")
    proposer = make_proposer(config, "brainf", snapshot_of(config, "brainf"))
    batches = [programs_of(propose(proposer, seed=seed, update=update)) for seed, update in [(7, 3), (8, 3), (7, 4)]]
    assert batches[0] != batches[1] != batches[2] != batches[0]


def test_the_genetic_algorithm_breeds_from_its_population_in_whole_couples():
    config = make_config(name="ga", language="brainf", length="fixed")
    first = propose(make_proposer(config, "brainf", {}))
    assert first.lengths.tolist() == [24] * COUNT
    assert not first.origins.any()
    rewards = np.linspace(0.0, 1.0, COUNT)
    population = {"population.tokens": torch.from_numpy(first.tokens), "population.rewards": torch.from_numpy(rewards)}
    proposer = make_proposer(config, "brainf", tensors_from_bytes(tensors_to_bytes(population)))
    batch = assert_splits_are_equal(proposer, CUTS)
    assert set(batch.origins.tolist()) == {Origin.BRED}
    assert batch.lengths.tolist() == [24] * COUNT
    assert np.isin(batch.tokens, alphabet(vocabulary_of("brainf"))).all()
    assert propose(proposer, update=4).tokens.tolist() != batch.tokens.tolist()


def test_the_alphabet_is_all_tokens_but_the_special_ones():
    assert alphabet(toy_vocabulary("abc")).tolist() == [4, 5, 6]


def test_a_population_keeps_the_best_two_unlike_programs():
    elites, elite_rewards = np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    history = []
    random = np.random.default_rng(1)
    for _ in range(20):
        tokens = random.integers(4, 7, (3, 2))
        rewards = tokens.sum(axis=1) % 4 / 4.0
        population, fitness, elites, elite_rewards = next_population(tokens, rewards, elites, elite_rewards)
        history += zip(rewards.tolist(), map(tuple, tokens.tolist()), strict=True)
        unlike = {program: (-reward, age) for age, (reward, program) in reversed(list(enumerate(history)))}
        best = sorted(unlike, key=lambda program: unlike[program])[:ELITES]
        assert [tuple(row) for row in elites.tolist()] == best
        assert elite_rewards.tolist() == [-unlike[program][0] for program in best]
        assert population.tolist() == [*tokens.tolist(), *map(list, best)]
        assert fitness.tolist() == [*rewards.tolist(), *elite_rewards.tolist()]
