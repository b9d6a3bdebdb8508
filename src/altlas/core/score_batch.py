"""Many scores as arrays: what travels and what is learned from. A `Score` is one of them for people.

Statuses are positions in `STATUSES`. Equal behaviours have equal rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from altlas.core.program import ProgramStatus
from altlas.core.score import Score

STATUSES = tuple(ProgramStatus)
BEHAVIOUR_BYTES = 16

_POSITION = {status: position for position, status in enumerate(STATUSES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBatch:
    """B scores on one task of C reward cases.

    statuses: uint8 [B]. rewards: float64 [B]. solved, verified: bool [B]. cases_passed: int64 [B].
    behaviours: uint8 [B, 16]. case_rewards: float32 [B, C], how good each case was by itself.
    components: float32 [B, K] named by `component_names`. errors: one per program, or none at all.
    """

    statuses: npt.NDArray[np.uint8]
    rewards: npt.NDArray[np.float64]
    solved: npt.NDArray[np.bool_]
    verified: npt.NDArray[np.bool_]
    cases_passed: npt.NDArray[np.int64]
    behaviours: npt.NDArray[np.uint8]
    case_rewards: npt.NDArray[np.float32]
    component_names: tuple[str, ...] = ()
    components: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    errors: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def cases(self) -> int:
        """Reward cases of the task."""
        return int(self.case_rewards.shape[1])

    def score(self, row: int) -> Score:
        """Return one score."""
        return Score(
            status=STATUSES[int(self.statuses[row])],
            reward=float(self.rewards[row]),
            components=dict(zip(self.component_names, self.components[row].tolist(), strict=True))
            if self.component_names
            else {},
            cases_passed=int(self.cases_passed[row]),
            cases=self.cases,
            solved=bool(self.solved[row]),
            verified=bool(self.verified[row]),
            behaviour=self.behaviours[row].tobytes(),
            error=self.errors[row] if self.errors else "",
            case_rewards=tuple(self.case_rewards[row].tolist()),
        )

    def take(self, rows: npt.NDArray[np.int64]) -> ScoreBatch:
        """Return the scores at `rows`, which may repeat."""
        return ScoreBatch(
            **{
                item.name: getattr(self, item.name)[rows]
                for item in fields(self)
                if item.name not in ("component_names", "components", "errors")
            },
            component_names=self.component_names,
            components=self.components[rows] if self.component_names else self.components,
            errors=tuple(self.errors[row] for row in rows.tolist()) if self.errors else (),
        )


def batch_scores(scores: Sequence[Score]) -> ScoreBatch:
    """Return scores on one task as arrays, in their order; components are in that of their names.

    Raises:
        ValueError: none, of different tasks, or a behaviour is not 16 bytes long.
    """
    if not scores:
        raise ValueError("no scores to batch")
    # A mapping that came over the wire is in no order.
    names = tuple(sorted(scores[0].components))
    cases = scores[0].cases
    for row, score in enumerate(scores):
        if tuple(sorted(score.components)) != names or not score.cases == len(score.case_rewards) == cases:
            raise ValueError(f"score {row} is of another task than score 0, or lacks rewards of cases")
        if len(score.behaviour) != BEHAVIOUR_BYTES:
            raise ValueError(f"score {row} has a behaviour of {len(score.behaviour)} bytes, not {BEHAVIOUR_BYTES}")
    behaviours = np.frombuffer(b"".join(score.behaviour for score in scores), dtype=np.uint8)
    has_errors = any(score.error for score in scores)
    return ScoreBatch(
        statuses=np.array([_POSITION[score.status] for score in scores], dtype=np.uint8),
        rewards=np.array([score.reward for score in scores], dtype=np.float64),
        solved=np.array([score.solved for score in scores], dtype=np.bool_),
        verified=np.array([score.verified for score in scores], dtype=np.bool_),
        cases_passed=np.array([score.cases_passed for score in scores], dtype=np.int64),
        behaviours=behaviours.reshape(-1, BEHAVIOUR_BYTES),
        case_rewards=np.array([score.case_rewards for score in scores], dtype=np.float32).reshape(len(scores), cases),
        component_names=names,
        components=np.array([[score.components[name] for name in names] for score in scores], dtype=np.float32),
        errors=tuple(score.error for score in scores) if has_errors else (),
    )


def join_scores(batches: Sequence[ScoreBatch]) -> ScoreBatch:
    """Return the batches of one task as one, in their order.

    Raises:
        ValueError: none, or of different tasks.
    """
    if not batches:
        raise ValueError("no scores to join")
    if len({(batch.component_names, batch.cases) for batch in batches}) > 1:
        raise ValueError("the scores are of different tasks")
    if len(batches) == 1:
        return batches[0]
    arrays = {
        item.name: np.concatenate([getattr(batch, item.name) for batch in batches])
        for item in fields(ScoreBatch)
        if item.name not in ("component_names", "errors")
    }
    errors = [batch.errors or ("",) * len(batch) for batch in batches] if any(batch.errors for batch in batches) else []
    return ScoreBatch(
        **arrays, component_names=batches[0].component_names, errors=tuple(error for part in errors for error in part)
    )
