"""Which attempts of an update are kept, and what its figures say."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from altlas.config.sections import Config, LoggingSection
from altlas.core.curriculum import ProgressWindow
from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.obs.run_files import RunFiles
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas_coordinator.evaluation import EvaluatedBatch
from altlas_coordinator.loop import UpdateReport
from altlas_coordinator.record import record_update
from altlas_coordinator.totals import RunTotals, Totals

SOLVED = Score(status=ProgramStatus.OK, reward=1.0, solved=True, behaviour=bytes(16), error="")
FAILED = Score(status=ProgramStatus.TIMEOUT, reward=-2.5, behaviour=bytes(16), error="late")
TASKS = ["pack/first", "pack/second"]


def record(
    run_dir: Path, scores: list[Score], *, is_new: list[bool], before: int = 0, sample_every: int = 0
) -> tuple[list[tuple[int, str, str, str]], coordinator_pb2.Progress]:
    """Record one update of a run that had sampled `before` programs; return the attempts kept and the progress."""
    totals = RunTotals([Totals(programs=before), Totals()], [ProgressWindow(), ProgressWindow()])
    sources = [b"program %d" % row for row in range(len(scores))]
    batch = EvaluatedBatch(batch_scores(scores), np.array(is_new), evaluated=sum(is_new))
    bests = totals.tasks[0].add(sources, batch.scores, unique=sum(is_new), evaluated=sum(is_new))
    report = UpdateReport(totals=totals, task=0, sources=sources, batch=batch, bests=bests, metrics={}, stage_s={})
    files = RunFiles(run_dir, tasks=TASKS, language="python", log_format="text")
    config = Config(logging=LoggingSection(attempts_sample=sample_every))
    progress = record_update(report, files, config=config, task_names=TASKS)
    files.close()
    with sqlite3.connect(run_dir / "attempts.sqlite") as database:
        kept = database.execute("SELECT program, kept_for, error, source FROM attempts ORDER BY program").fetchall()
    return kept, progress


def test_bests_and_new_solutions_are_kept(tmp_path: Path) -> None:
    scores = [FAILED, FAILED, SOLVED, SOLVED, SOLVED]
    kept, _ = record(tmp_path, scores, is_new=[True, False, True, False, True], before=7)
    assert kept == [
        (7, "best", "late", "program 0"),
        (9, "best", "", "program 2"),
        (11, "solved", "", "program 4"),
    ]
    assert (tmp_path / "best_program.first.py").read_text() == "program 2\n"


@pytest.mark.parametrize(("before", "programs"), [(0, [0, 3]), (1, [3]), (2, [3]), (3, [3, 6]), (4, [6])])
def test_every_so_manieth_program_of_the_run_is_kept(tmp_path: Path, before: int, programs: list[int]) -> None:
    kept, _ = record(tmp_path, [FAILED] * 4, is_new=[True] * 4, before=before, sample_every=3)
    assert sorted({program for program, *_ in kept} - {before}) == [n for n in programs if n != before]


def test_progress_counts_statuses_and_rewards(tmp_path: Path) -> None:
    scores = [FAILED, SOLVED, FAILED, dataclasses.replace(FAILED, reward=-1.0)]
    _, progress = record(tmp_path, scores, is_new=[True] * 4)
    assert dict(progress.statuses) == {"ok": 1, "timeout": 3}
    assert (progress.mean_reward, progress.max_reward, progress.best_reward) == (-1.25, 1.0, 1.0)


def test_every_task_is_reported_and_the_run_is_solved_when_all_are(tmp_path: Path) -> None:
    _, progress = record(tmp_path, [FAILED, SOLVED], is_new=[True, True])
    first, second = progress.tasks
    assert (first.name, first.programs, first.solved, first.programs_to_solve) == ("pack/first", 2, True, 2)
    assert (second.name, second.programs, second.solved) == ("pack/second", 0, False)
    assert not second.HasField("best_reward")
    assert not first.HasField("programs_to_verify")
    assert not progress.solved
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    figures = json.loads(line)
    assert (figures["task"], figures["task_programs"], figures["solved"]) == ("pack/first", 2, True)
    with sqlite3.connect(tmp_path / "attempts.sqlite") as database:
        assert database.execute("SELECT DISTINCT task FROM attempts").fetchall() == [("pack/first",)]
