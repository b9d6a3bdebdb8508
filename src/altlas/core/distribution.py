"""The masked, tempered softmax that programs are sampled from and learned under, written once for both."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_log_softmax(logits: Tensor, legal: Tensor, temperature: float) -> Tensor:
    """Return log softmax(logits / temperature) over the legal tokens, [..., V] in nats; -inf where not legal.

    legal: bool [..., V], at least one true in every row.
    """
    return torch.log_softmax((logits / temperature).masked_fill(~legal, -torch.inf), dim=-1)


def entropy(log_probs: Tensor, legal: Tensor) -> Tensor:
    """Return -sum p log p over the legal tokens, [...] in nats, for log_probs [..., V]."""
    # The fill comes before the product: 0 * -inf is NaN in value and in gradient.
    finite = log_probs.masked_fill(~legal, 0.0)
    return -(log_probs.exp() * finite).sum(dim=-1)
