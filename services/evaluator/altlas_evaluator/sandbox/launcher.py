"""The confined process of a slot: confines itself once, then forks a child per program and reports how it ended.

Standard library only; nothing of ours that holds tasks, expected outputs or secrets is imported here. Invariants:
- No byte of a source or an output passes through this process: the child reads and writes the memory files itself.
- A program starts only after every layer is in place in its own process; a child that cannot says so and ends.
- What happened is read from the kernel's wait status, and from an event descriptor that is closed, with the control
  socket, before the first line of the program runs.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import json
import os
import signal
import sys
import types
from collections.abc import Callable
from typing import NoReturn

from altlas_evaluator.sandbox import forkloop, interpreter, kernel, pages, records, seccomp
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
    sys.excepthook(type(error), error.with_traceback(None), None)
    os._exit(1)


def _compile(event: int) -> types.CodeType:
    source = os.pread(records.SOURCE_FD, os.fstat(records.SOURCE_FD).st_size, 0)
    try:
        return compile(source, "<program>", "exec", dont_inherit=True)
    except MemoryError as error:
        _refuse_compile(error)
    except BaseException as error:
        os.eventfd_write(event, forkloop.EVENT_NOT_COMPILED)
        _refuse_compile(error)


def _exit_code(request: SystemExit) -> int:
    """Return what the interpreter would exit with, after printing what it would print."""
    if request.code is None:
        return 0
    if isinstance(request.code, int):
        return int(request.code) & 0xFF
    print(request.code, file=sys.stderr)
    return 1


def _execute(code: types.CodeType, namespace: dict[str, object]) -> int:
    """Run the program and return its exit code."""
    try:
        exec(code, namespace)
    except SystemExit as request:
        return _exit_code(request)
    except BaseException as error:
        traceback = error.__traceback__.tb_next if error.__traceback__ else None  # without our own frame
        sys.excepthook(type(error), error.with_traceback(traceback), traceback)
        return 1
    return 0


def _finish(namespace: dict[str, object]) -> int:
    """Do what an interpreter does at its end; return 120 as it does when output could not be written."""
    atexit._run_exitfuncs()
    namespace.clear()
    code = 0
    for stream in {id(item): item for item in (sys.stdout, sys.__stdout__, sys.stderr)}.values():
        try:
            if stream is not None:
                stream.flush()
        except Exception:
            code = 120
    return code


class Launcher:
    """Forks a child per request. Everything that a child needs is made here, before the first fork."""

    def __init__(self, confinement: Confinement, native: forkloop.Native | None) -> None:
        self._confinement = confinement
        self._native = native
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        main_module = types.ModuleType("__main__")
        self._namespace = main_module.__dict__
        self._namespace["__builtins__"] = builtins
        sys.modules["__main__"] = main_module
        signal.pthread_sigmask(signal.SIG_BLOCK, forkloop.AWAITED)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        # Process 1 of a namespace gets from inside only the signals that it handles: without a scope, none.
        if confinement.scope < 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def serve(self) -> None:
        """Answer requests until the supervisor hangs up."""
        if self._native is None:
            release, is_child = forkloop.release, forkloop.serve(self._confinement, self._event)
        else:
            layers = self._confinement
            guard = None if layers.fork_guard is None else seccomp.pack(layers.fork_guard)
            release = self._native.release
            is_child = self._native.serve(self._event, layers.scope, layers.own_bytes, layers.can_kill, guard)
        if is_child:
            self._be_child(release)

    def _be_child(self, release: Callable[[], None]) -> NoReturn:
        code = 1
        try:
            compiled = _compile(self._event)
            release()
            gc.enable()
            code = _execute(compiled, self._namespace)
            code = _finish(self._namespace) or code
        finally:
            os._exit(code)


def main() -> None:
    """Confine this process and serve. Arguments: tier, control descriptor, source descriptor."""
    tier, control, source = sys.argv[1:]
    _fix_addresses(list(sys.orig_argv))
    _take_descriptors(int(control), int(source))
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    gc.disable()
    native = forkloop.load_native()
    try:
        if native is not None:
            pages.use_huge_text(native)
        interpreter.preload()
        confinement = confine(tier)
    except (OSError, ImportError) as error:
        os.write(records.CONTROL_FD, records.FAILED + str(error).encode()[: records.GREETING_BYTES - 1])
        return
    launcher = Launcher(confinement, native)
    layers = confinement.layers | {"fork loop": "C" if native else "Python"}
    os.write(records.CONTROL_FD, records.READY + json.dumps(layers).encode())
    launcher.serve()
