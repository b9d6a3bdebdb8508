"""`make compose-test`: the stack of docker-compose.yml on a real engine, drilled and probed. See README.md."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import building
import drill
import probing
from engine import engine
from stack import make_stack
from steps import DrillError, step


def main() -> int:
    """Run the whole test and return its exit code."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken back
    started, exit_code = time.monotonic(), 0
    copy = Path(tempfile.mkdtemp(prefix="altlas-compose-"))
    try:
        with engine(options.directory, is_kept=options.keep) as docker:
            stack = make_stack(docker, copy)
            stack.check_versions()
            stack.remove()  # what a test that was cut off has left
            try:
                building.provide(docker, stack)
                if "drill" in options.parts:
                    drill.run_drill(stack)
                if "probe" in options.parts:
                    probing.run_probe(stack)
            except DrillError:
                stack.print_logs()
                raise
            finally:
                with step("containers, networks and volumes of the test removed"):
                    stack.remove()
    except DrillError as failure:
        print(f"\n{failure}", file=sys.stderr)
        exit_code = 1
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    print(f"compose-test {'failed' if exit_code else 'passed'} after {time.monotonic() - started:.0f} s")
    return exit_code


def _arguments() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "altlas-compose-test"
    parser = argparse.ArgumentParser(
        description="Run the stack of docker-compose.yml on an engine, drill it and probe it."
    )
    parser.add_argument("parts", nargs="*", default=["drill", "probe"], help="drill, probe; default: both")
    parser.add_argument(
        "--directory", type=Path, default=cache, help="of the engine of the test's own, kept as a cache"
    )
    parser.add_argument("--keep", action="store_true", help="leave that engine running")
    options = parser.parse_args()
    if unknown := set(options.parts) - {"drill", "probe"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
