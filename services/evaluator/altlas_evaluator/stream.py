"""JSON lines in, JSON lines out: the engine of `altlas execute` and `altlas score`.

Invariants: every line gets exactly one answer, in the order of the lines, written and flushed as soon as it and those
before it are known, whether or not more input has come; a line that is wrong gets an error record and the next one is
read; no more than a window of lines is in hand.
"""

from __future__ import annotations

import base64
import codecs
import json
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

from altlas.core.program import Execution, Program, ProgramStatus
from altlas.core.reward import RewardSettings
from altlas.core.task import BRAINF, Task
from altlas.errors import ConfigError, SandboxError
from altlas_evaluator.engine import Executor
from altlas_evaluator.languages.brainf.runner import load_kernel, run_brainf
from altlas_evaluator.languages.registry import task_languages
from altlas_evaluator.line_records import ExecuteRecord, RecordError, ScoreRecord, parse_record
from altlas_evaluator.scoring import ScoredProgram, TaskScorer, check_program

LINE_BYTES = 128 << 20
_LINES_PER_SLOT = 8

Answer = dict[str, object]
Pending = Callable[[], Answer]  # waits for the answer
Accept = Callable[[bytes], Pending]  # starts the work for a line; raises RecordError


def stream_execute(input: BinaryIO, output: BinaryIO, executor: Executor, *, language: str = "python") -> None:
    """Run every program of `input` and write what came of it to `output`.

    Args:
        input: lines {id?, source | source_base64, stdin? | stdin_base64?, language?, limits?}; of brainf {id?, source |
            source_base64, input?, base?, max_steps?, require_correct_syntax?, language?}.
        output: lines {id, status, exit_code, stdout, stderr, cpu_s, wall_s, peak_memory_bytes}, `stdout_base64` in
            place of `stdout` where it is not UTF-8; of brainf {id, status, output, steps}, the status being ok,
            step_limit or syntax_error; {line, id, error} for a line that is wrong.
        executor: runs them, but for those in brainf.
        language: of records that name none.

    Raises:
        ConfigError: that language cannot be run here.
    """
    if language == BRAINF:
        load_kernel()
    elif language not in executor.languages:
        raise ConfigError(f"language {language!r} is unknown; choose from {', '.join(task_languages())}")

    def accept(line: bytes) -> Pending:
        record = parse_record(ExecuteRecord, line)
        try:
            return _accept_program(record, record.language or language, executor)
        except ConfigError as error:
            raise RecordError(str(error), record.id) from error

    _stream(input, output, accept, window=_LINES_PER_SLOT * executor.slots)


def _accept_program(record: ExecuteRecord, language: str, executor: Executor) -> Pending:
    """Start a record's program; raises ConfigError where it cannot be run as it stands."""
    misplaced = record.misplaced_keys(language)
    if misplaced:
        raise ConfigError(f"{', '.join(misplaced)}: not for programs in {language}")
    if language == BRAINF:
        run = run_brainf(
            record.source_bytes,
            record.input,
            base=record.base,
            max_steps=record.max_steps,
            requires_balance=record.require_correct_syntax,
        )
        answer: Answer = {"id": record.id, "status": run.status, "output": run.output, "steps": run.steps}
        return lambda: answer
    program = Program(source=record.source_bytes, language=language, stdin=record.stdin_bytes)
    future = executor.submit(program, record.limits_within(executor.default_limits))
    return lambda: {"id": record.id, **_describe(future.result())}


def stream_score(input: BinaryIO, output: BinaryIO, executor: Executor, *, task: Task, reward: RewardSettings) -> None:
    """Run every program of `input` on the task's cases and write its score to `output`.

    Args:
        input: lines {id?, source | source_base64, language?}.
        output: what `stream_execute` writes, of the first case, with the status over all cases, and reward,
            components, cases_passed, cases, solved, verified. A program that the sandbox failed on has status
            sandbox_error and reward null; a brainf program at its step limit has status timeout.
        executor: runs them.
        task: cases and limits.
        reward: what the task leaves open.

    Raises:
        ConfigError: the task's limits are above the executor's ceiling, or its language cannot be run here.
    """
    check_program(Program(source=b"", language=task.language), task, executor)
    scorer = TaskScorer(executor, reward)
    # Scoring waits for a program's cases; the threads only wait, the slots' own do the work.
    with ThreadPoolExecutor(2 * executor.slots, thread_name_prefix="score") as pool:

        def accept(line: bytes) -> Pending:
            record = parse_record(ScoreRecord, line)
            program = Program(source=record.source_bytes, language=record.language or task.language)
            if program.language != task.language:
                raise RecordError(f"language {program.language!r} is not the task's, {task.language}", record.id)
            try:
                check_program(program, task, executor)
            except ConfigError as error:
                raise RecordError(str(error), record.id) from error
            future = pool.submit(scorer.evaluate, task, [program.source])
            return lambda: {"id": record.id, **_describe_score(future)}

        _stream(input, output, accept, window=_LINES_PER_SLOT * executor.slots)


def _stream(input: BinaryIO, output: BinaryIO, accept: Accept, *, window: int) -> None:
    """Accept lines in a thread of their own, since reading may block, and write the answers from this one."""
    pending: queue.Queue[Pending | BaseException | None] = queue.Queue(maxsize=window)

    def read() -> None:
        try:
            for number, line in enumerate(_lines(input), start=1):
                pending.put(_accept_line(accept, number, line))
        except BaseException as error:
            pending.put(error)
        else:
            pending.put(None)

    threading.Thread(target=read, name="reader", daemon=True).start()
    while (item := pending.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        output.write(json.dumps(item(), ensure_ascii=False).encode() + b"\n")
        output.flush()


def _accept_line(accept: Accept, number: int, line: bytes | None) -> Pending:
    try:
        if line is None:
            raise RecordError(f"the line is longer than {LINE_BYTES:,} bytes", None)
        return accept(line)
    except RecordError as error:
        answer: Answer = {"line": number, "id": error.record_id, "error": str(error)}
        return lambda: answer


def _lines(input: BinaryIO) -> Iterator[bytes | None]:
    """Yield lines without their end, and None for one that is too long."""
    while line := input.readline(LINE_BYTES + 1):
        if len(line) <= LINE_BYTES:
            yield line.rstrip(b"\r\n")
            continue
        while line and not line.endswith(b"\n"):
            line = input.readline(LINE_BYTES)
        yield None


def _text(name: str, content: bytes, *, is_cut: bool) -> Answer:
    """Return content under `name` where it is UTF-8, else as base64; a character cut by the limit is left out."""
    try:
        return {name: codecs.getincrementaldecoder("utf-8")().decode(content, final=not is_cut)}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content).decode()}


def _describe(execution: Execution) -> Answer:
    is_cut = execution.status is ProgramStatus.OUTPUT_LIMIT
    return {
        "status": execution.status.value,
        "exit_code": execution.exit_code,
        **_text("stdout", execution.stdout, is_cut=is_cut),
        **_text("stderr", execution.stderr, is_cut=is_cut),
        "cpu_s": round(execution.cpu_s, 6),
        "wall_s": round(execution.wall_s, 6),
        "peak_memory_bytes": execution.peak_memory_bytes,
    }


def _describe_score(future: Future[list[ScoredProgram]]) -> Answer:
    try:
        scored = future.result()[0]
    except SandboxError as error:
        fault = Execution(status=ProgramStatus.SANDBOX_ERROR, stderr=str(error).encode())
        return {**_describe(fault), "reward": None, "error": str(error)}
    score = scored.score
    return {
        **_describe(scored.executions[0]),
        "status": score.status.value,
        "reward": score.reward,
        "components": dict(score.components),
        "cases_passed": score.cases_passed,
        "cases": score.cases,
        "solved": score.solved,
        "verified": score.verified,
    }
