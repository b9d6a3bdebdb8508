"""What an update maximises, as pure functions on tensors, and the choice among them by the [objective] section.

Losses are minimised; advantages and importance weights carry no gradient. The policy gradient is summed over a
program's tokens and averaged over the programs, but for `ppo`, which is averaged over all tokens of the batch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from altlas.config.sections import ObjectiveSection
from altlas.core.rng import uniform
from altlas.core.score_batch import BEHAVIOUR_BYTES
from altlas.core.trajectory import ByteArray, FloatArray, IntArray
from altlas.errors import ConfigError

if TYPE_CHECKING:
    from altlas.core.teacher_forcing import ProgramValues


def batch_mean_baseline(rewards: Tensor) -> Tensor:
    """Return the mean of the batch, [B]. Biased by the factor (B - 1) / B, since it holds the program's own reward."""
    return rewards.mean().expand_as(rewards)


def leave_one_out_baseline(rewards: Tensor) -> Tensor:
    """Return the mean of the others, [B]: b_i = (sum_j r_j - r_i) / (B - 1) (Kool et al. 2019, equation 8).

    Zero for a batch of one.
    """
    if len(rewards) == 1:
        return torch.zeros_like(rewards)
    return (rewards.sum() - rewards) / (len(rewards) - 1)


def ema_update(baseline: float | None, rewards: Tensor, decay: float) -> float:
    """Return b' = decay b + (1 - decay) mean(r); the first batch's mean starts it (Williams 1992, section 6)."""
    mean = float(rewards.mean())
    return mean if baseline is None else decay * baseline + (1.0 - decay) * mean


def ema_update_by_program(baseline: float | None, rewards: Tensor, decay: float) -> float:
    """Return b after b <- decay b + (1 - decay) r_i for every program i in turn, beginning at 0.

    In closed form: decay^B b + (1 - decay) sum_i decay^(B - 1 - i) r_i. The baseline of Abolafia et al. 2018, whose
    code keeps one a position; with programs of one length they are all this one.
    """
    powers = decay ** torch.arange(len(rewards) - 1, -1, -1, dtype=torch.float64)
    before = 0.0 if baseline is None else baseline
    return decay ** len(rewards) * before + (1.0 - decay) * float((powers * rewards.double()).sum())


def reinforce_loss(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Return -(1/B) sum_i A_i log p_i (Williams 1992, equation 4), for log_probs of whole programs [B]."""
    return -(advantages * log_probs).mean()


def truncated_importance(log_probs: Tensor, behaviour_log_probs: Tensor, cap: float) -> Tensor:
    """Return min(p_i / mu_i, cap), [B] without gradient, for whole programs sampled from mu and learned under p.

    The truncation is that of V-trace (Espeholt et al. 2018, "IMPALA", section 4.1), taken once a program since its
    reward comes at its end. Multiplied into the advantages it corrects for a policy that has moved since sampling.
    """
    return (log_probs.detach() - behaviour_log_probs).exp().clamp_max(cap)


def ppo_loss(log_probs: Tensor, behaviour_log_probs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Return -(1/S) sum_s min(rho_s A_s, clip(rho_s, 1 - c, 1 + c) A_s) (Schulman et al. 2017, equation 7).

    All three are [S], one item for each of the S = sum_i T_i tokens of the batch; a token's advantage is its program's,
    and rho_s = exp(log p_s - log mu_s).
    """
    ratios = (log_probs - behaviour_log_probs).exp()
    return -torch.minimum(ratios * advantages, ratios.clamp(1.0 - clip, 1.0 + clip) * advantages).mean()


def clipped_reinforce_loss(
    log_probs: Tensor, behaviour_log_probs: Tensor, advantages: Tensor, clip: float, *, programs: int
) -> Tensor:
    """Return -(1/B) sum_s min(rho_s A_s, clip(rho_s, 1 - c, 1 + c) A_s) over the tokens s of B programs.

    `ppo_loss` summed over a program's tokens as `reinforce_loss` is: where the policy is still the one that drew the
    programs, every rho_s is 1 and the gradient is that of REINFORCE.
    """
    return ppo_loss(log_probs, behaviour_log_probs, advantages, clip) * (len(log_probs) / programs)


def risk_seeking_advantages(returns: Tensor, quantile: float) -> Tensor:
    """Return A_i = (r_i - q) 1[r_i >= q] / eps, [B], with q the (1 - eps) quantile of the batch.

    With `reinforce_loss` this is the estimator of Petersen et al. 2021 ("Deep symbolic regression", section 3.3):
    1 / (eps B) sum_i (r_i - q) 1[r_i >= q] grad log p_i.
    """
    threshold = torch.quantile(returns, 1.0 - quantile)
    return (returns - threshold).clamp_min(0.0) / quantile


def mean_entropy(entropies: Tensor, lengths: Tensor) -> Tensor:
    """Return sum_it H_it / sum_i T_i, nats per sampled token, for entropies [B, T] that are 0 beyond each length."""
    return entropies.sum() / lengths.sum()


def program_entropy(entropies: Tensor) -> Tensor:
    """Return (1/B) sum_it H_it, nats per program, for entropies [B, T] that are 0 beyond each length, or summed [B]."""
    return entropies.sum() / len(entropies)


def queue_loss(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Return -(1/K) sum_k log p_k / T_k: maximum likelihood of the queue's programs, per token.

    The priority-queue training term of Abolafia et al. 2018 ("Neural program synthesis with priority queue training",
    equation 3), with each program's log-probability divided by its length so that long ones do not outweigh short ones.
    """
    return -(log_probs / lengths).mean()


def queue_sum_loss(log_probs: Tensor) -> Tensor:
    """Return -(1/K) sum_k log p_k: the same as published, each program's log-probability summed over its tokens."""
    return -log_probs.mean()


class Objective(Protocol):
    """Turns the returns of a batch into advantages. May carry state from update to update."""

    baseline: float | None

    def advantages(self, returns: Tensor) -> Tensor:
        """Return A [B] for returns float64 [B], and move the state on."""


class Reinforce:
    """REINFORCE or PPO with the configured baseline. Only `ema` has state: what it was before the batch is subtracted.

    `ema_kind` program begins at 0 and is moved by every program in turn, once the batch's advantages are taken.
    """

    def __init__(self, section: ObjectiveSection) -> None:
        self._kind = section.baseline
        self._decay = section.ema_decay
        self._is_by_program = section.ema_kind == "program"
        self.baseline: float | None = None

    def advantages(self, returns: Tensor) -> Tensor:
        if self._kind == "ema":
            return returns - self._ema(returns)
        if self._kind == "batch_mean":
            return returns - batch_mean_baseline(returns)
        if self._kind == "leave_one_out":
            return returns - leave_one_out_baseline(returns)
        return returns

    def _ema(self, returns: Tensor) -> float:
        before = self.baseline
        if self._is_by_program:
            self.baseline = ema_update_by_program(before, returns, self._decay)
            return 0.0 if before is None else before
        self.baseline = ema_update(before, returns, self._decay)
        return float(returns.mean()) if before is None else before


class RiskSeeking:
    """The risk-seeking policy gradient; the batch's quantile is its baseline."""

    def __init__(self, section: ObjectiveSection) -> None:
        self._quantile = section.risk_quantile
        self.baseline: float | None = None

    def advantages(self, returns: Tensor) -> Tensor:
        return risk_seeking_advantages(returns, self._quantile)


def build_objective(section: ObjectiveSection) -> Objective:
    """Return the objective that the section names.

    Raises:
        ConfigError: there is no such objective.
    """
    kinds: dict[str, type[Reinforce] | type[RiskSeeking]] = {
        "reinforce": Reinforce,
        "risk_seeking": RiskSeeking,
        "ppo": Reinforce,
    }
    if section.name not in kinds:
        raise ConfigError(f"objective.name: {section.name!r} is none of {', '.join(kinds)}")
    return kinds[section.name](section)


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """An update's loss and its terms, scalars float64 on the CPU, unweighted but for `total`.

    entropy: per token or per program, as the section has it. entropy_per_token: nats, whatever the section says.
    """

    total: Tensor
    policy: Tensor
    entropy: Tensor
    entropy_per_token: Tensor
    queue: Tensor


def update_losses(
    section: ObjectiveSection,
    values: ProgramValues,
    *,
    lengths: IntArray,
    advantages: Tensor,
    behaviour_log_probs: FloatArray,
    entropy_weight: float,
    lag: int = 0,
) -> Losses:
    """Return loss_scale (policy_weight L_policy - entropy_weight H) + pqt_weight L_queue.

    Args:
        section: what the terms are.
        values: of the batch's B programs, followed by those K of the queue that the update learns; K may be 0.
        lengths: int64 [B + K].
        advantages: float64 [B], of `Objective.advantages`.
        behaviour_log_probs: float32 [B, T], of the batch as sampled.
        entropy_weight: of `EntropyWeight`.
        lag: updates since the policy that drew the batch.
    """
    size = len(advantages)
    if not size:
        return _imitation_alone(section, values, lengths)
    log_probs, entropies = values.log_probs.cpu().double(), values.entropies.cpu().double()
    sizes = torch.from_numpy(lengths)
    if section.name == "ppo":
        policy = ppo_loss(*_by_token(values, advantages, behaviour_log_probs), section.ppo_clip)
    elif lag > 0 and section.lag_clip and not section.importance_cap:
        tokens = _by_token(values, advantages, behaviour_log_probs)
        policy = clipped_reinforce_loss(*tokens, section.lag_clip, programs=size)
    else:
        policy = reinforce_loss(log_probs[:size], _weighted(section, log_probs[:size], advantages, behaviour_log_probs))
    per_token = mean_entropy(entropies[:size], sizes[:size])
    entropy = per_token if section.entropy_sum == "mean_per_token" else program_entropy(entropies[:size])
    queue = torch.zeros_like(policy)
    if len(lengths) > size:
        is_sum = section.pqt_normalise == "sum"
        queue = queue_sum_loss(log_probs[size:]) if is_sum else queue_loss(log_probs[size:], sizes[size:])
    scaled = section.loss_scale * (section.policy_weight * policy - entropy_weight * entropy)
    total = scaled + section.pqt_weight * queue
    return Losses(total=total, policy=policy, entropy=entropy, entropy_per_token=per_token, queue=queue)


def _imitation_alone(section: ObjectiveSection, values: ProgramValues, lengths: IntArray) -> Losses:
    """Return the losses of an update whose batch holds nothing that the policy sampled."""
    log_probs, sizes = values.log_probs.cpu().double(), torch.from_numpy(lengths)
    queue = queue_sum_loss(log_probs) if section.pqt_normalise == "sum" else queue_loss(log_probs, sizes)
    per_token = mean_entropy(values.entropies.cpu().double(), sizes)
    nothing = torch.zeros_like(queue)
    return Losses(
        total=section.pqt_weight * queue, policy=nothing, entropy=nothing, entropy_per_token=per_token, queue=queue
    )


def _weighted(
    section: ObjectiveSection, log_probs: Tensor, advantages: Tensor, behaviour_log_probs: FloatArray
) -> Tensor:
    if not section.importance_cap:
        return advantages
    behaviour = torch.from_numpy(behaviour_log_probs.sum(axis=1, dtype=np.float64))
    return advantages * truncated_importance(log_probs, behaviour, section.importance_cap)


def _by_token(
    values: ProgramValues, advantages: Tensor, behaviour_log_probs: FloatArray
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p, log mu and A of each of the batch's S tokens, [S]."""
    in_batch = np.flatnonzero(values.programs < len(advantages))
    programs, positions = values.programs[in_batch], values.positions[in_batch]
    return (
        values.token_log_probs.cpu().double()[torch.from_numpy(in_batch)],
        torch.from_numpy(behaviour_log_probs[programs, positions].astype(np.float64)),
        advantages[torch.from_numpy(programs)],
    )


def offered_rows(rewards: Tensor, offer: Literal["all", "batch_best"]) -> IntArray:
    """Return which programs of a batch the queue is offered, int64 [n]: all, or the first of the best."""
    if offer == "all":
        return np.arange(len(rewards), dtype=np.int64)
    return np.array([int(rewards.argmax())], dtype=np.int64)


def drawn_items(count: int, draw: Literal["all", "one"], *, seed: int, update: int) -> IntArray:
    """Return which of a queue's `count` programs the update learns, int64 [n]: all, or one drawn uniformly."""
    if draw == "all" or count == 0:
        return np.arange(count, dtype=np.int64)
    number = float(uniform(seed, "queue", update=update, first_index=0, count=1, per_index=1)[0, 0])
    return np.array([int(number * count)], dtype=np.int64)


def token_identities(tokens: IntArray, lengths: IntArray) -> ByteArray:
    """Return uint8 [B, 16] that stand for programs int64 [B, T] of lengths [B], equal where their tokens are.

    In the place of behaviours they make a queue unique by tokens.
    """
    digests = [
        hashlib.blake2b(row[:length].astype("<i8").tobytes(), digest_size=BEHAVIOUR_BYTES).digest()
        for row, length in zip(tokens, lengths.tolist(), strict=True)
    ]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, BEHAVIOUR_BYTES)
