"""The score of one program on one task, as it travels from the evaluator to the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from altlas.core.program import ProgramStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A program's reward, in [0, 1] unless the task's language says otherwise, and where it came from.

    `status` is the first status over the cases that is not ok, else ok. `components` are the unweighted parts in
    [0, 1]: syntax, runs, similarity, exact, each a mean over cases, and trend where the task's cases are numbers.
    `solved`: every reward case exact. `verified`: solved, and every held-out case exact too (a solved task without
    held-out cases counts as verified).
    `behaviour` is 16 bytes over status and output of every reward case: equal behaviour, equal bytes.
    `error` is the last line of the first failing case's stderr. `case_rewards` is how good each reward case was by
    itself: the reward as if that case were the only one, without trend and caps, which look at all cases.
    """

    status: ProgramStatus
    reward: float
    components: Mapping[str, float] = field(default_factory=dict)
    cases_passed: int = 0
    cases: int = 0
    solved: bool = False
    verified: bool = False
    behaviour: bytes = b""
    error: str = ""
    case_rewards: tuple[float, ...] = ()
