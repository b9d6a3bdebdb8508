"""The evaluator and the coordinator load no torch, and `altlas --help` not even numpy."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import altlas_coordinator
import altlas_evaluator

HEAVY = {"torch", "lark", "safetensors"}

_PROBE = """
import importlib, json, sys
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps(sorted(set(sys.modules) & {heavy!r})))
"""


def heavy_modules_after(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def modules_of(package: str, path: list[str]) -> list[str]:
    found = pkgutil.walk_packages(path, prefix=f"{package}.")
    return [package, *(module.name for module in found if not module.name.endswith("__main__"))]


@pytest.mark.parametrize(
    ("package", "path"),
    [("altlas_coordinator", list(altlas_coordinator.__path__)), ("altlas_evaluator", list(altlas_evaluator.__path__))],
)
def test_no_module_of_the_role_loads_torch(package: str, path: list[str]) -> None:
    names = modules_of(package, path)
    assert f"{package}.app" in names
    assert heavy_modules_after(_PROBE.format(names=names, heavy=HEAVY)) == []


def test_the_probe_sees_torch() -> None:
    assert heavy_modules_after(_PROBE.format(names=["altlas.core.novelty"], heavy=HEAVY)) == ["torch"]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["serve", "evaluator", "--help"]])
def test_help_loads_neither_numpy_nor_grpc(arguments: list[str]) -> None:
    code = f"""
import json, sys
from altlas.cli.main import app
try:
    app({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(set(sys.modules) & {HEAVY | {"numpy", "grpc"}!r})))
"""
    assert heavy_modules_after(code) == []


@pytest.mark.parametrize("package", [altlas_coordinator, altlas_evaluator])
def test_no_module_of_the_role_names_torch(package: object) -> None:
    """Also not inside a function, where the probe above does not look."""
    (root,) = package.__path__  # type: ignore[attr-defined]
    sources = {path: path.read_text(encoding="utf-8") for path in Path(root).rglob("*.py")}
    assert sources
    assert [str(path) for path, text in sources.items() if "import torch" in text] == []
