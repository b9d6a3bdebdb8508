"""What an update maximises, as pure functions on tensors, and the choice among them by the [objective] section.

Programs are given by their summed log-probabilities. Losses are minimised; advantages carry no gradient.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from altlas.config.sections import ObjectiveSection
from altlas.errors import ConfigError


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


def reinforce_loss(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Return -(1/B) sum_i A_i log p_i (Williams 1992, equation 4), for log_probs of whole programs [B]."""
    return -(advantages * log_probs).mean()


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


def queue_loss(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Return -(1/K) sum_k log p_k / T_k: maximum likelihood of the queue's programs, per token.

    The priority-queue training term of Abolafia et al. 2018 ("Neural program synthesis with priority queue training",
    equation 3), with each program's log-probability divided by its length so that long ones do not outweigh short ones.
    """
    return -(log_probs / lengths).mean()


class Objective(Protocol):
    """Turns the returns of a batch into advantages. May carry state from update to update."""

    baseline: float | None

    def advantages(self, returns: Tensor) -> Tensor:
        """Return A [B] for returns float64 [B], and move the state on."""


class Reinforce:
    """REINFORCE with the configured baseline. Only `ema` has state: the baseline before this batch is subtracted."""

    def __init__(self, section: ObjectiveSection) -> None:
        self._kind = section.baseline
        self._decay = section.ema_decay
        self.baseline: float | None = None

    def advantages(self, returns: Tensor) -> Tensor:
        if self._kind == "ema":
            before = returns.mean() if self.baseline is None else self.baseline
            self.baseline = ema_update(self.baseline, returns, self._decay)
            return returns - before
        if self._kind == "batch_mean":
            return returns - batch_mean_baseline(returns)
        if self._kind == "leave_one_out":
            return returns - leave_one_out_baseline(returns)
        return returns


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
    kinds: dict[str, type[Reinforce] | type[RiskSeeking]] = {"reinforce": Reinforce, "risk_seeking": RiskSeeking}
    if section.name not in kinds:
        raise ConfigError(f"objective.name: {section.name!r} is none of {', '.join(kinds)}")
    return kinds[section.name](section)
