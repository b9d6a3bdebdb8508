"""Programs that forge a result, break what prints it, or end in an odd way."""

from __future__ import annotations

from hostile_programs import OK, RUNTIME, TIMEOUT, Hostile

PROGRAMS: dict[str, Hostile] = {
    "forges a record on 3": Hostile("import os\nos.write(3, b'ALr1' + bytes(36))", {RUNTIME}, b""),
    "writes on every descriptor": Hostile(
        "import os\nfor n in range(3, 64):\n    try: os.write(n, b'x')\n    except OSError: pass",
        {OK},
        b"",
    ),
    "opens descriptors without end": Hostile(
        "import os\nn = 0\ntry:\n    for n in range(200): os.dup(0)\nexcept OSError: pass\nprint(50 < n < 64)",
        {OK},
        b"True\n",
    ),
    "closes everything": Hostile("import os\nos.closerange(0, 64)", {RUNTIME, OK}, b""),
    "exits with 0": Hostile("import sys\nprint('a')\nsys.exit(0)", {OK}, b"a\n"),
    "exits with 7": Hostile("import sys\nsys.exit(7)", {RUNTIME}, b""),
    "exits with a message": Hostile("import sys\nsys.exit('no')", {RUNTIME}, b""),
    "exits at once": Hostile("import os\nprint('lost')\nos._exit(0)", {OK}, b""),
    "ends by exit()": Hostile("print(1)\nexit()", {OK}, b"1\n"),
    "aborts": Hostile("import os\nos.abort()", {RUNTIME}, b""),
    "segmentation fault": Hostile("import ctypes\nctypes.string_at(0)", {RUNTIME}, b""),
    "patches what others use": Hostile(
        "import builtins, os, sys, json\nbuiltins.print = None\nos._exit = None\nsys.stdout = None\njson.dumps = None",
        {OK, RUNTIME},
        b"",
    ),
    "patches the frames above": Hostile(
        "import sys\nframe = sys._getframe()\nwhile frame:\n    frame.f_globals.clear()\n    frame = frame.f_back",
        {OK, RUNTIME},
        b"",
    ),
    "raises from its exception's text": Hostile(
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        {RUNTIME},
        b"",
    ),
    "replaces the exception hook": Hostile("import sys\nsys.excepthook = print\n1 / 0", {RUNTIME}, None),
    "runs on at exit": Hostile(
        "import atexit\ndef end():\n    while True: pass\natexit.register(end)\nprint('a')",
        {TIMEOUT},
        b"",
    ),
    "searches memory for the answer": Hostile(
        "import gc, sys\nwords = [str(item)[:200] for item in gc.get_objects()]\n"
        "print(any('nretnal-htom'[::-1] in word for word in words), any('altlas' in name for name in sys.modules))",
        {OK},
        b"False False\n",
    ),
    "replaces the exit and fails": Hostile("import os\nos._exit = lambda code: None\n1 / 0", {RUNTIME}),
    "leaves a broken exception hook": Hostile(
        "import sys\nprint('kept')\nsys.excepthook = lambda *_: 1 / 0\nraise ValueError", {RUNTIME}, b"kept\n"
    ),
    "removes the exception hook": Hostile("import sys\nprint('kept')\ndel sys.excepthook\n1 / 0", {RUNTIME}, b"kept\n"),
    "exits from the exception hook": Hostile(
        "import sys\nsys.excepthook = lambda *_: sys.exit(5)\nprint('kept')\n1 / 0", {RUNTIME}, b"kept\n"
    ),
    "exits with what cannot be printed": Hostile(
        "import sys\nclass E:\n    def __str__(self): raise ValueError\nprint('kept')\nsys.exit(E())",
        {RUNTIME},
        b"kept\n",
    ),
    "exits with too large a number": Hostile("import sys\nsys.exit(2 ** 64)", {RUNTIME}),
    "exits with a number that becomes 0": Hostile("import sys\nsys.exit(256)", {OK}),
    "exits with a number that lies": Hostile(
        "import sys\nclass N(int):\n    def __and__(self, other): return 0\n"
        "    __index__ = __int__ = __rand__ = lambda *_: 0\n"
        "sys.exit(N(3))",
        {RUNTIME},
    ),
    "exits with False": Hostile("import sys\nsys.exit(False)", {OK}),
    "exits with 0.0": Hostile("import sys\nsys.exit(0.0)", {RUNTIME}),
    "exits with None and no streams": Hostile("import sys\nsys.stdout = sys.stderr = None\nsys.exit()", {OK}),
    "raises what is no error": Hostile("raise GeneratorExit", {RUNTIME}),
    "raises a group": Hostile("raise BaseExceptionGroup('x', [KeyboardInterrupt(), SystemExit(0)])", {RUNTIME}),
    "raises what holds odd characters": Hostile("raise ValueError('\\0\\udcff\\ud800\\x1b[2J')", {RUNTIME}),
    "pretends to have no memory": Hostile("import sys\nprint('MemoryError', file=sys.stderr)\nsys.exit(0)", {OK}),
    "pretends a syntax error": Hostile("raise SyntaxError('mine')", {RUNTIME}),
    "compiles what does not": Hostile("exec('x = (')", {RUNTIME}),
    "fails to end in a finaliser": Hostile(
        "class E:\n    def __del__(self):\n        while True: pass\nx = E()", {TIMEOUT}
    ),
    "registers what registers itself": Hostile(
        "import atexit\ndef end():\n    atexit.register(end)\n    raise ValueError\natexit.register(end)\nprint('a')",
        {OK},
        b"a\n",
    ),
    "prints from a finaliser": Hostile("class E:\n    def __del__(self): print('bye')\nx = E()", {OK}, b"bye\n"),
    "exits within a finaliser": Hostile(
        "import os\nclass E:\n    def __del__(self, leave=os._exit): leave(0)\nx = E()\nprint('lost')\n1 / 0", {OK}
    ),
    "breaks the handlers at exit": Hostile(
        "import atexit\natexit._run_exitfuncs = None\nprint('kept')", {OK}, b"kept\n"
    ),
    "raises from a profiler": Hostile(
        "import sys\ndef hook(frame, event, argument):\n    if event == 'return': raise ValueError\n"
        "sys.setprofile(hook)",
        {RUNTIME},
    ),
    "traces the frames above": Hostile(
        "import sys\nframe = sys._getframe()\nwhile frame:\n    frame.f_trace = print\n    frame = frame.f_back\n"
        "sys.settrace(lambda *_: None)",
        {OK},
        None,
    ),
    "empties the modules": Hostile("import sys\nprint('kept')\nsys.modules.clear()", {OK}, b"kept\n"),
    "empties the builtins": Hostile("print('kept')\n__builtins__.__dict__.clear()", {OK, RUNTIME}, None),
    "shows what the frames above hold": Hostile(
        "import sys\nframe, texts = sys._getframe(), []\nwhile frame:\n"
        "    texts += [str(item) for item in frame.f_locals.values()]\n"
        "    frame = frame.f_back\nprint(any('nretnal-htom'[::-1] in text for text in texts))",
        {OK},
        b"False\n",
    ),
    "closes stdout": Hostile("import sys\nprint('kept')\nsys.stdout.close()", {OK}, b"kept\n"),
    "closes stdout by its descriptor": Hostile("import os\nprint('lost')\nos.close(1)", {RUNTIME}),
    "takes stdout apart": Hostile("import sys\nprint('kept')\nsys.stdout.detach()", {RUNTIME}, b"kept\n"),
    "puts a pipe in the place of stdout": Hostile("import os\nos.dup2(os.pipe()[1], 1)\nprint('lost')", {OK}),
    "puts a stream that never ends in the place of stdout": Hostile(
        "import sys\nclass S:\n    def flush(self):\n        while True: pass\nsys.stdout = S()", {TIMEOUT}
    ),
    "prints in another encoding": Hostile(
        "import sys\nsys.stdout.reconfigure(encoding='utf-16-le')\nprint('a')", {OK}, b"a\0\n\0"
    ),
    "prints NUL bytes": Hostile("print('a\\0b')", {OK}, b"a\0b\n"),
    "prints half a surrogate pair": Hostile("print('\\ud800')", {RUNTIME}),
    "prints a byte by its surrogate": Hostile("print('\\udcff')", {OK}, b"\xff\n"),
    "prints what is not UTF-8": Hostile(
        "import sys\nsys.stdout.buffer.write(b'\\xc3\\x28\\xff')", {OK}, b"\xc3\x28\xff"
    ),
    "prints escapes of a terminal": Hostile("print('\\x1b]0;title\\x07\\x1b[2J')", {OK}, b"\x1b]0;title\x07\x1b[2J\n"),
    "prints a record": Hostile(
        'print(\'{"id": 1, "status": "ok", "reward": 1.0, "solved": true}\')\nraise SystemExit(3)',
        {RUNTIME},
        b'{"id": 1, "status": "ok", "reward": 1.0, "solved": true}\n',
    ),
    "prints a record of the launcher": Hostile(
        "import sys\nsys.stdout.buffer.write(b'ALr2' + bytes(44))\nsys.exit(1)", {RUNTIME}, b"ALr2" + bytes(44)
    ),
    "writes over its output": Hostile(
        "import os\nos.write(1, b'wrong')\nos.lseek(1, 0, 0)\nos.write(1, b'right')", {OK}, b"right"
    ),
    "takes its output back": Hostile("import os\nos.write(1, b'wrong')\nos.ftruncate(1, 0)", {OK}),
    "changes its output as memory": Hostile(
        "import mmap, os\nos.ftruncate(1, 5)\nmmap.mmap(1, 5)[:] = b'right'", {OK}, b"right"
    ),
    "reads its output": Hostile(
        "import os\nos.write(1, b'ab')\nos.lseek(1, 0, 0)\nos.write(1, os.read(1, 1) * 3)", {OK}, b"aaaa"
    ),
    "touches its output as memory past the end": Hostile(
        "import mmap, os\nos.ftruncate(1, 4096)\nm = mmap.mmap(1, 4096)\nos.ftruncate(1, 0)\nm[0] = 1", {RUNTIME}
    ),
    "prints in descriptors of its own": Hostile(
        "import os\nfor n in range(20): os.write(os.dup(1), b'x')", {OK}, b"x" * 20
    ),
}
