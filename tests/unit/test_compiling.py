"""What is kept of compiled functions, over processes: used again, and made anew when what it was made from changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INNER = """
from altlas.core.compiling import {decorator}

FACTOR = 3


@{decorator}
def inner(value):
    return value * FACTOR
"""
OUTER = """
from altlas.core.compiling import compiled
from inner import FACTOR, inner


@compiled
def outer(value):
    return inner(value) + 10 * FACTOR
"""
MAIN = "import outer; print(outer.outer(2), *outer.outer.stats.cache_hits.values())"


def run(folder: Path) -> list[int]:
    """Return what outer(2) is in a new process, and how often its machine code was found."""
    environ = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environ["PYTHONDONTWRITEBYTECODE"] = "1"  # which goes by seconds and size, and these edits keep both
    out = subprocess.run(
        [sys.executable, "-c", MAIN], cwd=folder, env=environ, capture_output=True, text=True, check=True, timeout=120
    )
    return [int(word) for word in out.stdout.split()]


@pytest.mark.parametrize("decorator", ["compiled", "compiled_inside"])
def test_machine_code_is_kept_until_a_file_that_it_was_made_from_changes(tmp_path: Path, decorator: str) -> None:
    inner, outer = tmp_path / "inner.py", tmp_path / "outer.py"
    inner.write_text(INNER.format(decorator=decorator))
    outer.write_text(OUTER)
    assert run(tmp_path) == [36]
    assert run(tmp_path) == [36, 1]
    inner.write_text(inner.read_text().replace("* FACTOR", "- FACTOR"))
    assert run(tmp_path) == [29]
    inner.write_text(inner.read_text().replace("FACTOR = 3", "FACTOR = 4"))
    assert run(tmp_path) == [38]
    outer.write_text(outer.read_text().replace("10 *", "20 *"))
    assert run(tmp_path) == [78]
