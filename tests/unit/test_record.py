"""Which attempts of an update are kept, and what its figures say."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from altlas.config.sections import Config, LoggingSection
from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.obs.run_files import RunFiles
from altlas.rpc.coordinator.v1 import coordinator_pb2
from altlas_coordinator.evaluation import EvaluatedBatch
from altlas_coordinator.loop import UpdateReport
from altlas_coordinator.record import record_update
from altlas_coordinator.totals import Totals

SOLVED = Score(status=ProgramStatus.OK, reward=1.0, solved=True, behaviour=bytes(16), error="")
FAILED = Score(status=ProgramStatus.TIMEOUT, reward=-2.5, behaviour=bytes(16), error="late")


def record(
    run_dir: Path, scores: list[Score], *, is_new: list[bool], before: int = 0, sample_every: int = 0
) -> tuple[list[tuple[int, str, str, str]], coordinator_pb2.Progress]:
    """Record one update of a run that had sampled `before` programs; return the attempts kept and the progress."""
    totals = Totals(programs=before)
    sources = [b"program %d" % row for row in range(len(scores))]
    batch = EvaluatedBatch(batch_scores(scores), np.array(is_new), evaluated=sum(is_new))
    bests = totals.add(sources, batch.scores, unique=sum(is_new), evaluated=sum(is_new))
    report = UpdateReport(totals=totals, sources=sources, batch=batch, bests=bests, metrics={}, stage_s={})
    files = RunFiles(run_dir, language="python", log_format="text")
    config = Config(logging=LoggingSection(attempts_sample=sample_every))
    progress = record_update(report, files, config=config)
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
    assert (tmp_path / "best_program.py").read_text() == "program 2\n"


@pytest.mark.parametrize(("before", "programs"), [(0, [0, 3]), (1, [3]), (2, [3]), (3, [3, 6]), (4, [6])])
def test_every_so_manieth_program_of_the_run_is_kept(tmp_path: Path, before: int, programs: list[int]) -> None:
    kept, _ = record(tmp_path, [FAILED] * 4, is_new=[True] * 4, before=before, sample_every=3)
    assert sorted({program for program, *_ in kept} - {before}) == [n for n in programs if n != before]


def test_progress_counts_statuses_and_rewards(tmp_path: Path) -> None:
    scores = [FAILED, SOLVED, FAILED, dataclasses.replace(FAILED, reward=-1.0)]
    _, progress = record(tmp_path, scores, is_new=[True] * 4)
    assert dict(progress.statuses) == {"ok": 1, "timeout": 3}
    assert (progress.mean_reward, progress.max_reward, progress.best_reward) == (-1.25, 1.0, 1.0)
