"""The images: those of the roles are built from the working tree, those of others pulled, or stood in for.

On an engine of the test's own, stand-ins bear the names of the originals. On an engine that somebody else uses they
would be taken for them: there they are called altlas-testing/NAME.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import Engine
from stack import Stack
from steps import DrillError, step

ROLES = ("coordinator", "evaluator", "generator", "trainer")
_WITHOUT_TORCH = ("coordinator", "evaluator")
_MOST_OVER_BASE = 250_000_000
_CONTEXT = Path(__file__).with_name("images")
_CACHE = "5GB"
_BUILD_S, _PULL_S, _PRUNE_S = 1800, 600, 300


@dataclass(frozen=True)
class Original:
    """An image of somebody else: which variable of docker-compose.yml names it, and what stands in for it."""

    variable: str
    stand_in: str


# By the service that shows its name; the base image is an argument of the roles' builds.
_ORIGINALS = {
    "redis": Original("REDIS_IMAGE", "redis"),
    "prometheus": Original("PROMETHEUS_IMAGE", "prometheus"),
    "redis-exporter": Original("REDIS_EXPORTER_IMAGE", "redis-exporter"),
    "grafana": Original("GRAFANA_IMAGE", "grafana"),
}


def provide(engine: Engine, stack: Stack) -> None:
    """Make every image there that is needed, and name those that stand in for others in the stack's environment."""
    config = stack.config()
    original_base = str(config["services"]["evaluator"]["build"]["args"]["BASE_IMAGE"])
    base = _base(engine, original_base)
    stack.environment["BASE_IMAGE"] = base
    if engine.is_ours or base != original_base:
        # Debian's Python has its headers in a package, where the original has them in the image.
        stack.environment["BUILD_PACKAGES"] = "gcc libc6-dev python3-dev"
    for service, original in _ORIGINALS.items():
        name = str(config["services"][service]["image"])
        stack.environment[original.variable] = _third_party(engine, name, original.stand_in, base)
    for role in ROLES:
        with step(f"build {role}"):
            stack.compose("build", "--quiet", role, timeout_s=_BUILD_S)
    if engine.is_ours:
        # What earlier versions left. The cache keeps what the next build of this one needs.
        engine.docker("image", "prune", "--force", timeout_s=_PRUNE_S)
        engine.docker("builder", "prune", "--force", "--keep-storage", _CACHE, timeout_s=_PRUNE_S)
    _print_sizes(engine, stack, base)


def _base(engine: Engine, name: str) -> str:
    if not engine.is_ours:
        return name if _is_had(engine, name) else _stand_in_base(engine, f"altlas-testing/{_without_digest(name)}")
    return _stand_in_base(engine, _without_digest(name))


def _stand_in_base(engine: Engine, name: str) -> str:
    if engine.has_image(name):
        return name
    with step(f"base image {name}") as found:
        found.found = engine.make_base(name)
    return name


def _third_party(engine: Engine, name: str, stand_in: str, base: str) -> str:
    if not engine.is_ours and _is_had(engine, name):
        return name
    local = _without_digest(name) if engine.is_ours else f"altlas-testing/{_without_digest(name)}"
    with step(f"stand-in for {name}"):
        arguments = (
            "--build-arg",
            f"BASE_IMAGE={base}",
            "--tag",
            local,
            "--file",
            str(_CONTEXT / f"{stand_in}.Dockerfile"),
        )
        engine.docker("build", "--quiet", *arguments, str(_CONTEXT), timeout_s=_BUILD_S)
    return local


def _is_had(engine: Engine, name: str) -> bool:
    """Say whether an image of somebody else is there, or can be had."""
    if engine.has_image(name):
        return True
    with step(f"pull {name}") as found:
        try:
            engine.docker("pull", "--quiet", name, timeout_s=_PULL_S)
        except DrillError:
            found.found = "not to be had here; a stand-in takes its place"
            return False
    return True


def _without_digest(name: str) -> str:
    return re.sub(r"@sha256:[0-9a-f]+$", "", name)


def _print_sizes(engine: Engine, stack: Stack, base: str) -> None:
    """Print each role's size over its base.

    Raises:
        DrillError: one without torch is larger than it may be.
    """
    services: dict[str, Any] = stack.config()["services"]
    sizes = {role: _size(engine, str(services[role]["image"])) for role in ROLES}
    over, too_large = _size(engine, base), []
    print(f"{'image':<14}{'MB':>8}{'over its base':>16}   base: {base}, {over / 1e6:,.0f} MB")
    for role, size in sizes.items():
        limit = f" of {_MOST_OVER_BASE / 1e6:,.0f} at most" if role in _WITHOUT_TORCH else ""
        print(f"{role:<14}{size / 1e6:>8,.0f}{(size - over) / 1e6:>16,.0f}{limit}", flush=True)
        if limit and size - over > _MOST_OVER_BASE:
            too_large.append(role)
    if too_large:
        raise DrillError(f"larger than {_MOST_OVER_BASE / 1e6:,.0f} MB over the base: {', '.join(too_large)}")


def _size(engine: Engine, image: str) -> int:
    return int(json.loads(engine.docker("image", "inspect", image))[0]["Size"])
