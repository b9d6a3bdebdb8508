"""The confined process of a slot: confines itself once, then forks a child per program and reports how it ended.

Standard library only; nothing of ours that holds tasks, expected outputs or secrets is imported here. Invariants:
- No byte of a source or an output passes through this process: the child reads and writes the memory files itself.
- A program starts only after every layer is in place in its own process; a child that cannot says so and ends.
- What happened is read from the kernel's wait status, and from an event descriptor that is closed, with the control
  socket, before the first line of the program runs.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
from typing import Any, NoReturn

from altlas_evaluator.sandbox import forkloop, interpreter, kernel, pages, records
from altlas_evaluator.sandbox.confinement import Confinement, confine

_ADDR_NO_RANDOMIZE = 0x0040000
_SHOWN_CHARACTERS = 500
_PERSONALITY_QUERY = 0xFFFFFFFF


def _fix_addresses(arguments: list[str]) -> None:
    """Start again without address randomisation, where permitted, so that printed addresses repeat."""
    with contextlib.suppress(OSError):
        current = kernel.syscall("personality", _PERSONALITY_QUERY)
        if not current & _ADDR_NO_RANDOMIZE:
            kernel.syscall("personality", current | _ADDR_NO_RANDOMIZE)
            os.execv(sys.executable, arguments)


def _restore_signals(*, has_scope: bool) -> None:
    """Undo what whoever started the evaluator ignores, as nohup and shells do: a program must end alike everywhere."""
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGINT}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # Process 1 of a namespace gets from inside only the signals that it handles: without a scope, none.
    signal.signal(signal.SIGINT, signal.default_int_handler if has_scope else signal.SIG_DFL)


def _take_descriptors(control: int, source: int) -> None:
    """Move the control socket to 3 and the source to 4, and close all above."""
    spare = os.dup(control), os.dup(source)
    os.dup2(spare[0], records.CONTROL_FD)
    os.dup2(spare[1], records.SOURCE_FD)
    kernel.syscall("close_range", records.SOURCE_FD + 1, 0xFFFFFFFF, 0)


def _refuse_compile(error: BaseException) -> NoReturn:
    # A message longer than the output limit is cut, rather than the reason why the program ended.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if isinstance(error, SyntaxError) and len(error.text or "") > _SHOWN_CHARACTERS:
        error.text = None
    error.__cause__ = error.__context__ = None
    sys.excepthook(type(error), error.with_traceback(None), None)
    os._exit(1)


def _compile(language: Any, event: int) -> object:
    source = os.pread(records.SOURCE_FD, os.fstat(records.SOURCE_FD).st_size, 0)
    try:
        return language.compile(source)
    except MemoryError as error:
        _refuse_compile(error)
    except BaseException as error:
        os.eventfd_write(event, forkloop.EVENT_NOT_COMPILED)
        _refuse_compile(error)


class Launcher:
    """Forks a child per request. Everything that a child needs is made here, before the first fork."""

    def __init__(self, confinement: Confinement, language: Any, native: Any) -> None:
        self._language = language
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._loop: forkloop.Loop = (
            forkloop.PythonLoop(confinement, self._event)
            if native is None
            else forkloop.NativeLoop(native, confinement, self._event)
        )
        signal.pthread_sigmask(signal.SIG_BLOCK, forkloop.AWAITED)
        _restore_signals(has_scope=confinement.scope >= 0)

    def serve(self) -> None:
        """Answer requests until the supervisor hangs up."""
        cases = self._loop.serve()
        if cases:
            self._be_child(cases)

    def _be_child(self, cases: int) -> NoReturn:
        end = os._exit  # a program may replace it, and clear our names
        code = 1
        try:
            compiled = _compile(self._language, self._event)
            self._loop.begin()
            gc.enable()
            code = self._language.run(compiled) if cases == 1 else self._run_cases(compiled, cases)
        finally:
            end(code)

    def _run_cases(self, compiled: object, cases: int) -> int:
        code = 0
        for index in range(cases):
            self._loop.enter_case(index)
            self._language.reset()
            code = self._language.run(compiled)
            self._loop.leave_case(index, code)
        return code


def main() -> None:
    """Confine this process and serve.

    Arguments: tier, control descriptor, source descriptor, the language's module, directories to import it from.
    """
    tier, control, source, module, *search_path = sys.argv[1:]
    _fix_addresses(list(sys.orig_argv))
    _take_descriptors(int(control), int(source))
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    gc.disable()
    native = forkloop.load_native()
    try:
        if native is not None:
            pages.use_huge_text(native)
        sys.path.extend(search_path)
        language: Any = importlib.import_module(module)
        language.prepare()
        interpreter.forget_origin()
        confinement = confine(tier, language.warm_up, search_path)
    except (OSError, ImportError) as error:
        os.write(records.CONTROL_FD, records.FAILED + str(error).encode()[: records.GREETING_BYTES - 1])
        return
    launcher = Launcher(confinement, language, native)
    layers = confinement.layers | {"fork loop": "C" if native else "Python"}
    # Without a scope for signals a case could kill the process that forked it and waits for it.
    most_cases = records.MAX_CASES if confinement.scope >= 0 or tier == "unsafe" else 1
    greeting = {"layers": layers, "most_cases": most_cases, "can_share": hasattr(language, "reset")}
    os.write(records.CONTROL_FD, records.READY + json.dumps(greeting).encode())
    launcher.serve()
    os._exit(0)
