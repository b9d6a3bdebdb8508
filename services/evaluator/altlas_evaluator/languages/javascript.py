"""JavaScript: QuickJS in the launcher's process. A script gets what javascript.js gives it, and no way to Python.

Part of the launcher: standard library and QuickJS only. The extension module is imported by itself: its package would
bring threads and futures, pages that every fork copies.
"""
# ruff: noqa: PTH120, PTH118, PTH123

from __future__ import annotations

import importlib
import io
import os
import re
import resource
import sys
from collections.abc import Callable
from typing import Any, NoReturn

_PRELUDE = os.path.join(os.path.dirname(__file__), "javascript.js")
# Parses the whole script and leaves before its first statement; in a context that is used for nothing else.
_PARSE_ONLY = "throw 0;\n"
_READ_BYTES = 1 << 20
_OUT_OF_MEMORY = "InternalError: out of memory"
# What is thrown where there is no memory for an error: null. It is taken as that once so much was used.
_LOST_ERROR = "null"
_MUCH_MEMORY_BYTES = 8 << 20
# Errors that strict mode alone finds are found only if the directive stands before all other statements.
_STRICT = re.compile(r"""(?:\s|//[^\n]*\n|/\*.*?\*/)*+('use strict'|"use strict")[ \t]*(?:;|\n|$)""", re.DOTALL)
# QuickJS makes most built-in functions when they are first used; names stay out of the scripts' way in a block.
_WARM_UP = """'use strict'; {
  let x = 0;
  for (let i = 0; i < 3; i++) { x += i; }
  function f(n) { return n < 2 ? 1 : n * f(n - 1); }
  const items = [3, 1, 2].map((n) => n * 2).filter((n) => n > 2).sort((a, b) => a - b);
  print(x, 'a', items, { a: 1 }, `${f(5)}`, 1.5, true, null, items.join(' '), 'b c'.split(' ').length);
  console.log(x, Math.max(1, 2), parseInt('3'), 'x'.repeat(2), JSON.stringify([1]), items.reduce((a, b) => a + b));
  for (const item of items) { x += item; }
  try { null.x; } catch (error) { print(String(error)); }
}"""


class _Engine:
    """Two contexts, one to see whether a script parses and one to run it, and what the script may ask of us."""

    def __init__(self) -> None:
        self._quickjs = importlib.import_module("_quickjs")
        self._parser: Any = self._quickjs.Context()
        self._context: Any = self._quickjs.Context()
        self._context.add_callable("write", self._write)
        self._context.add_callable("writeNul", self._write_nul)
        self._context.add_callable("readInput", _read_input)
        self._context.add_callable("exit", self._exit)
        with open(_PRELUDE, encoding="utf-8") as file:
            self._run_timer: Callable[..., bool] = self._context.eval(file.read())
        self._streams = {1: sys.stdout, 2: sys.stderr}

    def check(self, script: str) -> None:
        """Raise SyntaxError when the script does not parse; no statement of it is run."""
        directive = "'use strict'; " if _STRICT.match(script) else ""
        try:
            self._parser.eval(directive + _PARSE_ONLY + script)
        except self._quickjs.JSException as error:
            message = str(error)
            if message.startswith("0\n") or message == "0":
                return
            self._raise(message)

    def run(self, script: str) -> int:
        much_bytes = _peak_bytes() + _MUCH_MEMORY_BYTES
        try:
            more = self._run_timer(True, self._context.eval(script))
            while more:
                while self._context.execute_pending_job():
                    pass
                more = self._run_timer(False)
            return 0
        except self._quickjs.JSException as error:
            message = str(error)
            if message.startswith(_OUT_OF_MEMORY) or (
                message.partition("\n")[0] == _LOST_ERROR and _peak_bytes() > much_bytes
            ):
                report = "MemoryError: out of memory"
            else:
                report = f"Uncaught {message.removesuffix('undefined').rstrip()}"
            print(report, file=self._streams[2])
            return 1

    def warm_up(self) -> None:
        streams = self._streams
        for _ in range(10):
            self._streams = {1: io.StringIO(), 2: io.StringIO()}
            self.check(_WARM_UP)
            self.run(_WARM_UP)
            self.run("undefined_name")
        self._streams = streams

    def _raise(self, message: str) -> NoReturn:
        if message.startswith(_OUT_OF_MEMORY):
            raise MemoryError
        shifted = re.sub(r"<input>:(\d+)", lambda match: f"<program>:{int(match[1]) - 1}", message)
        raise SyntaxError(shifted.removeprefix("SyntaxError: ").rstrip())

    def _write(self, stream: int, text: str) -> None:
        self._streams[stream].write(text)

    def _write_nul(self, stream: int) -> None:
        self._streams[stream].write("\0")

    def _exit(self, code: int) -> NoReturn:
        for stream in self._streams.values():
            stream.flush()
        os._exit(code)


_engine: _Engine | None = None


def _ready() -> _Engine:
    if _engine is None:
        raise RuntimeError("prepare was not called")
    return _engine


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _read_input() -> str:
    return b"".join(iter(lambda: os.read(0, _READ_BYTES), b"")).decode(errors="replace")


def prepare() -> None:
    """Make the contexts."""
    global _engine
    _engine = _Engine()


def warm_up() -> None:
    """Run a script in each context."""
    _ready().warm_up()


def compile(source: bytes) -> str:
    """Return the script's text; raises SyntaxError where it is not UTF-8, holds a NUL, or does not parse."""
    try:
        script = source.decode()
    except UnicodeDecodeError as error:
        raise SyntaxError(f"the script is not UTF-8: {error}") from None
    if "\0" in script:
        raise SyntaxError("the script holds a NUL character")
    if script.startswith("#!"):
        script = "//" + script
    _ready().check(script)
    return script


def run(script: str) -> int:
    """Run the script, its promises and its timers; an uncaught exception gives 1."""
    code = _ready().run(script)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code
