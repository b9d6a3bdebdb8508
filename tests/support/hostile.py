"""Hostile programs: each has its status, and leaves the outside as it was, whatever the tier.

The tests run them in their own process; as a script this runs all of them under other circumstances and prints what
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
from dataclasses import dataclass
from pathlib import Path

from altlas.config.sections import SandboxSection
from altlas.core.program import Execution, Limits, Program, ProgramStatus
from altlas_evaluator.engine import Executor
from altlas_evaluator.sandbox.supervisor import Tier

OK = ProgramStatus.OK
SYNTAX = ProgramStatus.SYNTAX_ERROR
RUNTIME = ProgramStatus.RUNTIME_ERROR
TIMEOUT = ProgramStatus.TIMEOUT
MEMORY = ProgramStatus.MEMORY_LIMIT
OUTPUT = ProgramStatus.OUTPUT_LIMIT
FORBIDDEN = ProgramStatus.FORBIDDEN

SECRET = "moth-lantern-47"
LIMITS = Limits(cpu_s=0.4, wall_s=0.8, memory_bytes=48 << 20, output_bytes=4096)
LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"

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
    """What a program must not reach: a listener, a file, and the test's own process."""

    executor: Executor
    listener: socket.socket
    secret_file: Path

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def run(self, source: str | bytes, *, stdin: bytes = b"", limits: Limits = LIMITS) -> Execution:
        if isinstance(source, str):
            names = {"@PORT@": str(self.port), "@FILE@": str(self.secret_file), "@PID@": str(os.getpid())}
            for name, value in names.items():
                source = source.replace(name, value)
            source = source.encode()
        return self.executor.run([Program(source=source, stdin=stdin)], limits)[0]

    def processes(self) -> set[int]:
        """All processes in the launchers' groups."""
        groups = set(self.executor.launcher_pids())
        found = set()
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) in groups:
                found.add(int(path.parent.name))
        return found

    def was_reached(self) -> bool:
        try:
            self.listener.accept()
        except BlockingIOError:
            return False
        return True


# name: (source, statuses that are right, standard output or None for any)
PROGRAMS: dict[str, tuple[str | bytes, set[ProgramStatus], bytes | None]] = {
    # Resources.
    "infinite loop": ("while True: pass", {TIMEOUT}, b""),
    "sleep": ("import time\ntime.sleep(60)", {TIMEOUT}, b""),
    "loop that catches everything": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        {TIMEOUT},
        b"",
    ),
    "ignores every signal": (
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass",
        {TIMEOUT},
        b"",
    ),
    "stops itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", {TIMEOUT}, b""),
    "regular expression that never ends": ("import re\nre.match('(a+)+$', 'a' * 40 + 'b')", {TIMEOUT}, b""),
    "memory at once": ("x = bytearray(1 << 30)", {MEMORY}, b""),
    "memory bit by bit": ("x = []\nwhile True: x.append('y' * 100000 + str(len(x)))", {MEMORY}, b""),
    "memory by a string": ("x = 'a'\nwhile True: x += x", {MEMORY}, b""),
    "memory mapped": ("import mmap\nx = mmap.mmap(-1, 1 << 30)", {RUNTIME, MEMORY}, b""),
    "memory caught": ("try:\n    x = 'a' * (1 << 31)\nexcept MemoryError:\n    print('caught')", {OK}, b"caught\n"),
    "huge integer": ("print(9 ** 9 ** 9)", {TIMEOUT, MEMORY}, b""),
    "huge power folded by the compiler": ("x = 10 ** 10 ** 10", {TIMEOUT, MEMORY}, b""),
    "output flood": ("while True: print('x' * 100)", {OUTPUT}, None),
    "error flood": ("import sys\nwhile True: sys.stderr.write('x' * 100)", {OUTPUT}, b""),
    "output flood by descriptor": ("import os\nwhile True: os.write(1, b'x' * 1000)", {OUTPUT}, None),
    "output flood that ignores the signal": (
        "import os, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nwhile True:\n"
        "    try: os.write(1, b'x' * 1000)\n    except OSError: break",
        {OUTPUT},
        None,
    ),
    "sparse output": ("import os\nos.lseek(1, 1 << 40, 0)\nos.write(1, b'x')", {RUNTIME, OUTPUT}, None),
    "truncates its output far out": ("import os\nos.ftruncate(1, 1 << 40)", {RUNTIME, OUTPUT}, None),
    "deep recursion": ("def f(n): return f(n + 1)\nf(0)", {RUNTIME}, b""),
    "recursion without limit": (
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(n): return [f(n + 1)]\nf(0)",
        {RUNTIME, MEMORY, TIMEOUT},
        b"",
    ),
    "many files": ("import os\nx = []\nwhile True: x.append(os.dup(1))", {RUNTIME}, b""),
    "many pipes": ("import os\nx = []\nwhile True: x.append(os.pipe())", {RUNTIME}, b""),
    "raises its own limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nx = bytearray(1 << 30)",
        {RUNTIME, MEMORY},
        b"",
    ),
    # Processes and signals.
    "fork": ("import os\nos.fork()", {RUNTIME}, b""),
    "fork bomb": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", {TIMEOUT}, b""),
    "fork by libc": (LIBC + "print(libc.fork())", {OK}, b"-1\n"),
    "subprocess": ("import subprocess\nsubprocess.run(['/bin/sh', '-c', 'echo hi'])", {RUNTIME}, b""),
    "system": ("import os\nprint(os.system('echo hi') == 0)", {OK, RUNTIME}, None),
    "exec": ("import os\nos.execv('/bin/sh', ['sh', '-c', 'echo hi'])", {RUNTIME}, b""),
    "thread": ("import threading\nthreading.Thread(target=print).start()", {RUNTIME}, b""),
    "background process": (
        "import os\ntry:\n    if os.fork() == 0:\n        os.setsid()\n        while True: pass\n"
        "except OSError: print('refused')",
        {OK},
        b"refused\n",
    ),
    "new session": ("import os\nos.setsid()", {RUNTIME}, b""),
    "kills its parent": ("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", {RUNTIME, OK}, b""),
    "kills everybody": ("import os, signal\nos.kill(-1, signal.SIGKILL)\nprint('alive')", {OK, RUNTIME, MEMORY}, None),
    "kills its group": ("import os, signal\nos.killpg(0, signal.SIGKILL)", {MEMORY, RUNTIME}, b""),
    "kills the service": ("import os, signal\nos.kill(@PID@, signal.SIGTERM)", {RUNTIME}, b""),
    "stops its parent": ("import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)", {RUNTIME, OK}, b""),
    "limits its parent": (
        "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
        {RUNTIME},
        b"",
    ),
    "traces its parent": (LIBC + "import os\nlibc.ptrace(16, os.getppid(), 0, 0)", {FORBIDDEN}, b""),
    "reads its parent's memory": ("import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')", {RUNTIME}, b""),
    "reads its parent's environment": (
        "import os\nprint(open(f'/proc/{os.getppid()}/environ').read())",
        {RUNTIME},
        b"",
    ),
    "reads the service's environment": ("print(open('/proc/@PID@/environ').read())", {RUNTIME}, b""),
    "outlives its parent": (LIBC + "print(libc.prctl(1, 0, 0, 0, 0))", {OK}, b"-1\n"),
    # Files and secrets.
    "reads the passwords": ("print(open('/etc/passwd').read())", {RUNTIME}, b""),
    "reads a secret file": ("print(open('@FILE@').read())", {RUNTIME}, b""),
    "overwrites a file": ("open('@FILE@', 'w').write('gone')", {RUNTIME}, b""),
    "removes a file": ("import os\nos.unlink('@FILE@')", {RUNTIME}, b""),
    "renames a file": ("import os\nos.rename('@FILE@', '@FILE@.moved')", {RUNTIME}, b""),
    "changes a file's mode": ("import os\nos.chmod('@FILE@', 0)", {RUNTIME}, b""),
    "links to a file": ("import os\nos.symlink('@FILE@', '/tmp/altlas-link')", {RUNTIME}, b""),
    "writes to /tmp": ("open('/tmp/altlas-was-here', 'w').write('x')", {RUNTIME}, b""),
    "writes to shared memory": ("open('/dev/shm/altlas-was-here', 'w').write('x')", {RUNTIME}, b""),
    "writes a temporary file": ("import tempfile\ntempfile.NamedTemporaryFile()", {RUNTIME}, b""),
    "writes beside the standard library": (
        "import os\nopen(os.path.join(os.path.dirname(os.__file__), 'x.py'), 'w')",
        {RUNTIME},
        b"",
    ),
    "lists the root": ("import os\nprint(os.listdir('/'))", {RUNTIME}, b""),
    "reads our source": ("import altlas", {RUNTIME}, b""),
    "reads the sandbox's source": ("import altlas_evaluator.sandbox", {RUNTIME}, b""),
    "reads the environment": ("import os\nprint(dict(os.environ))", {OK}, b"{}\n"),
    "reads the arguments": ("import sys\nprint(sys.argv, sys.orig_argv)", {OK}, b"[''] ['']\n"),
    "reopens its input to write": (
        "import os\nfor n in range(5):\n    try: open(f'/proc/self/fd/{n}', 'r+b').write(b'x')\n"
        "    except OSError: pass",
        {OK},
        b"",
    ),
    "writes to its input": ("import os\nos.write(0, b'x')", {RUNTIME}, b""),
    # Network and other machines.
    "connects": ("import socket\nsocket.create_connection(('127.0.0.1', @PORT@), 1)", {RUNTIME}, b""),
    "connects by MPTCP": ("import socket\nsocket.socket(2, 1, 262).connect(('127.0.0.1', @PORT@))", {RUNTIME}, b""),
    "listens": ("import socket\nsocket.create_server(('127.0.0.1', 0))", {RUNTIME}, b""),
    "sends a datagram": ("import socket\nsocket.socket(2, 2).sendto(b'x', ('127.0.0.1', @PORT@))", {RUNTIME}, b""),
    "opens a unix socket": ("import socket\nsocket.socket(socket.AF_UNIX)", {RUNTIME}, b""),
    "opens netlink": ("import socket\nsocket.socket(16, 3, 0)", {RUNTIME}, b""),
    # The kernel's surface.
    "new user namespace": (LIBC + "libc.unshare(0x10000000)", {FORBIDDEN}, b""),
    "mounts": (LIBC + "libc.mount(b'x', b'/', b'tmpfs', 0, None)", {FORBIDDEN}, b""),
    "io_uring": (LIBC + "libc.syscall(425, 8, 0)", {FORBIDDEN}, b""),
    "bpf": (LIBC + "libc.syscall(321, 0, 0, 0)", {FORBIDDEN}, b""),
    "keyring": (LIBC + "libc.syscall(250, 0, 0)", {FORBIDDEN}, b""),
    "perf events": (LIBC + "libc.syscall(298, 0, 0, 0, 0, 0)", {FORBIDDEN}, b""),
    "unknown system call": (LIBC + "libc.syscall(9999)", {FORBIDDEN}, b""),
    "x32 system call": (LIBC + "libc.syscall(0x40000000 + 39)", {FORBIDDEN}, b""),
    "process_vm_readv": (
        LIBC + "import os\nlibc.process_vm_readv(os.getppid(), None, 0, None, 0, 0)",
        {FORBIDDEN},
        b"",
    ),
    "becomes root": ("import os\nos.setuid(0)", {RUNTIME}, b""),
    # Forging and the way it ends.
    "forges a record on 3": ("import os\nos.write(3, b'ALr1' + bytes(36))", {RUNTIME}, b""),
    "writes on every descriptor": (
        "import os\nfor n in range(3, 64):\n    try: os.write(n, b'x')\n    except OSError: pass",
        {OK},
        b"",
    ),
    "opens descriptors without end": (
        "import os\nn = 0\ntry:\n    for n in range(200): os.dup(0)\nexcept OSError: pass\nprint(50 < n < 64)",
        {OK},
        b"True\n",
    ),
    "closes everything": ("import os\nos.closerange(0, 64)", {RUNTIME, OK}, b""),
    "exits with 0": ("import sys\nprint('a')\nsys.exit(0)", {OK}, b"a\n"),
    "exits with 7": ("import sys\nsys.exit(7)", {RUNTIME}, b""),
    "exits with a message": ("import sys\nsys.exit('no')", {RUNTIME}, b""),
    "exits at once": ("import os\nprint('lost')\nos._exit(0)", {OK}, b""),
    "ends by exit()": ("print(1)\nexit()", {OK}, b"1\n"),
    "aborts": ("import os\nos.abort()", {RUNTIME}, b""),
    "segmentation fault": ("import ctypes\nctypes.string_at(0)", {RUNTIME}, b""),
    "patches what others use": (
        "import builtins, os, sys, json\nbuiltins.print = None\nos._exit = None\nsys.stdout = None\njson.dumps = None",
        {OK, RUNTIME},
        b"",
    ),
    "patches the frames above": (
        "import sys\nframe = sys._getframe()\nwhile frame:\n    frame.f_globals.clear()\n    frame = frame.f_back",
        {OK, RUNTIME},
        b"",
    ),
    "raises from its exception's text": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        {RUNTIME},
        b"",
    ),
    "replaces the exception hook": ("import sys\nsys.excepthook = print\n1 / 0", {RUNTIME}, None),
    "runs on at exit": (
        "import atexit\ndef end():\n    while True: pass\natexit.register(end)\nprint('a')",
        {TIMEOUT},
        b"",
    ),
    "searches memory for the answer": (
        "import gc, sys\nwords = [str(item)[:200] for item in gc.get_objects()]\n"
        "print(any('nretnal-htom'[::-1] in word for word in words), any('altlas' in name for name in sys.modules))",
        {OK},
        b"False False\n",
    ),
    # Sources.
    "empty": ("", {OK}, b""),
    "syntax error": ("print('a'", {SYNTAX}, b""),
    "bad indentation": ("if True:\nprint(1)", {SYNTAX}, b""),
    "mixed tabs": ("if True:\n        x = 1\n\ty = 2", {SYNTAX}, b""),
    "NUL byte": (b"print(1)\x00", {SYNTAX}, b""),
    "not UTF-8": (b"x = '\xff'", {SYNTAX}, b""),
    "latin-1 by cookie": (b"# -*- coding: latin-1 -*-\nprint(ord('\xff'))", {OK}, b"255\n"),
    "unknown cookie": (b"# -*- coding: no-such -*-\nprint(1)", {SYNTAX}, b""),
    "byte order mark": (b"\xef\xbb\xbfprint(1)", {OK}, b"1\n"),
    "deeply nested brackets": ("x = " + "(" * 5000 + ")" * 5000, {SYNTAX, MEMORY}, b""),
    "deeply nested lists": ("x = " + "[" * 150 + "]" * 150, {OK, SYNTAX, MEMORY}, b""),
    "deeply nested operators": ("x = " + "-" * 50000 + "1", {SYNTAX, MEMORY, RUNTIME}, b""),
    "deeply nested blocks": (
        "".join(" " * n + "if 1:\n" for n in range(150)) + " " * 150 + "pass",
        {SYNTAX},
        b"",
    ),
    "megabyte of lines": ("x = 1\n" * 170_000 + "print(x)", {OK, MEMORY, TIMEOUT}, None),
    "megabyte in a line": ("x = '" + "a" * 1_000_000 + "'\nprint(len(x))", {OK}, b"1000000\n"),
    "long expression": ("x = " + "+".join(["1"] * 20_000), {OK, SYNTAX, MEMORY, RUNTIME}, b""),
}

LEFT_BEHIND = ("/tmp/altlas-was-here", "/tmp/altlas-link", "/dev/shm/altlas-was-here")
NEIGHBOUR = "import json, os\nprint(json.dumps(input()), os.getcwd() != '')"


@contextlib.contextmanager
def outside_of(tier: Tier | None) -> Iterator[Outside]:
    """Start an executor and what its programs must not reach; None takes the tier that it chooses itself."""
    with tempfile.TemporaryDirectory(prefix="altlas-hostile-") as name, socket.socket() as listener:
        directory = Path(name)
        secret_file = directory / "secret.txt"
        secret_file.write_text(SECRET)
        for path in (secret_file, directory):
            path.chmod(0o777)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        os.environ["ALTLAS_TEST_SECRET"] = SECRET
        try:
            with Executor(SandboxSection(slots=1), tier=tier) as executor:
                yield Outside(executor, listener, secret_file)
        finally:
            del os.environ["ALTLAS_TEST_SECRET"]


def check(outside: Outside, name: str) -> str:
    """Run one program and return what did not hold, empty when all did."""
    source, statuses, stdout = PROGRAMS[name]
    before, restarts = outside.processes(), outside.executor.counters().launcher_restarts
    execution = outside.run(source)
    left = [path for path in LEFT_BEHIND if os.path.lexists(path)]
    for path in left:
        Path(path).unlink()
    held = {
        "status": execution.status in statuses,
        "stdout": stdout is None or execution.stdout == stdout,
        "output limit": max(len(execution.stdout), len(execution.stderr)) <= LIMITS.output_bytes,
        "latency": execution.wall_s < LIMITS.wall_s + 0.5,
        "secret unseen": SECRET.encode() not in execution.stdout + execution.stderr,
        "no process left": outside.processes() <= before,
        "launcher survived": outside.executor.counters().launcher_restarts == restarts,
        "listener unreached": not outside.was_reached(),
        "secret file kept": outside.secret_file.read_text() == SECRET,
        "secret file's mode kept": outside.secret_file.stat().st_mode & 0o777 == 0o777,
        "nothing written": not left,
    }
    neighbour = outside.run(NEIGHBOUR, stdin=b"next")
    held["next program right"] = (neighbour.status, neighbour.stdout) == (OK, b'"next" True\n')
    broken = [what for what, holds in held.items() if not holds]
    return f"{', '.join(broken)}: {execution}" if broken else ""


def main() -> None:
    """Run all programs and print what failed."""
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
        for ran, name in enumerate(PROGRAMS, start=1):  # noqa: B007
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
