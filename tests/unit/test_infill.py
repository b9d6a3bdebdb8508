"""Infilling against a literal one: the whole prefix through the network for each token, every program on its own."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_programs import sample
from scored import children_of, lists_of, toy_vocabulary

from altlas.config.sections import ModelSection, ProposalsSection, SamplingSection
from altlas.core import grammar
from altlas.core.grammar import FixedLength, GrammarConstraint, Unconstrained
from altlas.core.infill import CUT_UNIFORMS, Cuts, Infill, draw_cuts
from altlas.core.mutation import Children
from altlas.core.policy import build_policy
from altlas.core.rng import uniform
from altlas.core.vocabulary import parse_vocabulary
from altlas.tasks import load_vocabulary_text

TOY = toy_vocabulary("abcdef")
PYTHON = parse_vocabulary(load_vocabulary_text(""))
CPU = torch.device("cpu")
torch.set_num_threads(1)  # as in a run
LONGEST = 9
MODELS = {
    "lstm": ModelSection(embedding=5, hidden=8),
    "lstm3": ModelSection(embedding=5, hidden=8, layers=3),
    "gru2": ModelSection(cell="gru", embedding=5, hidden=8, layers=2),
}
ELITES = [[4, 5, 6], [], [7] * LONGEST, [9, 4, 9, 4, 5]]


def make_infill(policy, elites, constraint, *, vocabulary=TOY, longest=LONGEST, **sampling):
    return Infill(
        policy,
        elites,
        constraint=constraint,
        vocabulary=vocabulary,
        sampling=SamplingSection(max_tokens=longest + 1, **sampling),
        longest=longest,
        device=CPU,
    )


def infill_literally(policy, constraint, parent, cut, index, *, vocabulary, max_tokens, temperature):
    """One program; `cut` is start, removed, inserted."""
    start, removed, inserted = cut
    node = np.array([constraint.start])
    for token in parent[:start]:
        node = constraint.advance(node, np.array([token]))
    written = list(parent[:start])
    for step in range(inserted):
        legal = constraint.legal(node, remaining=max_tokens)[0]
        legal[[vocabulary.eos_id, vocabulary.pad_id]] = False
        if not legal.any():
            break
        with torch.no_grad():
            logits = policy(torch.tensor([[vocabulary.sos_id, *written]]))[0][0, -1]
        log_probs = (logits / temperature).masked_fill(~torch.from_numpy(legal), -torch.inf).log_softmax(dim=0)
        noise = uniform(3, "x", update=2, first_index=index, count=1, per_index=len(vocabulary), step=step)[0]
        token = int(np.argmax(log_probs.double().numpy() - np.log(-np.log(noise.astype(np.float64)))))
        written.append(token)
        node = constraint.advance(node, np.array([token]))
    return written + list(parent[start + removed :])


def draw(infill, parents, cuts, indices):
    drawn = infill.draw(parents, cuts, seed=3, purpose="x", update=2, indices=indices)
    return lists_of(drawn.tokens, drawn.lengths)


def random_cuts(lengths, count, *, longest=LONGEST, inserted=2.5):
    """Parents in turn, and cuts of all kinds."""
    parents = np.arange(count) % len(lengths)
    uniforms = uniform(1, "cut", update=0, first_index=0, count=count, per_index=CUT_UNIFORMS)
    section = ProposalsSection(infill_inserted=inserted, infill_removed=1.0)
    return parents, draw_cuts(lengths[parents], uniforms, longest=longest, section=section)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("kind", [Unconstrained, FixedLength])
def test_children_equal_the_literal_ones(model, kind):
    policy, constraint, elites = build_policy(model, len(TOY), seed=3), kind(TOY), children_of(ELITES)
    infill = make_infill(policy, elites, constraint, temperature=0.8)
    parents, cuts = random_cuts(elites.lengths, 60)
    indices = np.arange(60) * 3 + 5
    found = draw(infill, parents, cuts, indices)
    for row, index in enumerate(indices.tolist()):
        cut = [int(part[row]) for part in (cuts.start, cuts.removed, cuts.inserted)]
        assert found[row] == infill_literally(
            policy,
            constraint,
            ELITES[parents[row]],
            cut,
            index,
            vocabulary=TOY,
            max_tokens=LONGEST + 1,
            temperature=0.8,
        )
    assert max(map(len, found)) <= LONGEST


def test_a_range_gives_the_same_bytes_and_its_parts_the_same_programs():
    elites = children_of(ELITES)
    infill = make_infill(build_policy(MODELS["lstm"], len(TOY), seed=3), elites, Unconstrained(TOY))
    parents, cuts = random_cuts(elites.lengths, 64)
    indices = np.arange(64)
    whole = draw(infill, parents, cuts, indices)
    assert draw(infill, parents, cuts, indices) == whole
    for first, last in [(0, 1), (1, 40), (40, 64)]:
        part = Cuts(*(array[first:last] for array in (cuts.start, cuts.removed, cuts.inserted)))
        assert draw(infill, parents[first:last], part, indices[first:last]) == whole[first:last]


def test_a_drawn_token_follows_the_tempered_policy_at_its_prefix():
    policy, count = build_policy(MODELS["lstm"], len(TOY), seed=3), 20_000
    with torch.no_grad():
        policy.output.bias += torch.linspace(0.0, 2.0, len(TOY))
        logits = policy(torch.tensor([[TOY.sos_id, 4, 5]]))[0][0, -1]
    probabilities = torch.softmax(logits[4:] / 0.7, dim=0).numpy()
    infill = make_infill(policy, children_of([[4, 5, 6]]), Unconstrained(TOY), temperature=0.7)
    ones = np.ones(count, dtype=np.int64)
    found = np.array(draw(infill, 0 * ones, Cuts(2 * ones, 0 * ones, ones), np.arange(count)))
    assert (found[:, [0, 1, 3]] == [4, 5, 6]).all()
    counts, expected = np.bincount(found[:, 2], minlength=len(TOY))[4:], probabilities * count
    assert ((counts - expected) ** 2 / expected).sum() < 23.0  # 5 degrees of freedom: once in 3,000 keys, fixed key


@functools.cache
def python_constraint():
    return GrammarConstraint(PYTHON)


@functools.cache
def python_elites():
    tokens = sample(python_constraint(), 12, 20, seed=1)
    lengths = (tokens == PYTHON.eos_id).argmax(axis=1)
    return Children(np.where(np.arange(20) < lengths[:, None], tokens, 0), lengths)


@pytest.mark.parametrize("most_rows", [grammar._MOST_ROWS, 0], ids=["kept", "dropped"])
def test_new_parts_follow_the_grammar_though_its_tables_are_dropped(monkeypatch, most_rows):
    """Every token drawn may follow what stands before it; the first draws after the tables are gone."""
    constraint, elites = GrammarConstraint(PYTHON), python_elites()
    policy = build_policy(MODELS["lstm"], len(PYTHON), seed=3)
    infill = make_infill(policy, elites, constraint, vocabulary=PYTHON, longest=29)
    monkeypatch.setattr(grammar, "_MOST_ROWS", most_rows)
    constraint.legal(np.array([constraint.start]), remaining=30)
    parents, cuts = random_cuts(elites.lengths, 48, longest=29)
    found = draw(infill, parents, cuts, np.arange(48))
    monkeypatch.undo()
    programs = lists_of(elites.tokens, elites.lengths)
    for row, parent in enumerate(parents.tolist()):
        cut = [int(part[row]) for part in (cuts.start, cuts.removed, cuts.inserted)]
        assert found[row] == infill_literally(
            policy,
            python_constraint(),
            programs[parent],
            cut,
            row,
            vocabulary=PYTHON,
            max_tokens=30,
            temperature=1.0,
        )


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    seed=st.integers(0, 2**32),
    inserted=st.sampled_from([1.0, 2.0, 50.0]),
    removed=st.sampled_from([0.0, 1.0, 50.0]),
)
def test_cuts_lie_in_the_program_and_leave_room(lengths, seed, inserted, removed):
    sizes = np.array(lengths)
    uniforms = uniform(seed, "cut", update=0, first_index=0, count=len(sizes), per_index=CUT_UNIFORMS)
    section = ProposalsSection(infill_inserted=inserted, infill_removed=removed)
    cuts = draw_cuts(sizes, uniforms, longest=12, section=section)
    assert ((cuts.start >= 0) & (cuts.start <= sizes)).all()
    assert ((cuts.removed >= 0) & (cuts.start + cuts.removed <= sizes)).all()
    assert ((cuts.inserted >= 0) & (sizes - cuts.removed + cuts.inserted <= 12)).all()
    assert (cuts.inserted[sizes - cuts.removed < 12] >= 1).all()
    if removed == 0.0:
        assert not cuts.removed.any()


def test_parts_are_as_long_as_was_asked_on_the_mean():
    uniforms = uniform(1, "cut", update=0, first_index=0, count=20_000, per_index=CUT_UNIFORMS)
    section = ProposalsSection(infill_inserted=3.0, infill_removed=2.0)
    cuts = draw_cuts(np.full(20_000, 1000), uniforms, longest=2000, section=section)
    assert cuts.inserted.mean() == pytest.approx(3.0, abs=0.08)
    assert cuts.removed.mean() == pytest.approx(2.0, abs=0.08)
    assert cuts.start.mean() == pytest.approx(500.0, abs=8)
