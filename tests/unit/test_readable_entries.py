"""What of the standard library's directory programs may read, where a distribution has put links into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from altlas_evaluator.sandbox import interpreter


def test_links_that_lead_out_of_it_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "python3"
    for directory in ("json", "test", "dist-packages"):
        (root / directory).mkdir(parents=True)
    for file in (tmp_path / "sitecustomize.py", root / "os.py"):
        file.touch()
    (root / "sitecustomize.py").symlink_to(tmp_path / "sitecustomize.py")
    (root / "gone.py").symlink_to(tmp_path / "gone.py")
    (root / "_sysconfigdata.py").symlink_to("os.py")
    monkeypatch.setattr(interpreter, "standard_library", lambda: str(root))
    names = {Path(path).name for path in interpreter.readable_entries()}
    assert names == {"json", "os.py", "_sysconfigdata.py"}
