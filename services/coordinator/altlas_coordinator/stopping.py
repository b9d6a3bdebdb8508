"""When a run ends."""

from __future__ import annotations

import enum

from altlas.config.sections import RunSection
from altlas_coordinator.totals import RunTotals, Totals


class StopReason(enum.StrEnum):
    """Why a run ended by itself or on request."""

    SOLVED = "solved"
    BUDGET = "budget"
    WALL_CLOCK = "wall_clock"
    STUCK = "stuck"
    REQUESTED = "requested"


def stop_reason(section: RunSection, totals: RunTotals, *, is_requested: bool) -> StopReason | None:
    """Return why the run ends at this update boundary, or None."""
    if totals.verified and section.stop_on_solved:
        return StopReason.SOLVED
    if totals.programs >= section.budget:
        return StopReason.BUDGET
    if is_requested:
        return StopReason.REQUESTED
    if section.wall_clock_s and totals.seconds >= section.wall_clock_s:
        return StopReason.WALL_CLOCK
    if all(is_closed(section, task) for task in totals.tasks):
        return StopReason.STUCK
    return None


def is_closed(section: RunSection, totals: Totals) -> bool:
    """Whether a task is done with: verified, or stuck where that is no reason to start anew."""
    return (totals.verified and section.stop_on_solved) or (section.on_stuck == "stop" and is_stuck(section, totals))


def is_stuck(section: RunSection, totals: Totals) -> bool:
    """Whether `stuck_after` programs brought no better one, counted from the best or the last fresh start."""
    since = totals.programs - max(totals.start_best_at, totals.restarted_at)
    return bool(section.stuck_after) and not totals.verified and since >= section.stuck_after
