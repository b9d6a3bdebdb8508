"""Hostile programs: each has its status, and leaves the outside as it was, whatever the tier.

The tests run them in their own process; as a script this runs most of them under other circumstances and prints what
failed, one JSON object in all: {"tier", "layers", "ran", "failures": {name: what was wrong}}.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hostile_programs import (
    OK,
    SECRET,
    TIMEOUT,
    WAS_HERE,
    Hostile,
    endings,
    files,
    network,
    processes,
    resources,
    scripts,
    sources,
    state,
    surface,
)

from altlas.config.sections import SandboxSection
from altlas.core.program import Execution, Limits, Program
from altlas_evaluator.engine import Executor
from altlas_evaluator.sandbox.supervisor import Tier

# Time enough for whatever ends by itself, also on a machine that has other things to do.
LIMITS = Limits(cpu_s=2.0, wall_s=4.0, memory_bytes=48 << 20, output_bytes=4096)
SHORT = replace(LIMITS, cpu_s=0.4, wall_s=0.8)  # for those that may end by them
BRIEF = replace(LIMITS, cpu_s=0.2, wall_s=0.4)  # for those that are to
_TOPICS = (resources, processes, files, network, surface, endings, sources, scripts)
# Those that take their whole time come last, so that whoever stops at the first failure need not wait for them.
PROGRAMS: dict[str, Hostile] = dict(
    sorted(
        ((name, hostile) for topic in _TOPICS for name, hostile in topic.PROGRAMS.items()),
        key=lambda item: TIMEOUT in item[1].statuses,
    )
)
# What depends on who runs it and where; compilers and QuickJS do not.
ELSEWHERE = [name for name in PROGRAMS if name not in sources.PROGRAMS and name not in scripts.PROGRAMS]
_WRITABLE = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/run/lock", "/", ".", "~")))
_PROGRAM_UIDS = 1_500_000_000  # and above, where the service is root

# Run in a process, it refuses every way into a new namespace, as the default seccomp profile of Docker does.
REFUSE_NAMESPACES = """
import errno
from altlas_evaluator.sandbox import kernel, seccomp
machine = kernel.machine()
refused = [seccomp._refuse(errno.EPERM)]
namespaces = 0x7E020000 | 0x80  # every CLONE_NEW* flag
clone = [seccomp._statement(seccomp.LOAD_WORD, seccomp.OFFSET_ARGUMENTS), (0x45, 0, 1, namespaces), *refused]
clone.append(seccomp._statement(seccomp.RETURN, seccomp.RET_ALLOW))
unshare_number, clone_number = {"x86_64": (272, 56), "aarch64": (97, 220)}[machine]
program = seccomp._head(machine) + seccomp._when_number(unshare_number, refused)
program += seccomp._when_number(clone_number, clone)
program += seccomp._when_number(435, [seccomp._refuse(errno.ENOSYS)])  # clone3: its flags cannot be looked at
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
seccomp.install([*program, seccomp._statement(seccomp.RETURN, seccomp.RET_ALLOW)])
"""


@dataclass(frozen=True)
class Outside:
    """What a program must not reach: listeners, files, and the test's own process."""

    executor: Executor
    directory: Path
    listeners: dict[str, socket.socket]
    idle: dict[str, int] = field(default_factory=dict)  # processes there are while no program runs, by language started

    @property
    def secret_file(self) -> Path:
        return self.directory / "secret.txt"

    def run(
        self, source: str | bytes, *, stdin: bytes = b"", language: str = "python", limits: Limits = LIMITS
    ) -> Execution:
        if isinstance(source, str):
            names = {
                "@PORT@": str(self.listeners["tcp"].getsockname()[1]),
                "@UDP@": str(self.listeners["udp"].getsockname()[1]),
                "@UNIX@": str(self.directory / "stream"),
                "@DGRAM@": str(self.directory / "datagram"),
                "@ABSTRACT@": self.directory.name,
                "@DIR@": str(self.directory),
                "@FILE@": str(self.secret_file),
                "@PID@": str(os.getpid()),
            }
            for name, value in names.items():
                source = source.replace(name, value)
            source = source.encode()
        return self.executor.run([Program(source=source, stdin=stdin, language=language)], limits)[0]

    def processes(self) -> set[int]:
        """All processes in the launchers' groups."""
        groups = set(self.executor.launcher_pids())
        found = set()
        for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(int(name)) in groups:
                    found.add(int(name))
        return found

    def reached(self) -> list[str]:
        """Return the listeners that something has come to."""
        found = []
        for name, listener in self.listeners.items():
            with contextlib.suppress(BlockingIOError):
                if listener.type == socket.SOCK_STREAM:
                    listener.accept()[0].close()
                else:
                    listener.recv(99)
                found.append(name)
        return found

    def files(self) -> list[tuple[str, bytes, int, int, int]]:
        """Return what lies in the directory, with content, mode, owner and time of change."""
        states = [(path, path.stat()) for path in sorted(self.directory.iterdir()) if path.is_file()]
        return [(path.name, path.read_bytes(), it.st_mode, it.st_uid, it.st_mtime_ns) for path, it in states]


def _listen(directory: Path, stack: contextlib.ExitStack) -> dict[str, socket.socket]:
    inet, unix, stream, datagram = socket.AF_INET, socket.AF_UNIX, socket.SOCK_STREAM, socket.SOCK_DGRAM
    wanted: dict[str, tuple[int, int, tuple[str, int] | str]] = {
        "tcp": (inet, stream, ("127.0.0.1", 0)),
        "udp": (inet, datagram, ("127.0.0.1", 0)),
        "unix": (unix, stream, str(directory / "stream")),
        "unix datagram": (unix, datagram, str(directory / "datagram")),
        "abstract": (unix, stream, "\0" + directory.name),
        "abstract datagram": (unix, datagram, "\0" + directory.name),
    }
    listeners = {}
    for name, (family, kind, address) in wanted.items():
        listener = listeners[name] = stack.enter_context(socket.socket(family, kind))
        listener.bind(address)
        listener.setblocking(False)
        if kind == stream:
            listener.listen()
    return listeners


@contextlib.contextmanager
def outside_of(tier: Tier | None) -> Iterator[Outside]:
    """Start an executor and what its programs must not reach; None takes the tier that it chooses itself."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="altlas-hostile-")))
        listeners = _listen(directory, stack)
        (directory / "secret.txt").write_text(SECRET)
        (directory / "planted.py").write_text(f"print({SECRET!r})")
        for path in (directory, *directory.iterdir()):
            path.chmod(0o777)
        os.environ["ALTLAS_TEST_SECRET"] = SECRET
        stack.callback(os.environ.pop, "ALTLAS_TEST_SECRET")
        executor = stack.enter_context(Executor(SandboxSection(slots=1), tier=tier))
        yield Outside(executor, directory, listeners)


def left_behind() -> list[Path]:
    """Return the files that programs have made, told by their names or by whose they are, and remove them."""
    found = []
    for directory in _WRITABLE:
        with contextlib.suppress(OSError), os.scandir(directory.expanduser()) as entries:
            found += [
                Path(entry.path)
                for entry in entries
                if WAS_HERE in entry.name or entry.stat(follow_symlinks=False).st_uid >= _PROGRAM_UIDS
            ]
    for path in found:
        path.rmdir() if path.is_dir() else path.unlink()
    return found


def find_state(outside: Outside) -> bytes:
    """Return what a program finds now."""
    execution = outside.run(state.FOUND, stdin=state.STDIN)
    assert execution.status is OK, execution
    return execution.stdout


def check(outside: Outside, name: str) -> str:
    """Run one program and return what did not hold, empty when all did."""
    source, statuses, stdout, language = PROGRAMS[name]
    if language not in outside.idle:  # its launcher starts with its first program
        outside.run("", language=language)
        outside.idle[language] = len(outside.processes())
    limits = BRIEF if statuses == {TIMEOUT} else SHORT if TIMEOUT in statuses else LIMITS
    restarts, files_before, host = outside.executor.counters().launcher_restarts, outside.files(), os.uname().nodename
    execution = outside.run(source, language=language, limits=limits)
    held = {
        "status": execution.status in statuses,
        "stdout": stdout is None or execution.stdout == stdout,
        "output limit": max(len(execution.stdout), len(execution.stderr)) <= LIMITS.output_bytes,
        "latency": execution.wall_s < limits.wall_s + 2.0,  # what is not held runs for ever; machines may be busy
        "secret unseen": SECRET.encode() not in execution.stdout + execution.stderr,
        "no process left": len(outside.processes()) <= max(outside.idle.values()),
        "launcher survived": outside.executor.counters().launcher_restarts == restarts,
        "no listener reached": not outside.reached(),
        "files kept": outside.files() == files_before,
        "host's name kept": os.uname().nodename == host,
        "nothing written": not left_behind(),
    }
    neighbour = outside.run(NEIGHBOURS[language], stdin=b"next", language=language)
    held["next program right"] = (neighbour.status, neighbour.stdout) == (OK, b'"next" true\n')
    broken = [what for what, holds in held.items() if not holds]
    return f"{', '.join(broken)}: {execution}" if broken else ""


NEIGHBOURS = {
    "python": "import json, os\nprint(json.dumps(input()), json.dumps(os.getcwd() != ''))",
    "javascript": "print(JSON.stringify(readline()), typeof leaked === 'undefined' && ({}).leaked === undefined)",
}


def main() -> None:
    """Run the programs and print what failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tier", default="")
    parser.add_argument("--uid", type=int, help="become this user first, by the interpreter named next")
    parser.add_argument("--interpreter", help="one that the user can reach")
    parser.add_argument("--prelude", default="", help="Python to run before the executor starts")
    parser.add_argument("--first", action="store_true", help="stop at the first failure")
    arguments = parser.parse_args()
    if arguments.interpreter:
        sys._base_executable = arguments.interpreter  # type: ignore[attr-defined]
    exec(arguments.prelude, {})
    if arguments.uid is not None:
        os.setgroups([])
        os.setresgid(arguments.uid, arguments.uid, arguments.uid)
        os.setresuid(arguments.uid, arguments.uid, arguments.uid)
    failures: dict[str, str] = {}
    ran = 0
    with outside_of(arguments.tier or None) as outside:
        for ran, name in enumerate(ELSEWHERE, start=1):  # noqa: B007
            if wrong := check(outside, name):
                failures[name] = wrong
                if arguments.first:
                    break
        print(
            json.dumps(
                {"tier": outside.executor.tier, "layers": outside.executor.layers, "ran": ran, "failures": failures}
            )
        )


if __name__ == "__main__":
    main()
