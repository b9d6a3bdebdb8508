"""What the sandbox is measured against: bounds that the kernel and the interpreter set, and other ways to run programs.

Each function runs `count` programs one after another and returns programs per second. As a script this is the floor:
a loop in the interpreter that launchers use, warmed as theirs is, with no layer and nobody to report to.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PYTHON_SOURCE = b"x = 0\nfor i in range(10):\n    x += i\nprint(x)\n"
JAVASCRIPT_SOURCE = b"let x = 0;\nfor (let i = 0; i < 10; i++) x += i;\nconsole.log(x);\n"
OUTPUT = b"45\n"
_ROOT = Path(__file__).resolve().parents[1] / "services" / "evaluator"
_INTERPRETER = str(getattr(sys, "_base_executable", "") or sys.executable)


def floor(count: int) -> float:
    """Fork, compile, exec, print, exit, wait in the warmed interpreter."""
    return _bare_loop(count, "run")


def fork_floor(count: int) -> float:
    """Fork, exit, wait in the same interpreter: what the kernel asks for a process of this size."""
    return _bare_loop(count, "exit")


def _bare_loop(count: int, what: str) -> float:
    command = [_INTERPRETER, "-S", "-s", "-P", "-X", "utf8", __file__, what, str(count)]
    environment = {"PYTHONPATH": str(_ROOT), "PYTHONHASHSEED": "0"}
    return float(subprocess.run(command, env=environment, capture_output=True, check=True).stderr)


def python_process(count: int) -> float:
    """`python -I -S -c`: a fresh interpreter for each program."""
    return _processes([_INTERPRETER, "-I", "-S", "-c", PYTHON_SOURCE.decode()], count)


def bubblewrap(count: int) -> float | None:
    """The same in bubblewrap, with every namespace and no capability; None where it is not installed."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return None
    options = ["--unshare-all", "--die-with-parent", "--clearenv", "--cap-drop", "ALL", "--ro-bind", "/", "/"]
    command = [bwrap, *options, _INTERPRETER, "-I", "-S", "-c", PYTHON_SOURCE.decode()]
    if subprocess.run(command, capture_output=True, check=False).stdout != OUTPUT:
        return None
    return _processes(command, count)


def node_process(count: int) -> float | None:
    """`node -e`; None where it is not installed."""
    node = shutil.which("node")
    return None if node is None else _processes([node, "-e", JAVASCRIPT_SOURCE.decode()], count)


def _processes(command: list[str], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        if subprocess.run(command, capture_output=True, check=True).stdout != OUTPUT:
            raise SystemExit(f"{command[0]} printed something else")
    return count / (time.perf_counter() - started)


def human_eval(count: int) -> float:
    """The method of HumanEval's harness: a manager's list, a process that runs exec under a timer, in a directory."""
    context = multiprocessing.get_context("fork")
    started = time.perf_counter()
    for _ in range(count):
        with context.Manager() as manager:
            verdict = manager.list()
            process = context.Process(target=_human_eval_child, args=(PYTHON_SOURCE.decode(), verdict))
            process.start()
            process.join(timeout=4.0)
            if process.is_alive():
                process.kill()
            if list(verdict) != ["passed"]:
                raise SystemExit(f"the harness found {list(verdict)}")
    return count / (time.perf_counter() - started)


def _human_eval_child(source: str, verdict: Any) -> None:
    def expire(*_: object) -> None:
        raise TimeoutError

    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, 3.0)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
                exec(source, {})
            verdict.append("passed" if printed.getvalue().encode() == OUTPUT else "failed")
        except TimeoutError:
            verdict.append("timed out")
        except BaseException as error:
            verdict.append(f"failed: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _loop(what: str, count: int) -> None:
    import ctypes
    import gc

    from altlas_evaluator.languages import python

    python.prepare()
    os.chdir("/")
    python.warm_up()
    gc.collect()
    gc.freeze()
    gc.disable()
    fork = ctypes.PyDLL(None).fork
    os.dup2(os.memfd_create("stdout"), 1)
    started = time.perf_counter()
    for _ in range(count):
        pid = fork()
        if pid == 0:
            if what == "run":
                exec(compile(PYTHON_SOURCE, "<program>", "exec"), {"__name__": "__main__"})
                sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)
    rate = count / (time.perf_counter() - started)
    if what == "run" and os.lseek(1, 0, os.SEEK_END) != count * len(OUTPUT):
        raise SystemExit("the programs did not print what they should")
    os.write(2, repr(rate).encode())


if __name__ == "__main__":
    _loop(sys.argv[1], int(sys.argv[2]))
