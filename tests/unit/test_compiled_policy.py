"""The policy's compiled loops against torch's and numpy's: the same numbers, whatever is computed beside them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scored import toy_vocabulary

from altlas.config.sections import ModelSection, SamplingSection
from altlas.core import prefix_tree
from altlas.core.folded import FoldedPolicy
from altlas.core.grammar import FixedLength, Unconstrained
from altlas.core.lstm_kernel import add_product, sigmoid
from altlas.core.philox import uniform_rows
from altlas.core.policy import build_policy
from altlas.core.prefix_tree import build_prefix_tree, tree_logits
from altlas.core.rng import uniform
from altlas.core.sampling import Sampler, masks_by_place
from altlas.core.teacher_forcing import TeacherForcing
from altlas.errors import ProtocolError

TOY = toy_vocabulary("abcdef")
CPU = torch.device("cpu")
MAX_TOKENS = 12
torch.set_num_threads(1)  # as in a run


class Slow(Unconstrained):
    """The same masks from a class of its own, for which nothing is compiled."""


class SlowFixedLength(FixedLength):
    """See Slow."""


def make_policy(hidden=9, **model):
    return build_policy(ModelSection(embedding=5, hidden=hidden, **model), len(TOY), seed=3)


def draw(policy, constraint, *, first_index=0, count=40, only=None, **sampling):
    sampler = Sampler(
        policy,
        constraint=constraint(TOY),
        vocabulary=TOY,
        sampling=SamplingSection(max_tokens=MAX_TOKENS, grammar="none", **sampling),
        device=CPU,
    )
    return sampler.sample(seed=5, update=2, first_index=first_index, count=count, policy_version=0, only=only)


@pytest.mark.parametrize("per_index", [1, 7, 8, 9, 38])
@pytest.mark.parametrize("step", [0, 39])
def test_rows_are_those_of_the_whole_range(per_index, step):
    whole = uniform(2**62, "rows", update=9, first_index=1000, count=50, per_index=per_index, step=step)
    indices = np.array([1000, 1003, 1049])
    rows = uniform_rows(2**62, "rows", update=9, indices=indices, per_index=per_index, step=step)
    assert rows.tobytes() == whole[indices - 1000].tobytes()
    assert uniform_rows(1, "rows", update=9, indices=indices[:0], per_index=3).shape == (0, 3)


def apply_sigmoid(values):
    powers = np.empty(len(values), dtype=np.int32)
    sigmoid(values, powers, powers.view(np.float32))
    return values


def test_sigmoid_is_within_float_error_of_the_formula():
    values = np.concatenate([np.linspace(-100, 100, 20_001), [0.0, -0.0, 1e-30, 1e4, -1e4]]).astype(np.float32)
    expected = torch.from_numpy(values).double().sigmoid().numpy()
    np.testing.assert_allclose(apply_sigmoid(values.copy()), expected, rtol=2e-6, atol=1e-37)


def test_sigmoid_of_nan_is_nan_and_touches_nothing_beside():
    out = apply_sigmoid(np.array([math.nan, math.inf, -math.inf, 0.0], dtype=np.float32))
    assert math.isnan(out[0])
    assert out[1:].tolist() == pytest.approx([1.0, 0.0, 0.5])


@pytest.mark.parametrize(("count", "inner", "width"), [(1, 1, 1), (4, 4, 16), (7, 9, 36), (13, 64, 256), (0, 4, 4)])
def test_product_is_numpys_and_does_not_depend_on_the_rows_beside(count, inner, width):
    random = np.random.default_rng(1)
    rows, weight, out = (
        random.normal(size=size).astype(np.float32) for size in ((count + 1, inner), (inner, width), (count + 1, width))
    )
    expected = out.copy()
    expected[:count] += rows[:count] @ weight
    together = out.copy()
    add_product(together, rows, weight, count)
    np.testing.assert_allclose(together, expected, rtol=1e-5, atol=1e-5)
    for row in range(count):
        alone = out[row : row + 1].copy()
        add_product(alone, rows[row : row + 1].copy(), weight, 1)
        assert alone.tobytes() == together[row].tobytes()


@pytest.mark.parametrize(
    ("fast", "slow", "sampling"),
    [
        (Unconstrained, Slow, {}),
        (Unconstrained, Slow, {"temperature": 0.5}),
        (FixedLength, SlowFixedLength, {"length": "fixed"}),
    ],
    ids=["free", "tempered", "fixed"],
)
@pytest.mark.parametrize(("hidden", "layers"), [(9, 1), (64, 1), (9, 3)])
@pytest.mark.parametrize("only", [None, np.array([0, 3, 38])], ids=["all", "some"])
def test_compiled_sampling_draws_what_torch_draws(fast, slow, sampling, hidden, layers, only):
    policy = make_policy(hidden, layers=layers, output_bias=hidden == 9)
    ours, theirs = (draw(policy, constraint, only=only, **sampling) for constraint in (fast, slow))
    assert ours.tokens.tolist() == theirs.tokens.tolist()
    assert ours.lengths.tolist() == theirs.lengths.tolist()
    np.testing.assert_allclose(ours.log_probs, theirs.log_probs, atol=1e-5)
    np.testing.assert_allclose(ours.entropies, theirs.entropies, atol=1e-5)


@given(cut=st.integers(1, 39), layers=st.integers(1, 2))
def test_compiled_sampling_gives_the_same_bytes_for_any_split(cut, layers):
    policy = make_policy(layers=layers)
    whole = draw(policy, Unconstrained)
    parts = [draw(policy, Unconstrained, count=cut), draw(policy, Unconstrained, first_index=cut, count=40 - cut)]
    for name in ("tokens", "log_probs", "entropies"):
        for part, rows in zip(parts, (slice(0, cut), slice(cut, 40)), strict=True):
            array = getattr(part, name)
            assert array.tobytes() == getattr(whole, name)[rows, : array.shape[1]].tobytes()


def test_lstms_are_compiled():
    assert FoldedPolicy(make_policy()).arrays() is not None
    assert FoldedPolicy(make_policy(layers=2)).arrays() is not None
    assert FoldedPolicy(make_policy(cell="gru")).arrays() is None


def test_masks_by_place_are_those_of_the_constraint():
    for constraint in (Unconstrained(TOY), FixedLength(TOY)):
        masks = masks_by_place(constraint, MAX_TOKENS)
        for place in range(MAX_TOKENS):
            legal = constraint.legal(np.array([constraint.start]), remaining=MAX_TOKENS - place)
            assert masks[place].tolist() == legal[0].tolist()
    assert masks_by_place(Slow(TOY), MAX_TOKENS) is None


def programs_of(lists):
    tokens = np.zeros((len(lists), max(map(len, lists))), dtype=np.int64)
    for row, program in enumerate(lists):
        tokens[row, : len(program)] = program
    return tokens, np.array([len(program) for program in lists], dtype=np.int64)


def tree_literally(lists, sos_id):
    """Levels of prefixes, those of a level by their parent's place and then their last token."""
    levels, place = [[()]], {(): 0}
    while True:
        depth = len(levels)
        found = {tuple(program[:depth]) for program in lists if len(program) > depth}
        if not found:
            break
        levels.append(sorted(found, key=lambda prefix: (place[prefix[:-1]], prefix[-1])))
        place |= {prefix: len(place) + number for number, prefix in enumerate(levels[-1])}
    nodes = [prefix for level in levels for prefix in level]
    steps = [
        (place[tuple(program[:step])], program[step], row)
        for step in range(max(map(len, lists)))
        for row, program in enumerate(lists)
        if len(program) > step
    ]
    bounds = np.cumsum([0, *map(len, levels)]).tolist()
    parents = [place[prefix[:-1]] if prefix else -1 for prefix in nodes]
    return bounds, parents, [prefix[-1] if prefix else sos_id for prefix in nodes], steps


@given(st.lists(st.lists(st.integers(4, 7), min_size=1, max_size=6), min_size=1, max_size=12))
def test_tree_equals_the_literal_one(lists):
    tree = build_prefix_tree(*programs_of(lists), sos_id=1)
    bounds, parents, tokens, steps = tree_literally(lists, 1)
    assert list(tree.bounds) == bounds
    assert tree.parents.tolist() == parents
    assert tree.tokens.tolist() == tokens
    assert list(zip(tree.step_nodes, tree.step_tokens, tree.step_programs, strict=True)) == steps


@pytest.mark.parametrize(("hidden", "layers"), [(9, 1), (64, 1), (128, 1), (8, 3)])
def test_compiled_gradients_over_the_tree_are_torchs(monkeypatch, hidden, layers):
    random = np.random.default_rng(2)
    lists = [random.integers(4, 8, random.integers(1, 15)).tolist() for _ in range(40)]
    tree = build_prefix_tree(*programs_of(lists), sos_id=TOY.sos_id)
    towards = torch.from_numpy(random.normal(size=(len(tree.parents), len(TOY)))).float()
    found = []
    for widest in (128, 0):
        monkeypatch.setattr(prefix_tree, "_WIDEST_COMPILED", widest)
        policy = make_policy(hidden, layers=layers)
        logits = tree_logits(policy, tree)
        (logits * towards).mean().backward()
        found.append([logits.detach(), *(parameter.grad for parameter in policy.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_weights_that_are_not_finite_are_seen_in_the_loss():
    policy = make_policy()
    with torch.no_grad():
        policy.rnn.weight_hh_l0[3, 3] = math.nan
    forcing = TeacherForcing(
        policy, constraint=Unconstrained(TOY), vocabulary=TOY, max_tokens=MAX_TOKENS, temperature=1.0, device=CPU
    )
    assert not forcing.evaluate(*programs_of([[4, 5, TOY.eos_id]])).log_probs.isfinite().all()


@pytest.mark.parametrize(
    "program", [[4, 1, TOY.eos_id], [4, TOY.eos_id, 4, TOY.eos_id], [4] * (MAX_TOKENS + 1)], ids=["sos", "eos", "long"]
)
def test_what_the_sampler_cannot_have_drawn_is_refused(program):
    forcing = TeacherForcing(
        make_policy(), constraint=Unconstrained(TOY), vocabulary=TOY, max_tokens=MAX_TOKENS, temperature=1.0, device=CPU
    )
    with pytest.raises(ProtocolError):
        forcing.evaluate(*programs_of([[5, TOY.eos_id], program]))
