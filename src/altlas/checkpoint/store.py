"""A run's checkpoints: one directory `step_N` per update boundary, which is whole or not there.

A save is written beside its place, fsynced file by file, renamed into place, and the parent fsynced: a crash at any
point leaves the checkpoints there were before, and perhaps a *.tmp that the next save removes. A load checks every
byte against the manifest and never unpickles anything.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altlas.checkpoint.manifest import (
    DamagedError,
    FormatError,
    build_manifest,
    decode_manifest,
    encode_manifest,
    sha256,
)
from altlas.errors import CheckpointError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
# While step_N is being replaced, the old one is step_N.replaced.tmp and still counts.
_STEP = re.compile(r"step_(\d+)(\.replaced\.tmp)?")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCheckpoint:
    """A checkpoint whose every byte was checked. `warning` is empty unless newer ones had to be passed over."""

    path: Path
    update: int
    files: Mapping[str, bytes]
    manifest: Mapping[str, Any]
    warning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointEntry:
    """A checkpoint as it lies there. `problem` is empty when it is valid."""

    path: Path
    update: int
    problem: str = ""


class CheckpointStore:
    """The checkpoints below one directory, the `keep_last` newest of them kept. One writer at a time."""

    def __init__(self, root: Path, keep_last: int) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last is {keep_last}: at least one checkpoint must be kept")
        self.root = root
        self.keep_last = keep_last

    def save(self, update: int, files: Mapping[str, bytes], manifest_extra: Mapping[str, Any]) -> Path:
        """Write the checkpoint of an update boundary and return its directory. Saving it twice is fine.

        `manifest_extra` is JSON: configuration, digests of vocabulary and task, and the like.

        Raises:
            CheckpointError: it could not be written; the earlier checkpoints are untouched.
        """
        if bad := [name for name in files if not _FILE_NAME.fullmatch(name) or name == MANIFEST]:
            raise ValueError(f"not names for a checkpoint's files: {bad}")
        place = self.root / f"step_{update}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            written = self._write(self.root / f"step_{update}.tmp", update, files, manifest_extra)
            if place.exists():
                place.rename(place.with_name(place.name + ".replaced.tmp"))
            written.rename(place)
            _fsync_directory(self.root)
            self._remove_leftovers()
            self._prune(update)
        except OSError as error:
            raise CheckpointError(
                f"checkpoint {place} could not be written: {error}. Free space or mend permissions, then resume: the "
                "checkpoints before it are whole."
            ) from error
        return place

    def load_newest(self) -> LoadedCheckpoint:
        """Return the newest valid checkpoint.

        Raises:
            CheckpointError: there is none, none is valid, or the newest was written in another format.
        """
        problems: list[str] = []
        for update, path in reversed(self._steps()):
            try:
                manifest, files = _read(path, update)
            except DamagedError as error:
                problems.append(f"{path.name}: {error}")
                continue
            except FormatError as error:
                raise CheckpointError(
                    f"checkpoint {path} is in {error}. Resume with the AltLAS that wrote it, or move this directory "
                    "away to go on from an older checkpoint."
                ) from error
            warning = ""
            if problems:
                warning = f"going on from {path}, which is not the newest checkpoint: " + "; ".join(problems)
                log.warning(warning)
            return LoadedCheckpoint(path=path, update=update, files=files, manifest=manifest, warning=warning)
        if problems:
            raise CheckpointError(
                f"no valid checkpoint in {self.root}: {'; '.join(problems)}. Restore one from a backup, or start anew "
                "with --overwrite or another --run-dir."
            )
        raise CheckpointError(
            f"no checkpoint in {self.root}: nothing to resume from. Start the run without --resume (with --overwrite "
            "when its directory exists), or name the right --run-dir."
        )

    def list(self) -> Sequence[CheckpointEntry]:
        """Return every checkpoint, oldest first, each checked to the last byte."""
        return [
            CheckpointEntry(path=path, update=update, problem=_problem(path, update)) for update, path in self._steps()
        ]

    def _steps(self) -> Sequence[tuple[int, Path]]:
        if not self.root.is_dir():
            return []
        found = [(match, path) for path in self.root.iterdir() if (match := _STEP.fullmatch(path.name))]
        # A plain name sorts after its replaced twin and so wins.
        return sorted(
            {int(match[1]): path for match, path in sorted(found, key=lambda item: item[0][2] is None)}.items()
        )

    def _write(self, directory: Path, update: int, files: Mapping[str, bytes], extra: Mapping[str, Any]) -> Path:
        directory.mkdir()
        for name, content in files.items():
            _write_durably(directory / name, content)
        _write_durably(directory / MANIFEST, encode_manifest(build_manifest(update, files, extra)))
        _fsync_directory(directory)
        return directory

    def _prune(self, saved: int) -> None:
        """Drop what is older than the `keep_last` newest, and damaged ones that a resume has gone back behind."""
        steps = self._steps()
        for update, path in steps:
            if update > saved and (problem := _problem(path, update)):
                log.warning("removing damaged checkpoint %s: %s", path, problem)
                self._discard(path)
        for _, path in [step for step in steps if step[0] <= saved][: -self.keep_last]:
            self._discard(path)

    def _discard(self, path: Path) -> None:
        """Rename first: a half-deleted directory must not look like a damaged checkpoint."""
        gone = path.with_name(path.name + ".gone.tmp")
        path.rename(gone)
        shutil.rmtree(gone)

    def _remove_leftovers(self) -> None:
        needed = {path for _, path in self._steps()}
        for path in self.root.glob("step_*.tmp"):
            if path not in needed:
                shutil.rmtree(path)


def _problem(path: Path, update: int) -> str:
    try:
        _read(path, update)
    except (DamagedError, FormatError) as error:
        return str(error)
    return ""


def _read(path: Path, update: int) -> tuple[Mapping[str, Any], Mapping[str, bytes]]:
    manifest = decode_manifest(_content(path / MANIFEST))
    if manifest["update"] != update:
        raise DamagedError(f"its manifest is of update {manifest['update']}")
    files: dict[str, bytes] = {}
    for name, expected in manifest["files"].items():
        content = _content(path / name)
        if len(content) != expected["size_bytes"]:
            raise DamagedError(f"{name} has {len(content)} bytes instead of {expected['size_bytes']}")
        if sha256(content) != expected["sha256"]:
            raise DamagedError(f"{name} does not match its SHA-256")
        files[name] = content
    return manifest, files


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path.name} cannot be read: {error.strerror}") from error


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
