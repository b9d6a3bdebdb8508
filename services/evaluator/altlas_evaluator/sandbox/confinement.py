"""Puts the layers on: most of them once per launcher and inherited, the rest in each child.

Part of the launcher: standard library only. The order matters: namespaces and root, resource limits, uid, capabilities,
Landlock, system-call filter. A layer that the tier needs and that does not work here is an OSError, never skipped.
"""
# ruff: noqa: PTH112

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from altlas_evaluator.sandbox import interpreter, kernel, landlock, namespaces, privileges, records, seccomp

_CPU_GRACE_S = 2  # the launcher's own clock is exact and comes first; RLIMIT_CPU counts whole seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """A launcher's layers and what is left to do for a child.

    Attributes:
        layers: what was put on, in words.
        own_bytes: the launcher's address space, which every child inherits.
        scope: Landlock ruleset that keeps a child's signals to itself, or -1 where the kernel has none.
        fork_guard: a filter for each child where RLIMIT_NPROC does not bind, because the uid is still 0.
        can_kill: whether the launcher may send signals.
    """

    layers: dict[str, str]
    own_bytes: int
    scope: int = -1
    fork_guard: list[seccomp.Instruction] | None = None
    can_kill: bool = True


class _Identity:
    """The uid that this launcher will have, taken at most once."""

    def __init__(self) -> None:
        self._uid = privileges.own_uid() if privileges.can_change_ids() else None

    def take(self) -> None:
        if self._uid is not None:
            privileges.drop_ids(self._uid)
            self._uid = None


def _address_space_bytes(statm: int) -> int:
    return int(os.pread(statm, 256, 0).split()[0]) * resource.getpagesize()


def _make_ruleset(readable: list[str], listed: str, version: int) -> int:
    """Return the descriptor of the launcher's ruleset; made while the paths can still be reached."""
    if version == 0:
        raise OSError("Landlock is missing or not enabled (kernel 5.13 or newer, and its lsm= must name landlock)")
    ruleset = landlock.create_ruleset(version)
    for path in readable:
        access = landlock.READ_FILE | landlock.READ_DIR if os.path.isdir(path) else landlock.READ_FILE
        landlock.allow(ruleset, path, access)
    landlock.allow(ruleset, listed, landlock.READ_DIR)
    return ruleset


def _change_root(identity: _Identity, root: str, libraries: list[str]) -> tuple[str, int]:
    """Enter namespaces with a root of their own; return how, and this process's statm, which is out of reach then."""
    how = namespaces.enter(identity.take)
    statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    # Opened now, since descriptors of the old mount namespace cannot be bound; the uid may have lost the way to the
    # standard library, but not the working directory.
    opened = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (".", *libraries)]
    shown = list(zip((root, *libraries), opened, strict=True))
    namespaces.change_root(shown, interpreter.hidden_directories())
    for _, descriptor in shown:
        os.close(descriptor)
    return how, statm


def confine(tier: str, warm_up: Callable[[], None], search_path: Sequence[str]) -> Confinement:
    """Confine this process for good.

    Args:
        tier: "namespaces", "landlock", or "unsafe" for resource limits and uid alone.
        warm_up: called once the uid is the programs' own, before the address space is measured.
        search_path: directories that the language was imported from, which programs must not see.

    Raises:
        OSError: a layer that the tier needs does not work here.
    """
    root, libraries = interpreter.standard_library(), interpreter.library_directories(search_path)
    readable = [*interpreter.readable_entries(), *libraries]
    identity, layers = _Identity(), {}
    os.chdir(root)
    if tier == "namespaces":
        layers["namespaces"], statm = _change_root(identity, root, libraries)
    else:
        statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    os.chdir(root)
    version = landlock.abi()
    ruleset = -1 if tier == "unsafe" else _make_ruleset(readable, root, version)
    privileges.limit_resources()
    identity.take()
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    layers |= {"uid": str(os.getuid()), "library": interpreter.reach_library(), "rlimits": "set"}
    warm_up()
    interpreter.settle()
    own_bytes = _address_space_bytes(statm)
    os.close(statm)
    if tier == "unsafe":
        return Confinement(layers=layers, own_bytes=own_bytes)
    privileges.drop_capabilities()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    scope = landlock.create_scope(version)
    landlock.restrict_self(ruleset)
    os.close(ruleset)
    return _install_filter(layers | {"landlock": f"ABI {version}"}, own_bytes, scope)


def _install_filter(layers: dict[str, str], own_bytes: int, scope: int) -> Confinement:
    machine = kernel.machine()
    # Without a scope, kill is for a launcher that is process 1 of its namespace: nothing in there can signal it.
    can_kill = scope >= 0 or "namespaces" in layers
    guard = seccomp.fork_guard(machine) if os.getuid() == 0 else None
    seccomp.install(seccomp.assemble(machine, allows_kill=can_kill, allows_fork_guard=guard is not None))
    return Confinement(
        layers=layers | {"seccomp": "allow-list" + (" and fork guard" if guard else "")},
        own_bytes=own_bytes,
        scope=scope,
        fork_guard=guard,
        can_kill=can_kill,
    )


def confine_child(confinement: Confinement, request: records.Request) -> None:
    """Put a program's own layers and limits on this process, a fresh child.

    A child that is to fork for its cases has `forbid_processes` before it, or its children, run the program.

    Raises:
        OSError: a layer did not work; the program must not run.
    """
    separate(confinement)
    parts = 1 if request.cases == 1 else request.cases if request.is_shared else 2
    cpu_s = (request.cpu_ns // 1_000_000_000 + _CPU_GRACE_S) * parts
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (request.output_bytes + 1,) * 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (request.open_files,) * 2)
    resource.setrlimit(resource.RLIMIT_AS, (confinement.own_bytes + request.memory_bytes,) * 2)
    if request.cases == 1 or request.is_shared:
        forbid_processes(confinement)


def separate(confinement: Confinement) -> None:
    """Make this process one that dies with its parent and cannot signal it.

    Raises:
        OSError: the kernel refused it.
    """
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if confinement.scope >= 0:
        landlock.restrict_self(confinement.scope)


def forbid_processes(confinement: Confinement) -> None:
    """Let this process make no others.

    Raises:
        OSError: the kernel refused it.
    """
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if confinement.fork_guard is not None:
        seccomp.install(confinement.fork_guard)
