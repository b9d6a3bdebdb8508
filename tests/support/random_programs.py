"""Programs drawn uniformly over the tokens that a constraint calls legal."""

from __future__ import annotations

import numpy as np

from altlas.core.grammar import TokenConstraint
from altlas.core.trajectory import IntArray


def sample(subject: TokenConstraint, count: int, max_tokens: int, *, seed: int) -> IntArray:
    """Draw programs uniformly over legal tokens: int64 [count, max_tokens]."""
    random = np.random.default_rng(seed)
    nodes = np.full(count, subject.start)
    tokens: IntArray = np.zeros((count, max_tokens), dtype=np.int64)
    for step in range(max_tokens):
        legal = subject.legal(nodes, remaining=max_tokens - step)
        tokens[:, step] = np.where(legal, random.random(legal.shape), -1).argmax(axis=1)
        nodes = subject.advance(nodes, tokens[:, step])
    return tokens
