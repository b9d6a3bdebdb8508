"""The generated code that is checked in is what protos/ gives, byte for byte."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


def generated_in(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text(encoding="utf-8")
        for path in (root / "altlas").rglob("*_pb2*")
        if path.name.endswith(SUFFIXES)
    }


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "protos").rglob("*.proto"))
    outputs = [f"--{kind}={tmp_path}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "protos", *outputs, *protos]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    fresh, kept = generated_in(tmp_path), generated_in(ROOT / "src")
    assert len(fresh) == len(SUFFIXES) * len(protos)
    assert kept.keys() == fresh.keys()
    assert [name for name in fresh if fresh[name] != kept[name]] == [], "run `make protos`"
