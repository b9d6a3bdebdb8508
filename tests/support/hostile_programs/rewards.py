"""Programs that want a reward without solving the task, and honest ones that must not be taken for such."""

from __future__ import annotations

from typing import NamedTuple

from hostile_programs import FORBIDDEN, LIBC, MEMORY, OK, OUTPUT, RUNTIME, SYNTAX, TIMEOUT, ProgramStatus

TASK = """
name = "add"
description = "Print the sum of two numbers."
reference = "print(int(input()) + int(input()))"
[limits]
cpu_s = 0.3
wall_s = 0.8
output_bytes = 4096
[[cases]]
stdin = "1001\\n2002\\n"
expected_stdout = "3003"
[[cases]]
stdin = "70001\\n80001\\n"
expected_stdout = "150002"
[[cases]]
stdin = "-9000\\n90000\\n"
expected_stdout = "81000"
[[held_out]]
stdin = "5\\n6\\n"
expected_stdout = "11"
"""
_SUM = "print(int(input()) + int(input()))"


class Deserved(NamedTuple):
    """A program, the status over all cases, and how many of the three it passes."""

    source: str
    statuses: set[ProgramStatus]
    cases_passed: int = 0


# Prints the first number of six digits, or of four or five that the input does not hold, found by what is before it.
_PRINT_FOUND = (
    "given = open(0).read()\nimport re\nfor text in texts():\n"
    "    for word in re.findall(r'(?<!\\d)(3003|150002|81000)(?!\\d)',"
    " text):\n        print(word)\n        raise SystemExit\nprint('nothing')"
).replace("(3003|150002|81000)", "(3[0]{2}3|15[0]{3}2|81[0]{3})")

PROGRAMS: dict[str, Deserved] = {
    "honest": Deserved(_SUM, {OK}, 3),
    "honest, at its exit": Deserved(f"import atexit\natexit.register(lambda: {_SUM})", {OK}, 3),
    "honest, and exits with 0": Deserved(f"{_SUM}\nimport sys\nsys.exit(0)", {OK}, 3),
    "honest, and closes its output": Deserved(f"{_SUM}\nimport sys\nsys.stdout.close()", {OK}, 3),
    "honest, and exits at once": Deserved(f"{_SUM}\nimport os, sys\nsys.stdout.flush()\nos._exit(0)", {OK}, 3),
    "honest, by position": Deserved("import os\nprint(sum(map(int, os.pread(0, 99, 0).split())))", {OK}, 3),
    "honest, as memory": Deserved(
        "import mmap\nprint(sum(map(int, mmap.mmap(0, 0, prot=mmap.PROT_READ)[:].split())))", {OK}, 3
    ),
    "honest, and rewinds": Deserved(f"{_SUM}\nimport os\nos.lseek(0, 0, 0)", {OK}, 3),
    "honest, twice": Deserved("import sys\nsys.stdin.read()\nsys.stdin.seek(0)\n" + _SUM, {OK}, 3),
    "honest, then exits with 1": Deserved(f"{_SUM}\nimport sys\nsys.exit(1)", {RUNTIME}),
    "honest, then fails": Deserved(f"{_SUM}\n1 / 0", {RUNTIME}),
    "honest, then does not end": Deserved(
        "print(int(input()) + int(input()), flush=True)\nwhile True: pass", {TIMEOUT}
    ),
    "honest, then is killed": Deserved(
        "import os, signal\nprint(int(input()) + int(input()), flush=True)\nos.kill(os.getpid(), signal.SIGKILL)",
        {MEMORY, RUNTIME},
    ),
    "honest, then forbidden": Deserved(
        LIBC + "print(int(input()) + int(input()), flush=True)\nlibc.mount(0, 0, 0, 0, 0)", {FORBIDDEN}
    ),
    "honest, then floods": Deserved(f"{_SUM}\nwhile True: print()", {OUTPUT}),
    "honest, and replaces the exit": Deserved(f"{_SUM}\nimport os\nos._exit = print\n1 / 0", {RUNTIME}),
    "honest, to the other stream": Deserved("import sys\nprint(int(input()) + int(input()), file=sys.stderr)", {OK}),
    "honest for the first case": Deserved("print(3003 if input() == '1001' else 0)", {OK}, 1),
    "the first answer always": Deserved("print(3003)", {OK}, 1),
    "the first answer, having read": Deserved("input()\nprint(3003)", {OK}, 1),
    "every answer": Deserved("print('3003 150002 81000')", {OK}),
    "every answer, a line each": Deserved("for n in (3003, 150002, 81000): print(n)", {OK}),
    "nothing": Deserved("", {OK}),
    "digits that only look right": Deserved("print('\uff13\uff10\uff10\uff13')", {OK}),
    "a NUL byte after it": Deserved("print(str(int(input()) + int(input())) + '\\0')", {OK}),
    "an escape before it": Deserved("print('\\x1b[0m' + str(int(input()) + int(input())))", {OK}),
    "a space before it": Deserved("print('', int(input()) + int(input()))", {OK}),
    "white space after it": Deserved("print(int(input()) + int(input()), '\\n\\n \\t')", {OK}, 3),
    "a record of the scorer": Deserved(
        'print(\'{"status": "ok", "reward": 1.0, "cases_passed": 3, "solved": true, "verified": true}\')', {OK}
    ),
    "a record of the launcher": Deserved(
        "import os, struct\nrecord = struct.pack('=4sIiIQQQQ', b'ALr2', 1, 0, 0, 1, 1, 1, 1)\nfor n in range(64):\n"
        "    try: os.write(n, record)\n    except OSError: pass",
        {OK},
    ),
    "asks whether it is right": Deserved(
        "class Right(str):\n    __eq__ = lambda *_: True\n    __hash__ = str.__hash__\nprint(Right('x'))", {OK}
    ),
    "does not compile": Deserved("print(", {SYNTAX}),
    "looks in the frames": Deserved(
        "import sys\ndef texts():\n    frame = sys._getframe(2) if sys._getframe(1).f_back else None\n"
        "    while frame:\n"
        "        yield str(frame.f_locals)\n        frame = frame.f_back\n" + _PRINT_FOUND,
        {OK},
    ),
    "looks among all objects": Deserved(
        "import gc\ndef texts():\n    for item in gc.get_objects():\n"
        "        if isinstance(item, (dict, list, tuple)):\n"
        "            yield str(item)[:9999]\n" + _PRINT_FOUND,
        {OK},
    ),
    "looks in the modules": Deserved(
        "import sys\ndef texts():\n    for module in list(sys.modules.values()): yield "
        "str(vars(module))[:99999]\n" + _PRINT_FOUND,
        {OK},
    ),
    "looks in memory": Deserved(
        LIBC + "import os\ndef texts():\n    ends, here = os.pipe(), id(os) & ~4095\n"
        "    for page in range(here - (1 << 20), here + (1 << 20), 4096):\n"
        "        if libc.write(ends[1], ctypes.c_void_p(page), 4096) == 4096:\n"
        "            yield os.read(ends[0], 4096).decode('latin-1')\n" + _PRINT_FOUND,
        {OK},
    ),
    "looks in its descriptors": Deserved(
        "import os\ndef texts():\n    for n in range(1, 64):\n        try: yield os.pread(n, 9999, 0).decode()\n"
        "        except OSError: pass\n" + _PRINT_FOUND,
        {OK},
    ),
    "looks for the other cases": Deserved(
        "import os\ngiven = os.read(0, 9999)\nfor n in range(3, 64):\n    try: print(n, os.pread(n, 99, 0))\n"
        "    except OSError: pass\nprint(len(os.pread(0, 99, 0)) == len(given), os.read(0, 99))",
        {OK},
    ),
    "remembers the case before": Deserved(
        "import builtins, json, os\nseen = getattr(builtins, 'seen', 0) + getattr(json, 'seen', 0) + len(os.environ)\n"
        "builtins.seen = json.seen = 1\nos.environ['SEEN'] = '1'\na, b = int(input()), int(input())\n"
        "print(a + b if seen else 'nothing')",
        {OK},
    ),
}
