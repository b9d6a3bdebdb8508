"""Programs of Debian's packages, unpacked under the environment's prefix: that needs no root and changes no system.

In CI a package is fetched with apt-get when it is not there; elsewhere only what is there already is used.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

_FETCH_TIMEOUT_S = 100.0


class MissingProgramError(Exception):
    """A program is not here; the message says how to get it."""


def find_program(program: str, *, package: str) -> Path:
    """Return the program on PATH, else the one unpacked before, else, in CI, the one of the package fetched now.

    Raises:
        MissingProgramError: there is none, or it could not be fetched.
    """
    if on_path := shutil.which(program):
        return Path(on_path)
    directory = Path(sys.prefix) / f"debian-{package}"
    unpacked = directory / "usr/bin" / program
    if not unpacked.exists():
        if not os.environ.get("CI"):
            raise MissingProgramError(f"no {program} on PATH (apt-get install {package})")
        _fetch(package, directory)
    return unpacked


def _fetch(package: str, directory: Path) -> None:
    """Unpack a package: whole or not at all, and once, also where two workers want it."""
    partial = directory.with_suffix(".partial")
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.exists():
            return
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            _run(["apt-get", "download", package], partial)
        except MissingProgramError:
            # The lists of packages may be missing, or too old to name a package that is still there.
            _run(["apt-get", "update"], partial)
            _run(["apt-get", "download", package], partial)
        (archive,) = partial.glob(f"{package}_*.deb")
        _run(["dpkg", "-x", archive.name, "."], partial)
        archive.unlink()
        partial.rename(directory)


def _run(command: list[str], directory: Path) -> None:
    try:
        subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        raise MissingProgramError(f"`{' '.join(command)}` failed: {said}; install the package") from error
