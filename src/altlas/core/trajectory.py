"""Sampled token sequences with what the behaviour policy thought of them, as padded arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryBatch:
    """B programs sampled from one policy version, padded to the longest, T tokens.

    A trajectory holds its closing <EOS> where it has one and never <SOS>; `lengths` counts <EOS>.
    tokens: int64 [B, T], <PAD> beyond each length. log_probs, entropies: float32 [B, T], nats, under the masked and
    tempered distribution that was sampled from, 0 beyond each length. indices: int64 [B], position in the update.
    """

    indices: IntArray
    tokens: IntArray
    lengths: IntArray
    log_probs: FloatArray
    entropies: FloatArray
    policy_version: int

    def __len__(self) -> int:
        return len(self.lengths)
