"""Programs that use up time, memory, output, descriptors, or the stack."""

from __future__ import annotations

from hostile_programs import LIBC, MEMORY, OK, OUTPUT, RUNTIME, TIMEOUT, Hostile, which

PROGRAMS: dict[str, Hostile] = {
    "infinite loop": Hostile("while True: pass", {TIMEOUT}, b""),
    "sleep": Hostile("import time\ntime.sleep(60)", {TIMEOUT}, b""),
    "loop that catches everything": Hostile(
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        {TIMEOUT},
        b"",
    ),
    "ignores every signal": Hostile(
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass",
        {TIMEOUT},
        b"",
    ),
    "stops itself": Hostile("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", {TIMEOUT}, b""),
    "regular expression that never ends": Hostile("import re\nre.match('(a+)+$', 'a' * 40 + 'b')", {TIMEOUT}, b""),
    "memory at once": Hostile("x = bytearray(1 << 30)", {MEMORY}, b""),
    "memory bit by bit": Hostile("x = []\nwhile True: x.append('y' * 100000 + str(len(x)))", {MEMORY}, b""),
    "memory by a string": Hostile("x = 'a'\nwhile True: x += x", {MEMORY}, b""),
    "memory mapped": Hostile("import mmap\nx = mmap.mmap(-1, 1 << 30)", {RUNTIME, MEMORY}, b""),
    "memory caught": Hostile(
        "try:\n    x = 'a' * (1 << 31)\nexcept MemoryError:\n    print('caught')", {OK}, b"caught\n"
    ),
    "huge integer": Hostile("print(9 ** 9 ** 9)", {TIMEOUT, MEMORY}, b""),
    "huge power folded by the compiler": Hostile("x = 10 ** 10 ** 10", {TIMEOUT, MEMORY}, b""),
    "output flood": Hostile("while True: print('x' * 100)", {OUTPUT}, None),
    "error flood": Hostile("import sys\nwhile True: sys.stderr.write('x' * 100)", {OUTPUT}, b""),
    "output flood by descriptor": Hostile("import os\nwhile True: os.write(1, b'x' * 1000)", {OUTPUT}, None),
    "output flood that ignores the signal": Hostile(
        "import os, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nwhile True:\n"
        "    try: os.write(1, b'x' * 1000)\n    except OSError: break",
        {OUTPUT},
        None,
    ),
    "sparse output": Hostile("import os\nos.lseek(1, 1 << 40, 0)\nos.write(1, b'x')", {RUNTIME, OUTPUT}, None),
    "truncates its output far out": Hostile("import os\nos.ftruncate(1, 1 << 40)", {RUNTIME, OUTPUT}, None),
    "deep recursion": Hostile("def f(n): return f(n + 1)\nf(0)", {RUNTIME}, b""),
    "recursion without limit": Hostile(
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(n): return [f(n + 1)]\nf(0)",
        {RUNTIME, MEMORY, TIMEOUT},
        b"",
    ),
    "many files": Hostile("import os\nx = []\nwhile True: x.append(os.dup(1))", {RUNTIME}, b""),
    "many pipes": Hostile("import os\nx = []\nwhile True: x.append(os.pipe())", {RUNTIME}, b""),
    "raises its own limits": Hostile(
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nx = bytearray(1 << 30)",
        {RUNTIME, MEMORY},
        b"",
    ),
    "memory in many small objects": Hostile("x = []\nwhile True: x.append([])", {MEMORY}),
    "memory in a function's small objects": Hostile(
        "def f():\n    x = []\n    while True: x.append(lambda: 1)\nf()", {MEMORY}
    ),
    "memory in a queue": Hostile("import collections\ncollections.deque(iter(int, 1))", {MEMORY}),
    "memory in a chain of tuples": Hostile("x = ()\nwhile True: x = (x,)", {MEMORY}),
    "memory by width": Hostile("print('%999999999d' % 1)", {MEMORY}),
    "memory mapped without reserve": Hostile("import mmap\nmmap.mmap(-1, 1 << 30, flags=0x4022)", {RUNTIME}),
    "memory mapped and shared": Hostile("import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 1 << 20))", {RUNTIME}),
    "memory by brk": Hostile(
        LIBC + "n = 0\nwhile libc.sbrk(1 << 20) != -1 and n < 999: n += 1\nprint(n < 60)", {OK}, b"True\n"
    ),
    "memory by malloc": Hostile(
        LIBC + "libc.malloc.restype = ctypes.c_void_p\nprint(libc.malloc(1 << 30))", {OK}, b"None\n"
    ),
    "memory in pipes": Hostile(
        "import os\nn = 0\ntry:\n    while True:\n        _, end = os.pipe()\n        os.set_blocking(end, False)\n"
        "        n += os.write(end, bytes(1 << 20))\nexcept OSError: print(n <= 64 << 16)",
        {OK},
        b"True\n",
    ),
    "memory by decompression": Hostile(
        "import zlib\nc = zlib.compressobj(1)\n"
        "data = b''.join(c.compress(bytes(1 << 20)) for _ in range(64)) + c.flush()"
        "\nzlib.decompress(data)",
        {MEMORY},
    ),
    "hash collisions": Hostile("x = {n * (2 ** 61 - 1): n for n in range(50_000)}", {TIMEOUT}),
    "digits without end": Hostile("print(10 ** 5000)", {RUNTIME}),
    "deep repr": Hostile("x = []\nfor _ in range(100_000): x = [x]\nprint(x)", {RUNTIME}),
    "deep comparison": Hostile("x, y = [], []\nfor _ in range(100_000): x, y = [x], [y]\nprint(x == y)", {RUNTIME}),
    "deep JSON": Hostile("import json\njson.loads('[' * 100_000)", {RUNTIME}),
    "deep pickle": Hostile("import pickle\nx = []\nfor _ in range(10_000): x = [x]\npickle.dumps(x)", {RUNTIME}),
    "deep hash": Hostile("x = ()\nfor _ in range(300_000): x = (x,)\nhash(x)", {RUNTIME, MEMORY}),
    "deep exception group": Hostile(
        "x = ValueError()\nfor _ in range(2000): x = ExceptionGroup('x', [x])\nraise x", {RUNTIME, OUTPUT}
    ),
    "long chain of exceptions": Hostile(
        "x = None\nfor _ in range(50_000):\n    y = ValueError()\n    y.__cause__ = x\n    x = y\nraise x",
        {RUNTIME, OUTPUT},
    ),
    "raises every limit": Hostile(
        which(
            "[name for name in dir(resource) if name.startswith('RLIMIT_')]",
            "soft, hard = resource.getrlimit(getattr(resource, item))\n"
            "        if hard < 0: continue\n"
            "        try: resource.setrlimit(getattr(resource, item), (hard + 1, hard + 1))\n"
            "        except ValueError: continue",
            "import resource",
        ),
        {OK},
        b"[]\n",
    ),
    "flood of timers": Hostile(
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)\nwhile True: pass",
        {TIMEOUT},
    ),
    "ended by its own timer": Hostile(
        "import signal, time\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\ntime.sleep(60)", {RUNTIME}
    ),
    "error too long to print": Hostile("raise ValueError('x' * 100_000)", {OUTPUT}),
    "one long line": Hostile("print('x' * 100_000)", {OUTPUT}, b"x" * 4096),
    "output to the limit": Hostile("print('x' * 4095)", {OK}, b"x" * 4095 + b"\n"),
    "waits for nobody": Hostile("import os\nos.wait()", {RUNTIME}),
    "reads input that is not there": Hostile("input()", {RUNTIME}),
}
