"""What a run has done so far, on the coordinator's side: counters and the best program.

Invariant: `unpack_state(pack_state(...))` is equal, and equal states give equal bytes: a resumed run counts on where
the checkpoint was taken.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from altlas.core.score_batch import ScoreBatch
from altlas.errors import CheckpointError
from altlas_coordinator.fingerprint_index import Keys

_HEADER = struct.Struct("<I")


@dataclass
class Totals:
    """Counters of a run. `unique_programs` differ from all before them; `evaluated_programs` were run.

    `start_best_*` are of the programs since the weights were drawn last, `best_*` of all.
    """

    updates: int = 0
    programs: int = 0
    unique_programs: int = 0
    evaluated_programs: int = 0
    best_reward: float = -math.inf
    best_program: str = ""
    best_found_at: int = 0
    solved: bool = False
    verified: bool = False
    restarted_at: int = 0
    start_best_reward: float = -math.inf
    start_best_at: int = 0
    seconds: float = 0.0

    def add(self, sources: Sequence[bytes], scores: ScoreBatch, *, unique: int, evaluated: int) -> list[int]:
        """Count an update's batch; return the positions in it that were the best so far when they came."""
        bests: list[int] = []
        start = 0
        while (position := self._next_best(scores, start)) is not None:
            self.best_reward, self.verified = float(scores.rewards[position]), bool(scores.verified[position])
            self.best_program = sources[position].decode()
            self.best_found_at = self.programs + position
            bests.append(position)
            start = position + 1
        best = int(scores.rewards.argmax())
        if scores.rewards[best] > self.start_best_reward:
            self.start_best_reward, self.start_best_at = float(scores.rewards[best]), self.programs + best
        self.solved |= bool(scores.solved.any())
        self.programs += len(sources)
        self.unique_programs += unique
        self.evaluated_programs += evaluated
        self.updates += 1
        return bests

    def restart(self) -> None:
        """Count from here whether the run is stuck: what an earlier start found is no measure for a new one."""
        self.restarted_at = self.programs
        self.start_best_reward = -math.inf

    def _next_best(self, scores: ScoreBatch, start: int) -> int | None:
        """Return the first position from `start` that is better than the best; a verified program always is."""
        verified, rewards = scores.verified[start:], scores.rewards[start:]
        is_better = rewards > self.best_reward
        if self.verified:
            is_better &= verified
        else:
            is_better |= verified
        return start + int(is_better.argmax()) if is_better.any() else None


def pack_state(totals: Totals, seen: Keys) -> bytes:
    """Return the totals and the keys of the programs seen, in order of first sighting, for a checkpoint."""
    fields = asdict(totals)
    fields.pop("unique_programs")  # as many as there are keys
    header = json.dumps(fields, sort_keys=True).encode()
    return _HEADER.pack(len(header)) + header + seen.astype("<u8", copy=False).tobytes()


def unpack_state(content: bytes) -> tuple[Totals, Keys]:
    """Return what `pack_state` was given.

    Raises:
        CheckpointError: not what `pack_state` gives.
    """
    try:
        (size,) = _HEADER.unpack_from(content)
        if len(content) < _HEADER.size + size:
            raise ValueError(f"{len(content)} bytes, its header alone needs {_HEADER.size + size}")
        fields = json.loads(content[_HEADER.size : _HEADER.size + size])
        seen = np.frombuffer(content, dtype="<u8", offset=_HEADER.size + size).astype(np.uint64)
        return Totals(**fields, unique_programs=len(seen)), seen
    except (struct.error, ValueError, TypeError) as error:
        raise CheckpointError(f"the coordinator's state in the checkpoint cannot be read: {error}") from error
