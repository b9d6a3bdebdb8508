"""Trajectory batches to and from messages: the learning roles' half of the conversions (numpy)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from altlas.core.trajectory import TrajectoryBatch
from altlas.errors import ProtocolError
from altlas.rpc.common.v1 import common_pb2


def trajectories_to_proto(batch: TrajectoryBatch, sources: Sequence[str]) -> list[common_pb2.Trajectory]:
    """Return one message per trajectory; `sources` are the decoded programs, in order."""
    return [
        common_pb2.Trajectory(
            index=int(batch.indices[row]),
            tokens=batch.tokens[row, :length].tolist(),
            log_probs=batch.log_probs[row, :length].tolist(),
            entropies=batch.entropies[row, :length].tolist(),
            source=sources[row],
        )
        for row, length in enumerate(batch.lengths.tolist())
    ]


def trajectories_from_proto(
    messages: Sequence[common_pb2.Trajectory], *, policy_version: int, pad_id: int, vocabulary_size: int
) -> TrajectoryBatch:
    """Return the padded batch.

    Raises:
        ProtocolError: the batch is empty, or a trajectory is empty, of unequal lengths, or holds an unknown token.
    """
    if not messages:
        raise ProtocolError("a batch without trajectories")
    lengths = np.array([len(message.tokens) for message in messages], dtype=np.int64)
    shape = (len(messages), int(lengths.max()))
    tokens = np.full(shape, pad_id, dtype=np.int64)
    log_probs = np.zeros(shape, dtype=np.float32)
    entropies = np.zeros(shape, dtype=np.float32)
    for row, message in enumerate(messages):
        length = len(message.tokens)
        if length == 0 or len(message.log_probs) != length or len(message.entropies) != length:
            raise ProtocolError(
                f"trajectory {message.index}: tokens, log_probs and entropies differ in length or are 0"
            )
        tokens[row, :length] = message.tokens
        log_probs[row, :length] = message.log_probs
        entropies[row, :length] = message.entropies
    if int(tokens.max()) >= vocabulary_size:
        raise ProtocolError(f"token {int(tokens.max())} is not in a vocabulary of {vocabulary_size}")
    return TrajectoryBatch(
        indices=np.array([message.index for message in messages], dtype=np.int64),
        tokens=tokens,
        lengths=lengths,
        log_probs=log_probs,
        entropies=entropies,
        policy_version=policy_version,
    )
