"""Who the container's processes are, and what they can write, run and see of the machine."""

from __future__ import annotations

import mmap
import os
import stat
import subprocess
from functools import partial
from pathlib import Path

from probe_checks import FACTS, check, differing, having_capabilities, processes

SCRATCH = Path("/tmp")
_DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}

check("no process has uid or gid 0")(
    lambda: (
        differing("Uid", lambda ids: "0" not in ids.split())
        or differing("Gid", lambda ids: "0" not in ids.split())
        or differing("Groups", lambda ids: "0" not in ids.split())
    )
)
for _set in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    check(f"{_set} is empty")(partial(having_capabilities, _set))
check("NoNewPrivs is set")(lambda: differing("NoNewPrivs", lambda value: value == "1"))
check("seccomp filters system calls")(lambda: differing("Seccomp", lambda value: value == "2"))


@check("root cannot be become")
def _become_root() -> str | None:
    for become in (os.setuid, os.setgid):
        try:
            become(0)
        except PermissionError:
            continue
        return f"{become.__name__}(0) worked"
    return None


def _mounts() -> list[tuple[str, set[str], str]]:
    """Return where what is mounted, how, and of which kind."""
    lines = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [(left.split()[4], set(left.split()[5].split(",")), right.split()[0]) for left, right in lines]


@check("nothing can be written but scratch space")
def _writable_mounts() -> str | None:
    scratch = ("/tmp", "/dev", "/proc")
    mounted = [where for where, how, _ in _mounts() if "ro" not in how and not where.startswith(scratch)]
    wrong = [where for where in mounted if os.access(where, os.W_OK)]
    return f"mounted for writing: {wrong}" if wrong else None


@check("files of the image cannot be changed")
def _write() -> str | None:
    made = []
    for folder in (
        "/",
        "/etc",
        "/usr/bin",
        "/opt/altlas",
        "/home/altlas",
        "/var/tmp",
        "/var/lib/altlas",
        "/run",
        "/root",
    ):
        path = Path(folder, "altlas-probe")
        try:
            path.touch()
        except OSError:
            continue
        made.append(str(path))
        path.unlink()
    return f"made {made}" if made else None


@check("scratch space runs no program")
def _exec_scratch() -> str | None:
    path = SCRATCH / "altlas-probe.sh"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    try:
        subprocess.run([str(path)], check=True)
        return f"{path} was run"
    except PermissionError:
        pass
    finally:
        path.unlink()
    binary = SCRATCH / "altlas-probe"
    binary.write_bytes(Path("/bin/true").read_bytes())
    try:
        with binary.open("rb") as opened:
            mmap.mmap(opened.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
        return f"{binary} was mapped as a program"
    except PermissionError:
        return None
    finally:
        binary.unlink()


@check("every scratch space is noexec, nosuid, nodev and small")
def _scratch_options() -> str | None:
    for where, how, kind in _mounts():
        if kind == "tmpfs" and "ro" not in how and where in ("/tmp", "/dev/shm"):
            room = os.statvfs(where)
            if missing := {"noexec", "nosuid", "nodev"} - how:
                return f"{where} lacks {missing}"
            if room.f_blocks * room.f_frsize > 256 << 20:
                return f"{where} has room for {room.f_blocks * room.f_frsize:,} bytes"
    return None


@check("no device but the harmless ones")
def _devices() -> str | None:
    found = [
        str(path)
        for path in Path("/dev").rglob("*")
        if (stat.S_ISBLK(path.lstat().st_mode) or stat.S_ISCHR(path.lstat().st_mode))
        and path.name not in _DEVICES
        and path.parent != Path("/dev/pts")
    ]
    return f"found {found}" if found else None


@check("no engine's socket")
def _engine_socket() -> str | None:
    found = [
        path
        for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock")
        if Path(path).exists()
    ]
    return f"found {found}" if found else None


@check("namespaces, mounts, modules and kernel settings are out of reach")
def _kernel() -> str | None:
    attempts = {
        "mount": ["mount", "-t", "tmpfs", "none", "/tmp"],
        "a device": ["mknod", "/tmp/altlas-probe", "b", "8", "0"],
        "a host name": ["hostname", "altlas-probe"],
    }
    if FACTS["tier"] == "landlock":
        attempts["a user namespace"] = ["unshare", "--user", "true"]
    for what, command in attempts.items():
        try:
            if subprocess.run(command, capture_output=True, timeout=20).returncode == 0:
                return f"{what} worked"
        except (FileNotFoundError, PermissionError):
            continue
    for path in ("/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"):
        try:
            with Path(path).open("w"):
                return f"{path} opened for writing"
        except OSError:
            continue
    return None


@check("only this container's processes are seen")
def _processes_seen() -> str | None:
    names = {status["Name"] for _, status in processes()}
    expected = ("docker-init", "tini", "altlas", "python", "sh", "sleep")
    strange = [name for name in names if not name.startswith(expected)]
    return f"found {strange}" if strange else None
