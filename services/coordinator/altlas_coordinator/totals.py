"""What a run has done so far, on the coordinator's side: counters and the best program of each task.

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
import numpy.typing as npt

from altlas.core.curriculum import ProgressWindow
from altlas.core.score_batch import ScoreBatch
from altlas.errors import CheckpointError
from altlas_coordinator.fingerprint_index import Keys

NO_KEYS: Keys = np.empty(0, dtype=np.uint64)
_HEADER = struct.Struct("<I")


@dataclass
class Totals:
    """Counters of a task. `unique_programs` differ from all before them; `evaluated_programs` were run.

    `start_best_*` are of the programs since the last fresh start, `best_*` of all. `programs_to_*` count up to and with
    the first solved and the first verified program.
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
    programs_to_solve: int | None = None
    programs_to_verify: int | None = None
    restarts: int = 0
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
        self.programs_to_solve = self._first(self.programs_to_solve, scores.solved)
        self.programs_to_verify = self._first(self.programs_to_verify, scores.verified)
        self.solved |= bool(scores.solved.any())
        self.programs += len(sources)
        self.unique_programs += unique
        self.evaluated_programs += evaluated
        self.updates += 1
        return bests

    def restart(self) -> None:
        """Count from here whether the run is stuck: what an earlier start found is no measure for a new one."""
        self.restarts += 1
        self.restarted_at = self.programs
        self.start_best_reward = -math.inf

    def _first(self, known: int | None, is_found: npt.NDArray[np.bool_]) -> int | None:
        if known is not None or not is_found.any():
            return known
        return self.programs + int(is_found.argmax()) + 1

    def _next_best(self, scores: ScoreBatch, start: int) -> int | None:
        """Return the first position from `start` that is better than the best; a verified program always is."""
        verified, rewards = scores.verified[start:], scores.rewards[start:]
        is_better = rewards > self.best_reward
        if self.verified:
            is_better &= verified
        else:
            is_better |= verified
        return start + int(is_better.argmax()) if is_better.any() else None


@dataclass
class RunTotals:
    """Counters of a run: those of its tasks, by position, and how their rewards have moved of late.

    Updates, programs and seconds are the sums; the run is solved or verified when every task is.
    """

    tasks: list[Totals]
    windows: list[ProgressWindow]

    @classmethod
    def start(cls, tasks: int) -> RunTotals:
        """Return the totals of a run of so many tasks that has done nothing."""
        return cls([Totals() for _ in range(tasks)], [ProgressWindow() for _ in range(tasks)])

    @property
    def updates(self) -> int:
        """Updates done."""
        return sum(task.updates for task in self.tasks)

    @property
    def programs(self) -> int:
        """Programs sampled, duplicates included."""
        return sum(task.programs for task in self.tasks)

    @property
    def unique_programs(self) -> int:
        """Programs that differ from all before them on the same task."""
        return sum(task.unique_programs for task in self.tasks)

    @property
    def evaluated_programs(self) -> int:
        """Programs that were run."""
        return sum(task.evaluated_programs for task in self.tasks)

    @property
    def seconds(self) -> float:
        """Time spent on updates."""
        return sum(task.seconds for task in self.tasks)

    @property
    def solved(self) -> bool:
        """Whether every task is."""
        return all(task.solved for task in self.tasks)

    @property
    def verified(self) -> bool:
        """Whether every task is."""
        return all(task.verified for task in self.tasks)


def pack_state(totals: RunTotals, seen: Sequence[Keys]) -> bytes:
    """Return the totals and, by task, the keys of the programs seen in order of first sighting, for a checkpoint."""
    tasks = [{**asdict(task), "unique_programs": len(keys)} for task, keys in zip(totals.tasks, seen, strict=True)]
    windows = [window.updates for window in totals.windows]
    header = json.dumps({"tasks": tasks, "windows": windows}, sort_keys=True).encode()
    keys = np.concatenate(list(seen)).astype("<u8", copy=False)
    return _HEADER.pack(len(header)) + header + keys.tobytes()


def unpack_state(content: bytes) -> tuple[RunTotals, list[Keys]]:
    """Return what `pack_state` was given.

    Raises:
        CheckpointError: not what `pack_state` gives.
    """
    try:
        (size,) = _HEADER.unpack_from(content)
        if len(content) < _HEADER.size + size:
            raise ValueError(f"{len(content)} bytes, its header alone needs {_HEADER.size + size}")
        fields = json.loads(content[_HEADER.size : _HEADER.size + size])
        keys = np.frombuffer(content, dtype="<u8", offset=_HEADER.size + size).astype(np.uint64)
        if "tasks" not in fields:  # written when a run had one task, which had all keys
            fields = {"tasks": [{**fields, "unique_programs": len(keys)}], "windows": [[]]}
        tasks = [Totals(**task) for task in fields["tasks"]]
        windows = [ProgressWindow([(count, mean, best) for count, mean, best in rows]) for rows in fields["windows"]]
        ends = np.cumsum([task.unique_programs for task in tasks])
        if ends[-1] != len(keys) or len(windows) != len(tasks):
            raise ValueError(f"{len(keys)} programs seen, its tasks have {ends[-1]}")
        return RunTotals(tasks, windows), np.split(keys, ends[:-1])
    except (struct.error, ValueError, TypeError, KeyError, IndexError) as error:
        raise CheckpointError(f"the coordinator's state in the checkpoint cannot be read: {error}") from error
