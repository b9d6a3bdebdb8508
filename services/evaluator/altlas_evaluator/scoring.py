"""Scores programs on a task: runs every case, then grades what was printed. Expected outputs stay in this process.

Some programs are run on the first case only, and what they did there counts for all: one that does not compile or that
left its input unread would do the same on every other; one that does not end, common early in training, would cost its
whole limit each time. The rest of a program's cases are run together, compiled once. Held-out cases are run for solved
programs only. brainf programs are run and graded by their own interpreter, here, and not by the executor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from altlas.core.program import Execution, Limits, Program, ProgramStatus
from altlas.core.reward import RewardSettings, is_exact, score_executions
from altlas.core.score import Score
from altlas.core.score_batch import ScoreBatch, batch_scores
from altlas.core.task import BRAINF, Case, Task
from altlas_evaluator.engine import Batch, Executor
from altlas_evaluator.languages.brainf.runner import check_brainf_source, load_kernel, run_brainf, score_brainf

_FINAL = (ProgramStatus.SYNTAX_ERROR, ProgramStatus.TIMEOUT)


@dataclass(frozen=True, slots=True)
class ScoredProgram:
    """A score, and the execution of each reward case that it was made from; of brainf programs that of the first."""

    score: Score
    executions: Sequence[Execution]


def check_program(program: Program, task: Task, executor: Executor) -> None:
    """Check that a program can be scored on a task here.

    Raises:
        ConfigError: the language cannot be run, the source is too large, or the task's limits are above the ceiling.
    """
    if task.language == BRAINF:
        load_kernel()
        check_brainf_source(program.source)
    else:
        executor.check(program, task.program_limits)


class TaskScorer:
    """Scores with one executor, or a batch of it, and one set of reward settings; a task's own settings go first."""

    def __init__(self, executor: Executor | Batch, reward: RewardSettings) -> None:
        self._executor = executor
        self._reward = reward

    def score(self, task: Task, sources: Sequence[bytes]) -> list[Score]:
        """Return a score per source, in order; equal sources are run once.

        Raises:
            SandboxError: the sandbox failed twice on a program; no score is made of that.
            ConfigError: a source is too large, or the task's limits are above the ceiling.
        """
        if task.language == BRAINF:
            scores = self.score_batch(task, sources)
            return [scores.score(row) for row in range(len(scores))]
        return [scored.score for scored in self.evaluate(task, sources)]

    def score_batch(self, task: Task, sources: Sequence[bytes]) -> ScoreBatch:
        """Return the scores of at least one source as arrays; raises as `score` does.

        Raises:
            CancelledError: the batch that this scores with was cancelled.
        """
        if task.language == BRAINF:
            return score_brainf(task, sources, check=self._raise_if_cancelled)
        return batch_scores(self.score(task, sources))

    def evaluate(self, task: Task, sources: Sequence[bytes]) -> list[ScoredProgram]:
        """Return the scores together with what the programs printed; raises as `score` does."""
        if task.language == BRAINF:
            scores = self.score(task, sources)
            return [
                ScoredProgram(score, [_run_first_case(task, source)])
                for score, source in zip(scores, sources, strict=True)
            ]
        unique = list(dict.fromkeys(sources))
        executions = self._run_cases(task, unique)
        solved = [
            source
            for source in unique
            if all(is_exact(execution, case) for execution, case in zip(executions[source], task.cases, strict=True))
        ]
        held_out = self._run_all(task, solved, task.held_out)
        by_source = {
            source: ScoredProgram(
                score_executions(task, executions[source], self._reward, held_out=held_out.get(source)),
                executions[source],
            )
            for source in unique
        }
        return [by_source[source] for source in sources]

    def _raise_if_cancelled(self) -> None:
        if isinstance(self._executor, Batch):
            self._executor.raise_if_cancelled()

    def _run_cases(self, task: Task, sources: Sequence[bytes]) -> dict[bytes, list[Execution]]:
        executions = self._run_all(task, sources, task.cases[:1])
        compiled = []
        for source in sources:
            first = executions[source][0]
            if first.status in _FINAL or not first.has_read_stdin:
                executions[source] *= len(task.cases)
            else:
                compiled.append(source)
        for source, rest in self._run_all(task, compiled, task.cases[1:]).items():
            executions[source] += rest
        return executions

    def _run_all(self, task: Task, sources: Sequence[bytes], cases: Sequence[Case]) -> dict[bytes, list[Execution]]:
        limits = task.program_limits
        executions = self._run_once(task, sources, cases, limits)
        starved = [
            source for source, runs in executions.items() if any(was_starved(execution, limits) for execution in runs)
        ]
        return executions | self._run_once(task, starved, cases, limits)

    def _run_once(
        self, task: Task, sources: Sequence[bytes], cases: Sequence[Case], limits: Limits
    ) -> dict[bytes, list[Execution]]:
        programs = [Program(source=source, language=task.language) for source in sources]
        inputs = [case.stdin.encode() for case in cases]
        return dict(zip(sources, self._executor.run_cases(programs, inputs, limits), strict=True))


def was_starved(execution: Execution, limits: Limits) -> bool:
    """Return whether a program met its wall limit with less than half of its CPU time used.

    It has slept, or the machine had no time for it: stopped, swamped, or waiting for its disk.
    """
    return execution.status is ProgramStatus.TIMEOUT and execution.cpu_s < limits.cpu_s / 2


def _run_first_case(task: Task, source: bytes) -> Execution:
    """Return what a brainf program does on the first case, its output as numbers with blanks between them."""
    settings = task.brainf
    run = run_brainf(source, task.cases[0].input or (), base=settings.base, max_steps=settings.max_steps)
    return Execution(
        status=ProgramStatus.OK if run.status == "ok" else ProgramStatus.TIMEOUT,
        stdout=" ".join(map(str, run.output)).encode(),
    )
