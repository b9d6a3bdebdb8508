"""Shrinking the program that solved a run, by the evaluator that the run has used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altlas.cli.train import LocalRun
from altlas.client import Evaluator
from altlas.core.shrinking import shrink
from altlas.core.tokenizer import build_tokenizer
from altlas.core.vocabulary import parse_vocabulary
from altlas.errors import AltlasError

# Some hundred are what a program of 20 tokens takes, ten thousand one of 100.
MAX_CANDIDATES = 20_000
_CALL_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrunkProgram:
    """What shrinking left, after how many programs; `is_minimal`: nothing small can be left out of it."""

    source: str
    programs: int
    is_minimal: bool


def shrink_into(summary: dict[str, Any], run: LocalRun, *, address: str, task: int = 0) -> None:
    """Shrink the summary's best program and add what was left, or why nothing was: a solved run stays solved."""
    try:
        shrunk = shrink_program(summary["best_program"], run, address=address, task=task)
    except AltlasError as error:
        summary["shrink_error"] = str(error)
    except KeyboardInterrupt:
        summary["shrink_error"] = "interrupted"
    else:
        summary["shrunk_program"] = shrunk.source
        summary["shrink_programs"] = shrunk.programs
        summary["shrunk_is_minimal"] = shrunk.is_minimal


def shrink_program(source: str, run: LocalRun, *, address: str, task: int = 0) -> ShrunkProgram:
    """Return the program without the tokens that it does not need to be solved and verified, and write its file.

    Args:
        source: a verified program of the run.
        run: its tasks, vocabulary and directory.
        address: of an evaluator.
        task: whose program it is, by position.

    Raises:
        AltlasError: the evaluator failed, or the program is not in the run's vocabulary.
    """
    solved = run.tasks[task].task
    tokenizer = build_tokenizer(parse_vocabulary(run.vocabulary_text, name=solved.vocabulary), solved.language)
    tokens = tokenizer.encode_ids(source)
    if tokenizer.decode(tokens) != source:
        raise AltlasError("its text is not what its tokens give, so that it cannot be shrunk token by token")
    with Evaluator(address) as evaluator:

        def are_verified(candidates: Sequence[tuple[int, ...]]) -> Sequence[bool]:
            sources = [tokenizer.decode(candidate) for candidate in candidates]
            return [score.verified for score in evaluator.evaluate(solved, sources, timeout_s=_CALL_S)]

        shrunk = shrink(tokens, are_verified, max_candidates=MAX_CANDIDATES)
    result = ShrunkProgram(
        source=tokenizer.decode(shrunk.tokens), programs=shrunk.candidates, is_minimal=shrunk.is_minimal
    )
    _write_beside_the_best(run.run_dir, result.source, label=run.file_labels[task])
    return result


def _write_beside_the_best(run_dir: Path, source: str, *, label: str) -> None:
    for best in run_dir.glob(f"best_program.{label}*"):
        shrunk = best.name.replace("best_program.", "best_program_shrunk.", 1)
        best.with_name(shrunk).write_text(source.removesuffix("\n") + "\n", encoding="utf-8")
