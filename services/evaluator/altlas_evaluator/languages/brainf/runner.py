"""Runs and scores brainf programs: between tasks and bytes on one side, the kernel's arrays on the other.

Invariants: importing this does not import numba; a call of the kernel takes at most `_STEPS_PER_CALL` steps unless one
program alone may take more, and between two calls the caller may end the work.
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import numpy as np
import numpy.typing as npt

from altlas.core.program import ProgramStatus
from altlas.core.score_batch import BEHAVIOUR_BYTES, STATUSES, ScoreBatch
from altlas.core.task import MAX_BRAINF_BASE, MAX_BRAINF_STEPS, Case, Task
from altlas.errors import ConfigError

LOGGER = logging.getLogger(__name__)
SOURCE_BYTES = 1 << 20
COMPONENTS = ("runs", "exact")

_STEPS_PER_CALL = 1 << 26  # about 0.2 s
_PATIENCE_S = 1.0
_OK = STATUSES.index(ProgramStatus.OK)
_TIMEOUT = STATUSES.index(ProgramStatus.TIMEOUT)

RunStatus = Literal["ok", "step_limit", "syntax_error"]
_RUN_STATUSES: tuple[RunStatus, ...] = ("ok", "step_limit", "syntax_error")


@dataclass(frozen=True, slots=True)
class BrainfRun:
    """What one run gave: how it ended, what it wrote, the steps it took, and the cells that it had."""

    status: RunStatus
    output: list[int]
    steps: int
    memory: list[int]


@dataclass(frozen=True, slots=True)
class _Cases:
    """Inputs and targets of cases end to end, int64, with the end of each."""

    inputs: npt.NDArray[np.int64]
    input_ends: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    target_ends: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.input_ends)


def run_brainf(
    source: bytes,
    inputs: Sequence[int],
    *,
    base: int,
    max_steps: int,
    requires_balance: bool = False,
    memory: Sequence[int] = (),
) -> BrainfRun:
    """Run one program once.

    Args:
        source: UTF-8; each character but the eight operations is a step that does nothing.
        inputs: what `,` reads; within int64.
        base: cells wrap there; 1 to MAX_BRAINF_BASE.
        max_steps: at which the run fails; 1 to MAX_BRAINF_STEPS.
        requires_balance: whether an unmatched bracket is a syntax error rather than nothing.
        memory: the first cells before the start.

    Raises:
        ConfigError: the source is too large, an argument is out of range, or numba is not installed.
    """
    if not 1 <= base <= MAX_BRAINF_BASE:
        raise ConfigError(f"base = {base} is out of range: 1 to {MAX_BRAINF_BASE}")
    if not 1 <= max_steps <= MAX_BRAINF_STEPS:
        raise ConfigError(f"max_steps = {max_steps} is out of range: 1 to {MAX_BRAINF_STEPS}")
    text, _ = _join([source])
    tape = np.zeros(max_steps + 1 + len(memory), dtype=np.int64)
    tape[: len(memory)] = memory
    outputs = np.empty(max_steps, dtype=np.int64)
    kernel = load_kernel()
    with _told_if_slow(kernel.run_program.signatures):
        ending, steps, written, cells = kernel.run_program(
            text, np.array(inputs, dtype=np.int64), base, max_steps, requires_balance, tape, outputs
        )
    used = max(cells, len(memory)) if ending != kernel.SYNTAX_ERROR else 0
    return BrainfRun(_RUN_STATUSES[ending], outputs[:written].tolist(), steps, tape[:used].tolist())


def score_brainf(task: Task, sources: Sequence[bytes], *, check: Callable[[], None] = lambda: None) -> ScoreBatch:
    """Score programs on a brainf task; the held-out cases are run for those that solve all others.

    Args:
        task: whose language is brainf.
        sources: UTF-8, at least one.
        check: called now and then; what it raises ends the work.

    Raises:
        ConfigError: a source is too large, or numba is not installed.
        ValueError: no sources.
    """
    if not sources:
        raise ValueError("no programs to score")
    cases = _flatten(task.cases)
    count = len(sources)
    totals = np.empty(count, dtype=np.float64)
    passed = np.empty(count, dtype=np.int64)
    statuses = np.empty(count, dtype=np.uint8)
    behaviours = np.empty((count, BEHAVIOUR_BYTES // 8), dtype=np.uint64)
    case_rewards = np.empty((count, len(cases)), dtype=np.float32)
    _score_in_parts(task, sources, cases, (totals, passed, statuses, behaviours, case_rewards), check)
    solved = passed == len(cases)
    ended = statuses == 0
    return ScoreBatch(
        statuses=np.where(ended, _OK, _TIMEOUT).astype(np.uint8),
        rewards=totals,
        solved=solved,
        verified=_verify(task, sources, solved, check),
        cases_passed=passed,
        behaviours=behaviours.view(np.uint8),
        case_rewards=case_rewards,
        component_names=COMPONENTS,
        components=np.stack([ended, passed / len(cases)], axis=1).astype(np.float32),
    )


def check_brainf_source(source: bytes) -> None:
    """Raise ConfigError where a source is too large to be run."""
    if len(source) > SOURCE_BYTES:
        raise ConfigError(f"the source has {len(source):,} bytes; brainf programs have {SOURCE_BYTES:,} at most")


@functools.cache
def load_kernel() -> ModuleType:
    """Return the interpreter.

    Raises:
        ConfigError: numba is not installed.
    """
    try:
        from altlas_evaluator.languages.brainf import kernel
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise ConfigError("brainf programs need numba, which is not installed: pip install 'altlas[brainf]'") from error
    return kernel


def _verify(
    task: Task, sources: Sequence[bytes], solved: npt.NDArray[np.bool_], check: Callable[[], None]
) -> npt.NDArray[np.bool_]:
    verified = solved.copy()
    rows = np.flatnonzero(solved)
    if not len(rows) or not task.held_out:
        return verified
    cases = _flatten(task.held_out)
    count = len(rows)
    passed = np.empty(count, dtype=np.int64)
    unused = np.empty(count), np.empty(count, np.uint8), np.empty((count, 2), np.uint64)
    case_rewards = np.empty((count, len(cases)), dtype=np.float32)
    totals, statuses, behaviours = unused
    arrays = (totals, passed, statuses, behaviours, case_rewards)
    _score_in_parts(task, [sources[row] for row in rows.tolist()], cases, arrays, check)
    verified[rows] = passed == len(cases)
    return verified


def _score_in_parts(
    task: Task,
    sources: Sequence[bytes],
    cases: _Cases,
    arrays: Sequence[npt.NDArray[np.generic]],
    check: Callable[[], None],
) -> None:
    settings = task.brainf
    kernel = load_kernel()
    most = max(1, _STEPS_PER_CALL // (settings.max_steps * len(cases)))
    for begin in range(0, len(sources), most):
        check()
        part = slice(begin, begin + most)
        text, ends = _join(sources[part])
        with _told_if_slow(kernel.score_all.signatures):
            kernel.score_programs(
                text,
                ends,
                cases.inputs,
                cases.input_ends,
                cases.targets,
                cases.target_ends,
                settings.base,
                settings.max_steps,
                settings.length_reward,
                *(array[part] for array in arrays),
            )


def _join(sources: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return sources end to end, a byte per character, with their ends."""
    text = bytearray().join(sources)
    if not text.isascii():
        sources = [source.decode(errors="replace").encode("ascii", errors="replace") for source in sources]
        text = bytearray().join(sources)
    sizes = np.fromiter(map(len, sources), dtype=np.int64, count=len(sources))
    check_brainf_source(max(sources, key=len))
    return np.frombuffer(text, dtype=np.uint8), np.cumsum(sizes)


def _flatten(cases: Sequence[Case]) -> _Cases:
    inputs = [case.input or () for case in cases]
    targets = [case.expected or () for case in cases]
    return _Cases(*_end_to_end(inputs), *_end_to_end(targets))


def _end_to_end(lists: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    sizes = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    return np.fromiter(itertools.chain.from_iterable(lists), dtype=np.int64, count=int(sizes.sum())), np.cumsum(sizes)


@contextmanager
def _told_if_slow(compiled: Sequence[object]) -> Iterator[None]:
    """Log that the kernel is being compiled where that takes long: it does once, while the cache can be written."""
    if compiled:
        yield
        return
    timer = threading.Timer(_PATIENCE_S, _tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@functools.cache
def _tell() -> None:
    LOGGER.info("compiling the brainf interpreter: seconds, and once where its cache can be written")
