"""Trajectory batches to and from messages: the learning roles' half of the conversions (numpy)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from altlas.core.trajectory import FloatArray, TrajectoryBatch
from altlas.errors import ProtocolError
from altlas.rpc.batches import read_array, sources_to_proto
from altlas.rpc.common.v1 import common_pb2

TOKEN_BYTES = 2
"""Bytes of a token or a length in a message."""
# One long program among many short ones pads a small message to any size: 2 GiB of tokens are the most.
_MAX_PLACES = 1 << 28


def trajectories_to_proto(batch: TrajectoryBatch, sources: Sequence[bytes]) -> common_pb2.TrajectoryBatch:
    """Return a batch whose indices follow each other; `sources` are the decoded programs, in order.

    Raises:
        ValueError: another number of sources.
    """
    if len(sources) != len(batch):
        raise ValueError(f"{len(sources)} sources for {len(batch)} trajectories")
    inside = _inside(batch.lengths, batch.tokens.shape[1])
    return common_pb2.TrajectoryBatch(
        first_index=int(batch.indices[0]),
        policy_version=batch.policy_version,
        lengths=batch.lengths.astype("<u2").tobytes(),
        tokens=batch.tokens.astype("<u2")[inside].tobytes(),
        log_probs=batch.log_probs[inside].astype("<f4", copy=False).tobytes(),
        entropies=batch.entropies[inside].astype("<f4", copy=False).tobytes(),
        origins=batch.origins.tobytes() if batch.origins.any() else b"",
        sources=sources_to_proto(sources),
    )


def trajectories_from_proto(
    messages: Sequence[common_pb2.TrajectoryBatch], *, policy_version: int, pad_id: int, vocabulary_size: int
) -> TrajectoryBatch:
    """Return the padded batch of an update's parts, in their order.

    Raises:
        ProtocolError: there are no programs, an array has another size than its lengths give it, a program is empty
            or holds an unknown token, a number is not finite, a part is missing, one comes from another policy version,
            or padding would take gigabytes.
    """
    parts = [_Part(message) for message in messages]
    if not parts or not sum(len(part.lengths) for part in parts):
        raise ProtocolError("a batch without trajectories")
    for before, part in zip([None, *parts[:-1]], parts, strict=True):
        expected = before.first_index + len(before.lengths) if before else part.first_index
        if part.first_index != expected:
            raise ProtocolError(f"a part begins at trajectory {part.first_index}, expected {expected}")
        if part.policy_version != policy_version:
            raise ProtocolError(f"a part is of policy version {part.policy_version}, expected {policy_version}")
    lengths = np.concatenate([part.lengths for part in parts])
    tokens = np.concatenate([part.tokens for part in parts])
    if not lengths.all():
        raise ProtocolError(f"trajectory {parts[0].first_index + int(lengths.argmin())} is empty")
    if int(tokens.max()) >= vocabulary_size:
        raise ProtocolError(f"token {int(tokens.max())} is not in a vocabulary of {vocabulary_size}")
    if len(lengths) * int(lengths.max()) > _MAX_PLACES:
        raise ProtocolError(f"{len(lengths)} programs of up to {int(lengths.max())} tokens are too many for one batch")
    inside = _inside(lengths, int(lengths.max()))
    padded = np.full(inside.shape, pad_id, dtype=np.int64)
    padded[inside] = tokens
    return TrajectoryBatch(
        indices=np.arange(parts[0].first_index, parts[0].first_index + len(lengths), dtype=np.int64),
        tokens=padded,
        lengths=lengths,
        log_probs=_pad(inside, [part.log_probs for part in parts]),
        entropies=_pad(inside, [part.entropies for part in parts]),
        origins=np.concatenate([part.origins for part in parts]),
        policy_version=policy_version,
    )


class _Part:
    """The arrays of one message, of checked sizes; what may be absent is 0 then."""

    def __init__(self, message: common_pb2.TrajectoryBatch) -> None:
        self.first_index = message.first_index
        self.policy_version = message.policy_version
        count = len(message.lengths) // TOKEN_BYTES
        self.lengths = read_array(message.lengths, "<u2", (count,), name="trajectories.lengths").astype(np.int64)
        total = (int(self.lengths.sum()),)
        self.tokens = read_array(message.tokens, "<u2", total, name="trajectories.tokens")
        self.log_probs = _read_floats(message.log_probs, total, name="trajectories.log_probs")
        self.entropies = _read_floats(message.entropies, total, name="trajectories.entropies")
        self.origins = (
            read_array(message.origins, "u1", (count,), name="trajectories.origins").astype(np.uint8)
            if message.origins
            else np.zeros(count, dtype=np.uint8)
        )


def _read_floats(content: bytes, shape: tuple[int, ...], *, name: str) -> FloatArray:
    if not content:
        return np.zeros(shape, dtype=np.float32)
    numbers = read_array(content, "<f4", shape, name=name).astype(np.float32, copy=False)
    if not np.isfinite(numbers).all():
        raise ProtocolError(f"{name} holds a number that is not finite")
    return numbers


def _inside(lengths: npt.NDArray[np.int64], longest: int) -> npt.NDArray[np.bool_]:
    """Return bool [B, T]: which places hold a token."""
    return np.arange(longest) < lengths[:, None]


def _pad(inside: npt.NDArray[np.bool_], parts: Sequence[FloatArray]) -> FloatArray:
    padded = np.zeros(inside.shape, dtype=np.float32)
    padded[inside] = np.concatenate(parts)
    return padded
