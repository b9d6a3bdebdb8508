"""The installed console script, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ALTLAS = Path(sys.executable).with_name("altlas")


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """The object on the last line of stdout."""
        return dict(json.loads(self.stdout.splitlines()[-1]))


Run = Callable[..., Finished]


def clean_environment() -> dict[str, str]:
    """The environment without settings of ours."""
    return {key: value for key, value in os.environ.items() if not key.startswith("ALTLAS_")}


@pytest.fixture
def altlas(tmp_path: Path) -> Run:
    """Runs `altlas ARGUMENTS` in an empty directory, with one evaluator where the arguments do not say."""

    def run(
        *arguments: str | Path, stdin: str = "", env: dict[str, str] | None = None, timeout: float = 100
    ) -> Finished:
        done = subprocess.run(
            [ALTLAS, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=tmp_path,
            env=clean_environment() | {"ALTLAS_RUN__EVALUATORS": "1"} | (env or {}),
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def start_altlas(tmp_path: Path) -> Callable[[Sequence[str | Path]], subprocess.Popen[str]]:
    """Starts `altlas ARGUMENTS` and returns at once."""

    def start(arguments: Sequence[str | Path]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [ALTLAS, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=clean_environment(),
        )

    return start
