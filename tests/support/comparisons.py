"""Rows of comparisons that nobody has run."""

from __future__ import annotations

import dataclasses
from typing import Any

from altlas.report.results import Row


def make_row(**changes: Any) -> Row:
    """A run that solved at 100 of 1,000 programs, but for the changes."""
    solved = Row(
        task="basics/hello_world",
        algorithm="policy",
        settings="policy",
        seed=1,
        budget=1000,
        programs=256,
        solved=True,
        verified=True,
        programs_to_solve=100,
        programs_to_verify=100,
        best_reward=1.0,
        unique=250,
        evaluated=250,
        wall_s=2.5,
        cpu_s=3.25,
        program="print('hello',\n 'world')",
        shrunk_program="",
        version="0.1.0",
        commit="",
        started_at="2026-01-02T03:04:05Z",
    )
    return dataclasses.replace(solved, **changes)


def unsolved(**changes: Any) -> Row:
    """A run that spent its budget."""
    facts = {"solved": False, "verified": False, "programs_to_solve": None, "programs_to_verify": None}
    return make_row(**{**facts, "best_reward": 0.5, "programs": 1000, **changes})
