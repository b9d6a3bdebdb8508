"""A run's checkpoints: one directory `step_N` per update boundary, which is whole or not there.

A save is written beside its place, fsynced file by file, renamed into place, and the parent fsynced: a crash at any
point leaves the checkpoints there were before, and perhaps a *.tmp that the next save removes. Nothing is deleted
before what takes its place is durable. A load checks every byte against the manifest and never unpickles anything.
"""

from __future__ import annotations

import logging
import math
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
from altlas.checkpoint.retention import Retention, Standing
from altlas.errors import CheckpointError, FencedError

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A checkpoint by its manifest alone. `standing` is None where that is damaged, or foreign: of another format."""

    path: Path
    update: int
    standing: Standing | None
    is_foreign: bool = False


class CheckpointStore:
    """The checkpoints below one directory, those kept that `Retention` tells. One writer at a time."""

    def __init__(self, root: Path, keep_last: int, keep_best: int = 0, keep_every: int = 0) -> None:
        self.root = root
        self.retention = Retention(keep_last=keep_last, keep_best=keep_best, keep_every=keep_every)

    def save(
        self,
        update: int,
        files: Mapping[str, bytes],
        manifest_extra: Mapping[str, Any],
        *,
        mean_reward: float | None = None,
        fence: int = 0,
    ) -> Path:
        """Write the checkpoint of an update boundary and return its directory. Saving it twice is fine.

        `manifest_extra` is JSON: configuration, digests of vocabulary and task, and the like. `mean_reward` is what
        the best are known by. `fence` is that of whoever leads the run, and grows when the run goes back to a
        checkpoint: what it left behind, of a lower fence and a later update, never counts as newer, and is removed.

        Raises:
            CheckpointError: it could not be written; the earlier checkpoints are untouched.
            FencedError: there are checkpoints of a higher fence already.
        """
        if bad := [name for name in files if not _FILE_NAME.fullmatch(name) or name == MANIFEST]:
            raise ValueError(f"not names for a checkpoint's files: {bad}")
        if mean_reward is not None and not math.isfinite(mean_reward):
            raise ValueError(f"mean_reward of update {update} is {mean_reward}: neither a number nor None")
        manifest = encode_manifest(build_manifest(update, files, manifest_extra, fence=fence, mean_reward=mean_reward))
        place, partial = self.root / f"step_{update}", self.root / f"step_{update}.tmp"
        try:
            self._make_root()
            self._check_fence(fence)
            self._remove_leftovers()
            _write(partial, {**files, MANIFEST: manifest})
            if place.exists():
                place.rename(place.with_name(place.name + ".replaced.tmp"))
            partial.rename(place)
            _fsync_directory(self.root)
            self._remove_leftovers()
            self._prune(Standing(fence=fence, update=update, mean_reward=mean_reward))
        except OSError as error:
            # On a full disk the part that was written is what others wait for.
            shutil.rmtree(partial, ignore_errors=True)
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
        for step in reversed(self._steps()):
            path, update = step.path, step.update
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
            CheckpointEntry(path=step.path, update=step.update, problem=_problem(step.path, step.update))
            for step in self._steps()
        ]

    def _places(self) -> Mapping[int, Path]:
        """Return the directory of every update that has one."""
        if not self.root.is_dir():
            return {}
        found = [(match, path) for path in self.root.iterdir() if (match := _STEP.fullmatch(path.name))]
        # A plain name sorts after its replaced twin and so wins.
        return {int(match[1]): path for match, path in sorted(found, key=lambda item: item[0][2] is None)}

    def _steps(self) -> Sequence[_Step]:
        """Return every checkpoint by its manifest, oldest first."""
        steps = [_step(path, update) for update, path in self._places().items()]
        highest = max((step.standing.fence for step in steps if step.standing), default=0)
        # One that does not say its fence may be of the highest: better passed over loudly than not looked at.
        return sorted(steps, key=lambda step: step.standing.rank if step.standing else (highest, step.update))

    def _make_root(self) -> None:
        if not self.root.is_dir():
            self.root.mkdir(parents=True)
            _fsync_directory(self.root.parent)

    def _check_fence(self, fence: int) -> None:
        highest = max((step.standing.fence for step in self._steps() if step.standing), default=0)
        if fence < highest:
            raise FencedError(
                f"a checkpoint of fence {fence} is not wanted in {self.root}, where one of fence {highest} is: a later "
                "coordinator has taken the run over, so this one has to end"
            )

    def _prune(self, saved: Standing) -> None:
        """Drop what is not kept, and what is damaged: by its manifest, or anywhere when it would count as newer.

        A checkpoint of another format is left to whoever can read it.
        """
        steps = [step for step in self._steps() if not step.is_foreign]
        kept = self.retention.kept([step.standing for step in steps if step.standing], saved=saved)
        for step in steps:
            is_later = step.standing is None or step.standing.rank > saved.rank
            if is_later and (problem := _problem(step.path, step.update)):
                log.warning("removing damaged checkpoint %s: %s", step.path, problem)
                self._discard(step.path)
            elif step.standing not in kept:
                if step.update > saved.update:
                    log.warning("removing checkpoint %s: the run went back behind it", step.path)
                self._discard(step.path)

    def _discard(self, path: Path) -> None:
        """Rename first: a half-deleted directory must not look like a damaged checkpoint."""
        gone = path.with_name(path.name + ".gone.tmp")
        path.rename(gone)
        shutil.rmtree(gone)

    def _remove_leftovers(self) -> None:
        needed = set(self._places().values())
        for path in self.root.glob("step_*.tmp"):
            if path not in needed:
                shutil.rmtree(path)


def _step(path: Path, update: int) -> _Step:
    try:
        manifest = _read_manifest(path, update)
    except DamagedError:
        return _Step(path=path, update=update, standing=None)
    except FormatError:
        return _Step(path=path, update=update, standing=None, is_foreign=True)
    standing = Standing(fence=manifest["fence"], update=update, mean_reward=manifest["mean_reward"])
    return _Step(path=path, update=update, standing=standing)


def _problem(path: Path, update: int) -> str:
    try:
        _read(path, update)
    except (DamagedError, FormatError) as error:
        return str(error)
    return ""


def _read(path: Path, update: int) -> tuple[Mapping[str, Any], Mapping[str, bytes]]:
    manifest = _read_manifest(path, update)
    files: dict[str, bytes] = {}
    for name, expected in manifest["files"].items():
        content = _content(path / name)
        if len(content) != expected["size_bytes"]:
            raise DamagedError(f"{name} has {len(content)} bytes instead of {expected['size_bytes']}")
        if sha256(content) != expected["sha256"]:
            raise DamagedError(f"{name} does not match its SHA-256")
        files[name] = content
    return manifest, files


def _read_manifest(path: Path, update: int) -> Mapping[str, Any]:
    manifest = decode_manifest(_content(path / MANIFEST))
    if manifest["update"] != update:
        raise DamagedError(f"its manifest is of update {manifest['update']}")
    return manifest


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path.name} cannot be read: {error.strerror}") from error


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    directory.mkdir()
    for name, content in files.items():
        _write_durably(directory / name, content)
    _fsync_directory(directory)


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
