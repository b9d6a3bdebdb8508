"""`altlas execute` and `altlas score`: JSON lines through the evaluator's engine, in this process's own sandbox."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from altlas.config.loader import load_config
from altlas.obs.logs import configure_logging


def run_execute(*, language: str, config_file: Path | None, overrides: Sequence[str]) -> int:
    """Run every program of stdin; returns the exit code."""
    config = load_config(config_file=config_file, environ=os.environ, overrides=overrides)
    configure_logging(role="execute", level=config.logging.level, log_format=config.logging.format)
    from altlas_evaluator.engine import Executor
    from altlas_evaluator.stream import stream_execute

    executor = Executor(config.sandbox)
    try:
        stream_execute(sys.stdin.buffer, sys.stdout.buffer, executor, language=language)
    finally:
        executor.close()
    return 0


def run_score(*, task: str, config_file: Path | None, overrides: Sequence[str]) -> int:
    """Run and score every program of stdin; returns the exit code."""
    config = load_config(config_file=config_file, environ=os.environ, overrides=overrides)
    configure_logging(role="score", level=config.logging.level, log_format=config.logging.format)
    from altlas.tasks import load_task
    from altlas_evaluator.engine import Executor
    from altlas_evaluator.languages.registry import task_languages
    from altlas_evaluator.stream import stream_score

    parsed, _ = load_task(task, languages=task_languages())
    executor = Executor(config.sandbox)
    try:
        stream_score(sys.stdin.buffer, sys.stdout.buffer, executor, task=parsed, reward=config.reward)
    finally:
        executor.close()
    return 0
