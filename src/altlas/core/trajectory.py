"""Sampled token sequences with what the behaviour policy thought of them, as padded arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryBatch:
    """B programs sampled from one policy version, padded to the longest, T tokens.

    A trajectory holds its closing <EOS> where it has one and never <SOS>; `lengths` counts <EOS>.
    tokens: int64 [B, T], <PAD> beyond each length. log_probs, entropies: float32 [B, T], nats, under the masked and
    tempered distribution that was sampled from, 0 beyond each length. indices: int64 [B], position in the update.
    origins: uint8 [B], how each program was proposed, 0 for one sampled from the policy; zeros where not given.
    """

    indices: IntArray
    tokens: IntArray
    lengths: IntArray
    log_probs: FloatArray
    entropies: FloatArray
    policy_version: int
    origins: ByteArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))

    def __post_init__(self) -> None:
        if not len(self.origins):
            object.__setattr__(self, "origins", np.zeros(len(self.lengths), dtype=np.uint8))

    def __len__(self) -> int:
        return len(self.lengths)

    def part(self, start: int, stop: int) -> TrajectoryBatch:
        """Return the programs from row `start` to before row `stop`."""
        return self.take(slice(start, stop))

    def take(self, rows: IntArray | slice) -> TrajectoryBatch:
        """Return the programs of these rows."""
        names = [item.name for item in fields(self) if item.name != "policy_version"]
        return replace(self, **{name: getattr(self, name)[rows] for name in names})
