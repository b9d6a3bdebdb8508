"""What a program finds that one before it may have changed, and programs that try to change it."""

from __future__ import annotations

from hostile_programs import LIBC

# Prints everything about its process, descriptors, interpreter and machine that should be the same for each program.
FOUND = """
import builtins, ctypes, fcntl, gc, json, os, random, resource, signal, sys
files = [os.fstat(n) for n in range(3)]
limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith('RLIMIT_')}
umask = os.umask(0o22)
descriptors = []
for n in range(64):
    try: descriptors.append((n, fcntl.fcntl(n, fcntl.F_GETFD), fcntl.fcntl(n, fcntl.F_GETFL)))
    except OSError: pass
own = ctypes.CDLL(None)
print(json.dumps(dict(
    stdin=os.read(0, 99).decode(), again=os.pread(0, 99, 0).decode(), left=os.pread(1, 9, 0).decode(),
    errors=os.pread(2, 9, 0).decode(), sizes=[item.st_size for item in files], links=[item.st_nlink for item in files],
    modes=[oct(item.st_mode) for item in files], owners=[(item.st_uid, item.st_gid) for item in files],
    positions=[os.lseek(n, 0, 1) for n in range(3)], descriptors=descriptors, limits=limits, umask=umask,
    cwd=os.getcwd(), group=os.getpgrp() == os.getpid(), session=os.getsid(0) == os.getpid(), ids=os.getresuid(),
    priority=os.getpriority(0, 0), policy=os.sched_getscheduler(0), affinity=sorted(os.sched_getaffinity(0)),
    alarm=signal.alarm(0), timers=[signal.getitimer(n) for n in range(3)], pending=sorted(signal.sigpending()),
    blocked=sorted(signal.pthread_sigmask(0, [])), handlers=[str(signal.getsignal(n)) for n in range(1, 65)],
    children=resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, name=os.uname().nodename,
    parent_name=own.prctl(16, ctypes.create_string_buffer(16)), dumpable=own.prctl(3), modules=sorted(sys.modules),
    builtins=len(vars(builtins)), names=sorted(globals()), environment=dict(os.environ), path=sys.path,
    recursion=sys.getrecursionlimit(), switch=sys.getswitchinterval(), digits=sys.get_int_max_str_digits(),
    hooks=[sys.gettrace() is None, sys.getprofile() is None, sys.excepthook is sys.__excepthook__],
    gc=[gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()], random=random.random(), hash=hash('a'),
    streams=[(item.encoding, item.errors, item.line_buffering) for item in (sys.stdin, sys.stdout, sys.stderr)],
    address=id(builtins),
)))
"""
STDIN = b"next program's own\n"

# After each of them the next program must find what it would have found without it.
POISONS: dict[str, str] = {
    "positions": "import os\nfor n in range(3): os.lseek(n, 7, 0)\nos.read(0, 3)",
    "blocking": "import os\nfor n in range(3): os.set_blocking(n, False)",
    "blocking of copies": "import os\nfor n in range(3): os.set_blocking(os.dup(n), False)",
    "flags": (
        "import fcntl\nfor n in range(3):\n    for flag in (0o2000, 0o4000, 0o20000, 0o40000, 0o1000000):\n"
        "        try: fcntl.fcntl(n, fcntl.F_SETFL, flag)\n        except OSError: pass"
    ),
    "seals, leases, owners, sizes": (
        "import fcntl\nfor n in range(3):\n    for command in (1033, 1024, 8, 10, 1026, 1031, 1036):\n"
        "        try: fcntl.fcntl(n, command, 1)\n        except OSError: pass"
    ),
    "locks": (
        "import fcntl\nfor n in range(3):\n    for lock in (fcntl.lockf, fcntl.flock):\n"
        "        try: lock(n, fcntl.LOCK_EX | fcntl.LOCK_NB)\n        except OSError: pass"
    ),
    "modes, owners, times": (
        "import os\nfor n in range(3):\n    for change in (lambda: os.fchmod(n, 0), lambda: os.fchown(n, 1, 1), "
        "lambda: os.utime(n)):\n"
        "        try: change()\n        except OSError: pass"
    ),
    "sizes": "import os\nfor n in range(1, 3): os.ftruncate(n, 99)",
    "holes": "import os\nfor n in range(1, 3):\n    os.lseek(n, 99, 0)\n    os.write(n, b'x')\n    os.ftruncate(n, 0)",
    "shared memory of its files": (
        "import mmap, os\nfor n in range(1, 3):\n    os.ftruncate(n, 99)\n    m = mmap.mmap(n, 99)\n"
        "    m[:] = b'x' * 99\n"
        "    os.ftruncate(n, 0)"
    ),
    "access advised": "import os\nfor n in range(3):\n    for advice in range(6): os.posix_fadvise(n, 0, 0, advice)",
    "umask and directory": "import os\nos.umask(0o777)\nos.chdir('/')",
    "limits": (
        "import resource\nfor name in dir(resource):\n"
        "    if name.startswith('RLIMIT_') and name not in ('RLIMIT_CPU', 'RLIMIT_AS'):\n"
        "        resource.setrlimit(getattr(resource, name), (0, 0))"
    ),
    "signals": (
        "import os, signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nos.kill(os.getpid(), signal.SIGTERM)"
    ),
    "timers": "import signal\nfor n in range(3): signal.setitimer(n, 0.5)\nsignal.alarm(1)",
    "scheduling": (
        "import os\nfor change in (lambda: os.nice(5), lambda: os.sched_setaffinity(0, {0}), "
        "lambda: os.setpriority(0, 0, 9),\n"
        "               lambda: os.setpriority(0, os.getppid(), 9), lambda: os.setpriority(1, 0, 9)):\n"
        "    try: change()\n    except OSError: pass"
    ),
    "interpreter": (
        "import builtins, gc, random, sys\nbuiltins.leak = sys.leak = random.leak = 1\nsys.setrecursionlimit(99)\n"
        "sys.set_int_max_str_digits(0)\nsys.setswitchinterval(1)\ngc.set_threshold(1)\ngc.unfreeze()\ngc.disable()\n"
        "random.seed(7)\nsys.settrace(lambda *_: None)\nsys.path.clear()\nsys.stdout.reconfigure(encoding='utf-16')"
    ),
    "environment": "import os\nos.environ['LEAK'] = '1'\nos.putenv('PYTHONPATH', '/tmp')",
    "names": LIBC + "libc.prctl(15, b'leak')\nlibc.sethostname(b'leak', 4)",
    "domain": LIBC + "libc.syscall(446, 0, 0)",
    "membarrier": LIBC + "for n in (16, 64): libc.syscall(324, n, 0, 0)",
    "input as memory": "import mmap\nm = mmap.mmap(0, 0, prot=mmap.PROT_READ)\nprint(len(m))",
    "descriptors": "import os\nfor n in range(3, 64):\n    try: os.dup2(0, n)\n    except OSError: pass",
    "killed": "import os, signal\nos.write(1, b'x' * 99)\nos.lseek(0, 5, 0)\nos.kill(os.getpid(), signal.SIGKILL)",
    "forbidden": LIBC + "import os\nos.write(2, b'x' * 99)\nlibc.mount(0, 0, 0, 0, 0)",
    "not compiled": "x = (" + "\n" * 999,
    "output too long": "while True: print('x' * 999)",
    "out of memory": "x = []\nwhile True: x.append('y' * 99999 + str(len(x)))",
}
