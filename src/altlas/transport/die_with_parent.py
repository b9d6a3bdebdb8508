"""Runs a command that ends when its parent does: `python -I -S die_with_parent.py PARENT_PID COMMAND...`.

The kernel sends SIGTERM when the parent THREAD dies, so the parent starts this from its main thread. A file of its
own and not a preexec_fn, which runs Python between fork and exec in a process full of threads. Imports nothing of ours.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Arm the signal and become the command."""
    parent, command = int(arguments[0]), arguments[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have died before the signal was armed.
    if os.getppid() != parent:
        sys.exit(f"parent {parent} is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
