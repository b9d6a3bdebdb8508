"""The manifest of a checkpoint: what it holds, with sizes and digests, and what wrote it.

The manifest carries a digest of itself, so that a flipped byte anywhere in a checkpoint is seen. That digest is made
the same way in every format, which tells a manifest of a newer format from a damaged one.

Formats: 1, the first; 2 adds `fence` and `mean_reward`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

FORMAT_VERSION = 2
_LIBRARIES = ("altlas", "torch", "numpy", "safetensors", "lark", "grpcio", "protobuf", "redis")
_GIT_TIMEOUT_S = 5.0
_SELF = "manifest_sha256"


class DamagedError(Exception):
    """A checkpoint, or a part of it, is not what was written; caught within this package."""


class FormatError(Exception):
    """A checkpoint is whole, but in a format that is not known here; caught within this package."""


def sha256(content: bytes) -> str:
    """Return the hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()


def build_manifest(
    update: int, files: Mapping[str, bytes], extra: Mapping[str, Any], *, fence: int, mean_reward: float | None
) -> dict[str, Any]:
    """Return the manifest of these files, without its own digest."""
    return {
        "format_version": FORMAT_VERSION,
        "fence": fence,
        "update": update,
        "mean_reward": mean_reward,
        "files": {
            name: {"sha256": sha256(content), "size_bytes": len(content)} for name, content in sorted(files.items())
        },
        "extra": dict(extra),
        "versions": dict(library_versions()),
        "git_commit": git_commit(),
    }


def encode_manifest(manifest: Mapping[str, Any]) -> bytes:
    """Return the manifest as JSON text that holds its own digest."""
    whole = {**manifest, _SELF: sha256(_canonical(manifest))}
    return (json.dumps(whole, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def decode_manifest(text: bytes) -> dict[str, Any]:
    """Return the manifest as one of the present format, without its own digest.

    Raises:
        DamagedError: not ours or not whole.
        FormatError: whole, and written in a format that is not known here.
    """
    try:
        whole = json.loads(text)
    except ValueError as error:
        raise DamagedError(f"manifest.json is not JSON: {error}") from error
    if not isinstance(whole, dict) or type(whole.get("format_version")) is not int:
        raise DamagedError("manifest.json is not the manifest of a checkpoint")
    digest, found = whole.pop(_SELF, None), whole["format_version"]
    is_known = 1 <= found <= FORMAT_VERSION
    told = f"format {found}, while this version of AltLAS reads 1 to {FORMAT_VERSION}"
    if digest is None or digest != _digest(whole):
        raise DamagedError(
            "manifest.json does not match its own digest" + ("" if is_known else f" and tells of {told}")
        )
    if not is_known:
        raise FormatError(told)
    # The digest is of the content; a flipped byte may also be one of the blanks between.
    if encode_manifest(whole) != text:
        raise DamagedError("manifest.json is not as it was written")
    return _migrated(whole)


def _migrated(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of an older format as one of the present format."""
    if manifest["format_version"] == 1:
        manifest = {**manifest, "format_version": 2, "fence": 0, "mean_reward": None}
    return manifest


def _digest(manifest: Mapping[str, Any]) -> str | None:
    """Return the digest of a manifest without its own; None of numbers that no manifest of ours can hold."""
    try:
        return sha256(_canonical(manifest))
    except ValueError:  # a byte that makes 12345 of it 1e345: read as infinite
        return None


def _canonical(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


@cache
def library_versions() -> Mapping[str, str]:
    """Return the versions of Python and of the libraries that are installed here."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def git_commit() -> str | None:
    """Return the commit of the checkout this code runs from; None when it is installed or git cannot say."""
    root = Path(__file__).resolve().parents[3]
    # An installed package may lie inside somebody else's checkout: only our own layout counts.
    if not (root / ".git").exists() or not (root / "src" / "altlas").is_dir():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
