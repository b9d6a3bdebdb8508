"""Run directories: whether a run may use one, and who is using it.

A run directory is known by its marker file. Nothing without the marker is ever deleted, and nothing that a living
run holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from altlas.errors import CheckpointError, ConfigError

MARKER = ".altlas-run"
_MARKER_TEXT = "This directory belongs to an AltLAS run; altlas train --overwrite may delete it.\n"


def prepare_run_dir(path: Path, *, resume: bool, overwrite: bool) -> Path:
    """Make or accept the directory of a run and return it.

    A new or empty directory is taken as it is. One that holds a run is accepted with `resume` and emptied with
    `overwrite`.

    Raises:
        ConfigError: both resume and overwrite.
        CheckpointError: the directory is in the way, in use, missing where it is to be resumed, or not a run's.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: choose one")
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"run directory {path} is a file: choose another --run-dir")
    is_empty = not path.exists() or next(path.iterdir(), None) is None
    if resume:
        _check_resumable(path, is_empty=is_empty)
        return path
    if not is_empty:
        _check_overwritable(path, overwrite=overwrite)
        _empty(path)
    path.mkdir(parents=True, exist_ok=True)
    (path / MARKER).write_text(_MARKER_TEXT, encoding="utf-8")
    return path


def _check_resumable(path: Path, *, is_empty: bool) -> None:
    if is_empty:
        raise CheckpointError(
            f"run directory {path} is {'empty' if path.exists() else 'missing'}: nothing to resume. Start it without "
            "--resume, or name the right --run-dir."
        )
    if not (path / MARKER).is_file():
        raise CheckpointError(
            f"{path} is not a run directory (it has no {MARKER}): nothing to resume. Name the right --run-dir."
        )
    _check_unused(path)


def _check_overwritable(path: Path, *, overwrite: bool) -> None:
    is_ours = (path / MARKER).is_file()
    if overwrite and is_ours:
        _check_unused(path)
        return
    if is_ours:
        raise CheckpointError(
            f"run directory {path} exists. Go on with it by --resume, delete it and start anew by --overwrite, or "
            "choose another --run-dir."
        )
    raise CheckpointError(
        f"{path} exists and is not a run directory (it has no {MARKER}), so it will not be touched, not even with "
        "--overwrite. Choose another --run-dir, or move it away yourself."
    )


def _check_unused(path: Path) -> None:
    with hold_run_dir(path):
        return


@contextlib.contextmanager
def hold_run_dir(path: Path) -> Iterator[None]:
    """Hold a prepared run directory: no one else can hold, resume or overwrite it. A killed holder lets go.

    Raises:
        CheckpointError: another process holds it.
    """
    with (path / MARKER).open("rb") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"run directory {path} is in use by a run that is still going. Wait for it or stop it, or choose "
                "another --run-dir."
            ) from error
        yield


def _empty(path: Path) -> None:
    """Delete the contents, the marker last: what a crash leaves behind is still known for a run directory."""
    for entry in path.iterdir():
        if entry.name == MARKER:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    (path / MARKER).unlink()
