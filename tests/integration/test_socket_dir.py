"""Directories for sockets: those of killed processes go, those of living ones stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from altlas.transport.socket_dir import SocketDir

HOLDER = "from altlas.transport.socket_dir import SocketDir; print(SocketDir().path, flush=True); input()"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def age(path: Path) -> None:
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))


def test_only_what_a_dead_process_left_is_removed(temporary: Path) -> None:
    (temporary / "altlas-other").mkdir()
    age(temporary / "altlas-other")
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as holder:
        assert holder.stdout is not None
        held = Path(holder.stdout.readline().strip())
        (held / "s").touch()
        age(held)
        first = SocketDir()
        assert held.is_dir()
        holder.kill()
    SocketDir().remove()
    assert not held.exists()
    assert first.path.is_dir()
    first.remove()
    first.remove()
    assert [path.name for path in temporary.iterdir()] == ["altlas-other"]


def test_a_directory_that_is_being_made_stays(temporary: Path) -> None:
    young = temporary / "altlas.young"
    young.mkdir()
    SocketDir().remove()
    assert young.is_dir()
    age(young)
    SocketDir().remove()
    assert not young.exists()
