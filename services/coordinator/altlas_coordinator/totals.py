"""What a run has done so far, on the coordinator's side: counters, the best program, the fingerprints seen.

Invariant: `from_bytes(to_bytes())` is equal, and equal totals give equal bytes: a resumed run counts on where the
checkpoint was taken.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from altlas.core.score import Score
from altlas.errors import CheckpointError

_HEADER = struct.Struct("<I")


@dataclass
class Totals:
    """Counters of a run. `seen` holds the first 8 bytes of each fingerprint."""

    updates: int = 0
    programs: int = 0
    evaluated_programs: int = 0
    best_reward: float = -1.0
    best_program: str = ""
    best_found_at: int = 0
    solved: bool = False
    verified: bool = False
    restarted_at: int = 0
    seconds: float = 0.0
    seen: set[int] = field(default_factory=set)

    @property
    def unique_programs(self) -> int:
        """Programs that differ from all before them."""
        return len(self.seen)

    def add(self, sources: Sequence[str], scores: Sequence[Score], fingerprints: Sequence[bytes]) -> list[int]:
        """Count an update's batch; return the positions in it that were the best so far when they came."""
        self.seen.update(int.from_bytes(fingerprint[:8], "little") for fingerprint in fingerprints)
        bests = []
        for position, (source, score) in enumerate(zip(sources, scores, strict=True)):
            if (score.verified, score.reward) > (self.verified, self.best_reward):
                self.best_reward, self.best_program = score.reward, source
                self.best_found_at = self.programs + position
                bests.append(position)
            self.solved |= score.solved
            self.verified |= score.verified
        self.programs += len(sources)
        self.updates += 1
        return bests

    def to_bytes(self) -> bytes:
        """Return the totals for a checkpoint."""
        fields = asdict(self)
        fields.pop("seen")
        header = json.dumps(fields, sort_keys=True).encode()
        return _HEADER.pack(len(header)) + header + array("Q", sorted(self.seen)).tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Totals:
        """Return the totals of a checkpoint.

        Raises:
            CheckpointError: not what `to_bytes` gives.
        """
        try:
            (size,) = _HEADER.unpack_from(content)
            if len(content) < _HEADER.size + size:
                raise ValueError(f"{len(content)} bytes, its header alone needs {_HEADER.size + size}")
            fields = json.loads(content[_HEADER.size : _HEADER.size + size])
            seen = array("Q")
            seen.frombytes(content[_HEADER.size + size :])
            return cls(**fields, seen=set(seen))
        except (struct.error, ValueError, TypeError) as error:
            raise CheckpointError(f"the coordinator's state in the checkpoint cannot be read: {error}") from error
