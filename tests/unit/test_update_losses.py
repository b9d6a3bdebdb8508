"""The whole loss of an update and its gradient, against a transcription in loops; and each objective on a bandit."""

import numpy as np
import pytest
import torch

from altlas.config.loader import load_config
from altlas.config.sections import ObjectiveSection, OptimizerSection
from altlas.core.entropy_target import EntropyWeight
from altlas.core.objective import (
    build_objective,
    drawn_items,
    ema_update_by_program,
    offered_rows,
    ppo_loss,
    reinforce_loss,
    token_identities,
    truncated_importance,
    update_losses,
)
from altlas.core.optimizers import build_optimizer
from altlas.core.teacher_forcing import ProgramValues


def preset(name):
    return load_config(config_file=None, environ={}, overrides=(), preset=name)


PAPER = {name: preset(name).objective for name in ("paper-pg", "paper-pqt", "paper-pg-pqt")}
SECTIONS = {
    **{f"reinforce_{kind}": ObjectiveSection(baseline=kind) for kind in ("none", "ema", "batch_mean", "leave_one_out")},
    "lag": ObjectiveSection(importance_cap=1.1, pqt_weight=0.0),
    "risk_seeking": ObjectiveSection(name="risk_seeking", risk_quantile=0.4, entropy_sum="sum_per_program"),
    "risk_seeking_lag": ObjectiveSection(name="risk_seeking", importance_cap=0.9),
    "ppo": ObjectiveSection(name="ppo", pqt_normalise="sum"),
    "ppo_ema": ObjectiveSection(name="ppo", baseline="ema", ema_kind="program", ppo_clip=0.05, policy_weight=0.5),
    **PAPER,
}
BATCH, QUEUED, LONGEST, SIZE = 6, 3, 4, 5


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other take longer than these sums, on a busy machine a hundred times."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def values_of(logits, tokens, lengths):
    """What TeacherForcing gives, from logits [N, T, V] instead of a network; tokens step by step, as it has them."""
    log_probs = torch.log_softmax(logits, dim=-1)
    positions, programs = np.nonzero(np.arange(tokens.shape[1])[:, None] < lengths)
    is_inside = torch.from_numpy(np.arange(tokens.shape[1]) < lengths[:, None])
    chosen = log_probs.gather(2, torch.from_numpy(tokens)[:, :, None])[:, :, 0]
    return ProgramValues(
        log_probs=(chosen * is_inside).sum(dim=1),
        entropies=(-(log_probs.exp() * log_probs).sum(dim=-1) * is_inside).sum(dim=1),
        token_log_probs=chosen[torch.from_numpy(programs), torch.from_numpy(positions)],
        programs=programs,
        positions=positions,
    )


def literal_advantages(section, rewards):
    count = len(rewards)
    if section.name == "risk_seeking":
        threshold = float(np.quantile(rewards, 1 - section.risk_quantile))
        return [(r - threshold) / section.risk_quantile if r >= threshold else 0.0 for r in rewards]
    baselines = {
        "none": [0.0] * count,
        "ema": [0.0 if section.ema_kind == "program" else sum(rewards) / count] * count,
        "batch_mean": [sum(rewards) / count] * count,
        "leave_one_out": [(sum(rewards) - r) / (count - 1) for r in rewards],
    }
    return [r - b for r, b in zip(rewards, baselines[section.baseline], strict=True)]


def literal_loss(section, logits, tokens, lengths, advantages, behaviour):
    """The formulas, a token at a time."""
    policy, entropy, queue, batch_tokens = 0.0, 0.0, 0.0, int(lengths[:BATCH].sum())
    for program in range(BATCH + QUEUED):
        total, behaviour_total = 0.0, 0.0
        for step in range(int(lengths[program])):
            scores = logits[program, step]
            log_p = scores - torch.log(torch.exp(scores).sum())
            taken = log_p[int(tokens[program, step])]
            total = total + taken
            if program >= BATCH:
                continue
            entropy = entropy - sum(torch.exp(log_p[token]) * log_p[token] for token in range(SIZE))
            behaviour_total += float(behaviour[program, step])
            if section.name == "ppo":
                ratio = torch.exp(taken - float(behaviour[program, step]))
                clipped = min(max(ratio, 1 - section.ppo_clip), 1 + section.ppo_clip)
                policy = policy - min(ratio * advantages[program], clipped * advantages[program]) / batch_tokens
        if program >= BATCH:
            per = 1 if section.pqt_normalise == "sum" else int(lengths[program])
            queue = queue - total / per / QUEUED
        elif section.name != "ppo":
            weight = 1.0
            if section.importance_cap:
                weight = min(np.exp(float(total.detach()) - behaviour_total), section.importance_cap)
            policy = policy - weight * advantages[program] * total / BATCH
    entropy = entropy / (batch_tokens if section.entropy_sum == "mean_per_token" else BATCH)
    scale = section.loss_scale
    return (
        scale * section.policy_weight * policy - scale * section.entropy_weight * entropy + section.pqt_weight * queue
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_loss_and_gradient_equal_the_transcription(section, seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, LONGEST + 1, BATCH + QUEUED)
    tokens = random.integers(0, SIZE, (BATCH + QUEUED, LONGEST))
    rewards = random.random(BATCH)
    behaviour = np.log(random.uniform(0.1, 0.4, (BATCH, LONGEST))).astype(np.float32)
    behaviour[np.arange(LONGEST) >= lengths[:BATCH, None]] = 0.0
    logits = torch.from_numpy(random.normal(size=(BATCH + QUEUED, LONGEST, SIZE))).requires_grad_()
    expected = literal_loss(section, logits, tokens, lengths, literal_advantages(section, rewards), behaviour)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    losses = update_losses(
        section,
        values_of(logits, tokens, lengths),
        lengths=lengths,
        advantages=build_objective(section).advantages(torch.from_numpy(rewards)),
        behaviour_log_probs=behaviour,
        entropy_weight=section.entropy_weight,
    )
    (gradient,) = torch.autograd.grad(losses.total, logits)
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-9)


def test_published_loss_in_its_own_words():
    """64 mean_i(-A_i log p_i) - 0.01 * 64 mean_i sum_t H_it + 50 mean_k(-log p_k)."""
    values = ProgramValues(
        log_probs=torch.tensor([-3.0, -5.0, -7.0]),
        entropies=torch.tensor([4.0, 6.0, 9.0]),
        token_log_probs=torch.zeros(0),
        programs=np.zeros(0, dtype=np.int64),
        positions=np.zeros(0, dtype=np.int64),
    )
    losses = update_losses(
        PAPER["paper-pg-pqt"],
        values,
        lengths=np.array([2, 2, 2]),
        advantages=torch.tensor([0.5, -0.25], dtype=torch.float64),
        behaviour_log_probs=np.zeros((2, 2), dtype=np.float32),
        entropy_weight=0.01,
    )
    expected = 64 * (0.5 * 3.0 - 0.25 * 5.0) / 2 - 0.01 * 64 * (4.0 + 6.0) / 2 + 50 * 7.0
    assert losses.total.item() == pytest.approx(expected)
    assert losses.entropy_per_token.item() == pytest.approx(10.0 / 4)


def test_ema_by_program_is_moved_by_each_in_turn_after_the_advantages():
    objective = build_objective(PAPER["paper-pg"])
    random, baseline = np.random.default_rng(0), 0.0
    for size in (64, 1, 7):
        rewards = random.normal(size=size)
        advantages = objective.advantages(torch.from_numpy(rewards))
        assert advantages.tolist() == pytest.approx([r - baseline for r in rewards])
        for reward in rewards:
            baseline = 0.99 * baseline + 0.01 * reward
        assert objective.baseline == pytest.approx(baseline, abs=1e-12)
    assert ema_update_by_program(0.5, torch.tensor([0.2, 0.8]), 0.0) == pytest.approx(0.8)


def test_without_lag_ppo_has_reinforces_gradient_per_token():
    log_probs = torch.log(torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)).requires_grad_()
    advantages = torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64)
    (ppo,) = torch.autograd.grad(ppo_loss(log_probs, log_probs.detach(), advantages, 0.2), log_probs)
    (reinforce,) = torch.autograd.grad(reinforce_loss(log_probs, advantages), log_probs)
    torch.testing.assert_close(ppo, reinforce)


def test_ppo_gives_no_gradient_where_the_ratio_has_left_its_range_for_the_better():
    log_probs = torch.log(torch.tensor([0.6, 0.6, 0.1, 0.1], dtype=torch.float64)).requires_grad_()
    behaviour = torch.log(torch.tensor([0.4] * 4, dtype=torch.float64))
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(ppo_loss(log_probs, behaviour, advantages, 0.2), log_probs)
    assert (gradient != 0).tolist() == [False, True, True, False]


def test_importance_is_capped_and_carries_no_gradient():
    log_probs = torch.log(torch.tensor([0.2, 0.5], dtype=torch.float64)).requires_grad_()
    weights = truncated_importance(log_probs, torch.log(torch.tensor([0.4, 0.1], dtype=torch.float64)), 2.0)
    assert weights.tolist() == pytest.approx([0.5, 2.0])
    assert not weights.requires_grad


def test_the_queue_is_offered_all_or_the_first_of_the_best():
    rewards = torch.tensor([0.1, 0.9, 0.9])
    assert offered_rows(rewards, "all").tolist() == [0, 1, 2]
    assert offered_rows(rewards, "batch_best").tolist() == [1]


def test_one_queue_program_is_drawn_uniformly_and_repeatably():
    assert drawn_items(3, "all", seed=1, update=0).tolist() == [0, 1, 2]
    assert drawn_items(0, "one", seed=1, update=0).tolist() == []
    drawn = [int(drawn_items(4, "one", seed=1, update=update)[0]) for update in range(2000)]
    assert drawn == [int(drawn_items(4, "one", seed=1, update=update)[0]) for update in range(2000)]
    assert np.bincount(drawn, minlength=4) == pytest.approx([500] * 4, abs=80)


def test_identity_tells_programs_apart_by_their_tokens_alone():
    tokens = np.array([[5, 6, 0], [6, 5, 0], [5, 0, 0], [5, 6, 0], [5, 6, 7]])
    identities = token_identities(tokens, np.array([2, 2, 1, 3, 2]))
    assert identities.shape == (5, 16)
    assert [row.tobytes() == identities[0].tobytes() for row in identities] == [True, False, False, False, True]


ARMS = np.array([0.1, 0.3, 0.9, 0.5, 0.2])


def learn_bandit(section, *, optimizer="rmsprop_tf", updates=60):
    """Return the probabilities that a softmax over the arms has learned; a program is one token, the arm."""
    logits = torch.nn.Parameter(torch.zeros(len(ARMS)))
    holder = torch.nn.ParameterList([logits])
    steps = build_optimizer(holder, OptimizerSection(name=optimizer, learning_rate=0.1))
    objective, weight, random = build_objective(section), EntropyWeight(section), np.random.default_rng(1)
    best: dict[int, float] = {}
    for update in range(updates):
        probabilities = torch.softmax(logits.detach().double(), dim=0).numpy()
        arms = random.choice(len(ARMS), size=32, p=probabilities / probabilities.sum())
        rewards = torch.from_numpy(ARMS[arms])
        best |= {int(arms[row]): float(rewards[row]) for row in offered_rows(rewards, section.pqt_offer)}
        queue = sorted(best, key=best.__getitem__, reverse=True)[: section.pqt_size] if section.pqt_weight else []
        queued = [queue[item] for item in drawn_items(len(queue), section.pqt_draw, seed=1, update=update)]
        tokens = np.array([*arms, *queued])[:, None]
        lengths = np.ones(len(tokens), dtype=np.int64)
        losses = update_losses(
            section,
            values_of(logits.expand(len(tokens), 1, -1), tokens, lengths),
            lengths=lengths,
            advantages=objective.advantages(rewards),
            behaviour_log_probs=np.log(probabilities[arms])[:, None].astype(np.float32),
            entropy_weight=weight.weight,
        )
        steps.zero_grad()
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(holder.parameters(), 50.0)
        steps.step()
        weight.update(float(losses.entropy_per_token.detach()))
    return torch.softmax(logits.detach(), dim=0).numpy()


@pytest.mark.parametrize("name", SECTIONS)
def test_every_objective_learns_the_best_arm_of_a_bandit(name):
    original = SECTIONS[name]
    changes = {
        "entropy_weight": original.entropy_weight / 10,
        "pqt_size": 1,
        "pqt_weight": original.pqt_weight if "pqt" in name else 0.0,
        # Once a share this large of the batch is the best arm, there is nothing left to learn.
        "risk_quantile": 0.95,
    }
    section = original.model_copy(update=changes)
    assert learn_bandit(section, optimizer="adam" if name not in PAPER else "rmsprop_tf")[ARMS.argmax()] > 0.8


def test_an_entropy_target_is_held_where_a_fixed_weight_collapses():
    fixed = ObjectiveSection(entropy_weight=0.001, pqt_weight=0.0)
    held = fixed.model_copy(update={"entropy_target": 0.8})
    entropies = []
    for section in (fixed, held):
        probabilities = learn_bandit(section, optimizer="adam", updates=400)
        entropies.append(float(-(probabilities * np.log(probabilities)).sum()))
    assert entropies[0] < 0.2
    assert entropies[1] == pytest.approx(0.8, abs=0.2)


def literal_clipped(log_probs, behaviour, lengths, advantages, clip):
    """-(1/B) sum over programs and their tokens of min(rho A, clip(rho) A), in loops."""
    total = 0.0
    for row, length in enumerate(lengths):
        for step in range(length):
            ratio = np.exp(log_probs[row][step] - behaviour[row][step])
            held = min(max(ratio, 0.8), 1.2)
            total += min(ratio * advantages[row], held * advantages[row])
    return -total / len(lengths)


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_of_an_older_policy_is_clipped_as_transcribed(seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 5, size=6)
    tokens = random.integers(0, 4, size=(6, 4))
    logits = torch.from_numpy(random.normal(size=(6, 4, 4))).requires_grad_()
    values = values_of(logits, tokens, lengths)
    log_probs = torch.log_softmax(logits.detach(), dim=-1).numpy()
    own = np.take_along_axis(log_probs, tokens[:, :, None], axis=2)[:, :, 0]
    behaviour = (own + random.normal(scale=0.3, size=own.shape)).astype(np.float32)
    advantages = torch.from_numpy(random.normal(size=6))
    section = ObjectiveSection(pqt_weight=0.0, lag_clip=0.2)
    losses = {
        lag: update_losses(
            section,
            values,
            lengths=lengths.astype(np.int64),
            advantages=advantages,
            behaviour_log_probs=behaviour,
            entropy_weight=0.1,
            lag=lag,
        )
        for lag in (0, 1)
    }
    expected = literal_clipped(own, behaviour.astype(float), lengths.tolist(), advantages.tolist(), 0.2)
    assert float(losses[1].policy.detach()) == pytest.approx(expected, abs=1e-6)
    assert float(losses[0].policy.detach()) != pytest.approx(expected, abs=1e-6)


def test_where_the_policy_has_not_moved_clipping_leaves_reinforces_gradient():
    random = np.random.default_rng(3)
    lengths, tokens = np.array([2, 3]), random.integers(0, 4, size=(2, 3))
    gradients = []
    for lag in (0, 2):
        logits = torch.from_numpy(np.random.default_rng(4).normal(size=(2, 3, 4))).requires_grad_()
        log_probs = torch.log_softmax(logits.detach(), dim=-1).numpy()
        own = np.take_along_axis(log_probs, tokens[:, :, None], axis=2)[:, :, 0]
        losses = update_losses(
            ObjectiveSection(pqt_weight=0.0),
            values_of(logits, tokens, lengths),
            lengths=lengths,
            advantages=torch.tensor([0.5, -0.25], dtype=torch.float64),
            behaviour_log_probs=own.astype(np.float32),
            entropy_weight=0.0,
            lag=lag,
        )
        losses.total.backward()
        gradients.append(logits.grad)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
