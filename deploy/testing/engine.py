"""The Docker engine that the test talks to: one that runs already, or one of its own for as long as the test takes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from steps import run, step

_SCRIPT = Path(__file__).with_name("engine.sh")
_NAMES = ("DOCKER_HOST", "DOCKER_CONFIG", "PATH")
_START_S, _BASE_S, _STOP_S = 900, 1200, 300


@dataclass(frozen=True)
class Engine:
    """An engine. `environment` is what makes docker talk to it; `is_ours` says that nobody else uses it."""

    environment: dict[str, str]
    directory: Path
    is_ours: bool

    def docker(self, *arguments: str, timeout_s: float = 60, stdin: str = "") -> str:
        """Run a docker command and return what it printed."""
        return run(("docker", *arguments), timeout_s=timeout_s, environment=self.environment, stdin=stdin)

    def has_image(self, name: str) -> bool:
        """Say whether an image is there."""
        return bool(self.docker("images", "--quiet", name).strip())

    def make_base(self, tag: str) -> str:
        """Make the stand-in for the base image and return what is to be said of it."""
        return _script("base", self.directory, tag, timeout_s=_BASE_S, environment=self.environment)


@contextmanager
def engine(directory: Path, *, is_kept: bool) -> Iterator[Engine]:
    """Yield a running engine: the machine's own where one answers, else one from Debian's packages in `directory`.

    The machine's own is left as it is. The other is stopped at the end, whatever happens, unless `is_kept`.
    """
    if _answers():
        with step("engine: the one that runs here") as found:
            found.found = run(
                ("docker", "info", "--format", "Docker {{.ServerVersion}}, cgroup v{{.CgroupVersion}}"), timeout_s=30
            ).strip()
        yield Engine(dict(os.environ), directory, is_ours=False)
        return
    try:
        with step("engine: none runs here, so one of Debian's packages") as found:
            found.found = _script("up", directory, timeout_s=_START_S)
        environment = run(
            (
                "bash",
                "-c",
                f'. "$1" && for name in {" ".join(_NAMES)}; do echo "$name=${{!name}}"; done',
                "-",
                str(directory / "env"),
            ),
            timeout_s=10,
        )
        settings = dict(line.split("=", 1) for line in environment.splitlines())
        yield Engine({**os.environ, **settings}, directory, is_ours=True)
    finally:
        if not is_kept:
            with step("engine stopped") as found:
                found.found = _script("down", directory, timeout_s=_STOP_S)


def _answers() -> bool:
    try:
        return subprocess.run(("docker", "info"), capture_output=True, timeout=30).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def _script(*arguments: str | Path, timeout_s: float, environment: dict[str, str] | None = None) -> str:
    said = run(("bash", str(_SCRIPT), *map(str, arguments)), timeout_s=timeout_s, environment=environment)
    return said.strip().removeprefix("engine: ")
