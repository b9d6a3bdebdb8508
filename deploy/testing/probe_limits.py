"""Whether limits bite, and what becomes of programs in the sandbox. Comes last: it forks before grpc is started."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from probe_checks import FACTS, SERVICE, check, service_processes

from altlas.client import Evaluator
from altlas.core.program import Limits


def _cgroup(kind: str, first: str, second: str) -> str:
    """Return a limit of this container's control group, by its name in version 1 or 2."""
    old = Path("/sys/fs/cgroup", kind, first)
    return (old if old.exists() else Path("/sys/fs/cgroup", second)).read_text().strip()


def _limit(kind: str, first: str, second: str, *, most: int) -> int:
    """Return a limit that may be tried.

    Raises:
        ValueError: there is none, or one so high that to try it would harm the machine.
    """
    limit = _cgroup(kind, first, second)
    if limit == "max" or int(limit) > most:
        raise ValueError(f"{kind} are limited to {limit}; expected is a limit of {most:,} at most")
    return int(limit)


@check("the limit on processes bites")
def _processes_limit() -> str | None:
    limit, before = _limit("pids", "pids.max", "pids.max", most=4096), service_processes()
    children: list[int] = []
    refused = False
    try:
        while len(children) <= limit and not refused:
            try:
                child = os.fork()
            except BlockingIOError:
                refused = True
                continue
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
    if not refused:
        return f"{len(children)} processes were started within a limit of {limit}"
    return None if before <= service_processes() else "the service did not survive it"


@check("the limit on memory kills what takes too much, and not the service")
def _memory_limit() -> str | None:
    limit, before = _limit("memory", "memory.limit_in_bytes", "memory.max", most=4 << 30), service_processes()
    child = os.fork()
    if child == 0:
        taken: list[bytearray] = []
        while len(taken) << 24 < 2 * limit:
            taken.append(bytearray(os.urandom(4096)) * 4096)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        return f"twice {limit:,} bytes were had (wait status {status})"
    return None if before <= service_processes() else "the service did not survive it"


@check("processor time is limited")
def _processor_limit() -> str | None:
    quota = _cgroup("cpu", "cpu.cfs_quota_us", "cpu.max")
    return f"quota {quota}" if quota.startswith(("-1", "max")) else None


REACHING = """
import os, socket

def attempt(what, do):
    try:
        do()
    except BaseException:
        return
    print(what)

for path in ("/etc/passwd", "/proc/1/environ", "/proc/self/status", "/run/secrets/redis/password", "/sys/kernel"):
    attempt("opened " + path, lambda: open(path).close())
for path in ("/tmp/x", "/dev/shm/x", "/var/tmp/x", "x"):
    attempt("wrote " + path, lambda: open(path, "w").close())
attempt("connected", lambda: socket.create_connection(("%(redis)s", 6379), 2))
attempt("connected to the service", lambda: socket.create_connection(("127.0.0.1", 50054), 2))
attempt("forked", lambda: os.fork() or os._exit(0))
attempt("started a program", lambda: os.execv("/bin/true", ["true"]))
attempt("became root", lambda: os.setuid(0))
attempt("found an environment", lambda: 1 / len(os.environ))
print("uid", os.getuid() == 0)
"""
UNSHARE = "import ctypes\nctypes.CDLL(None).unshare(0x10000000)"
PTRACE = "import ctypes\nctypes.CDLL(None).syscall(101, 16, 1, 0, 0)"
ENDINGS = (
    ("takes memory", "taken = []\nwhile True: taken.append(bytearray(1 << 20))", ("memory_limit",)),
    ("forks without end", "import os\nwhile True: os.fork()", ("runtime_error", "forbidden")),
    (
        "starts threads",
        "import threading\nwhile True: threading.Thread(target=input).start()",
        ("runtime_error", "forbidden"),
    ),
    ("never ends", "while True: pass", ("timeout",)),
    ("prints without end", "while True: print('x' * 4096)", ("output_limit",)),
    ("makes a namespace", UNSHARE, ("forbidden",)),
    ("traces", PTRACE, ("forbidden",)),
    ("kills its parent", "import os\nos.kill(os.getppid(), 9)", ("runtime_error", "forbidden")),
    ("is a good one", "print(6 * 7)", ("ok",)),
)


@check("programs are confined as strongly as they should be")
def _tier() -> str | None:
    with Evaluator(SERVICE) as evaluator:
        found = evaluator.capabilities()
    print(f"GetCapabilities: tier {found.tier}, layers {', '.join(found.layers)}")
    return None if found.tier == FACTS["tier"] else f"tier {found.tier}, not {FACTS['tier']}"


@check("a program in the sandbox reaches nothing")
def _reaching() -> str | None:
    with Evaluator(SERVICE) as evaluator:
        source = REACHING % {"redis": socket.gethostbyname("redis")}
        (outcome,) = evaluator.execute([source], limits=Limits(cpu_s=1, wall_s=2))
    said = outcome.stdout.decode()
    return None if said == "uid False\n" else f"{outcome.status}, {said!r}, {outcome.stderr[-300:]!r}"


@check("programs end as they should, and the service stays")
def _endings() -> str | None:
    before = service_processes()
    with Evaluator(SERVICE) as evaluator:
        found = evaluator.execute([source for _, source, _ in ENDINGS], limits=Limits(cpu_s=1, wall_s=2))
    wrong = [
        f"one that {name}: {outcome.status.value} {outcome.stderr[-200:]!r}"
        for (name, _, expected), outcome in zip(ENDINGS, found, strict=True)
        if outcome.status.value not in expected
    ]
    if wrong:
        return "; ".join(wrong)
    return None if before <= service_processes() else "the service did not survive it"
