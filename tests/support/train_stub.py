"""Stands in for `altlas train` where only the comparison around it is looked at: it takes the same options and prints
the same summary. Even seeds solve. With model.hidden = 1 it fails, 2 prints nothing, 3 contradicts itself, 4 burns the
CPU in a process of its own. With TRAIN_STUB_FIFO, seeds above 1 write there and hang, the pipe open until they die.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

_BURN = "import time\nwhile time.process_time() < 0.3: pass"


def option(name: str) -> str:
    """The value of an option."""
    return sys.argv[sys.argv.index(name) + 1]


def main() -> int:
    """Do what the settings say; the exit code is that of `altlas train`."""
    seed = int(option("--seed"))
    settings = dict(item.split("=") for at, item in enumerate(sys.argv) if sys.argv[at - 1] == "--set")
    assert {"--json", "--quiet", "--overwrite"} <= set(sys.argv)
    Path(option("--run-dir")).mkdir(parents=True)
    mode = settings.get("model.hidden")
    if "TRAIN_STUB_FIFO" in os.environ and seed > 1:
        with Path(os.environ["TRAIN_STUB_FIFO"]).open("w") as fifo:
            print(f"seed {seed}", file=fifo, flush=True)
            signal.pause()
    if mode == "1":
        print("warning: first\nerror: the moon is wrong", file=sys.stderr)
        return 1
    if mode == "2":
        return 0
    if mode == "4":
        subprocess.run([sys.executable, "-c", _BURN], check=True)
    is_solved = seed % 2 == 0
    position = 10 * seed if is_solved and mode != "3" else None
    summary = {
        "programs": int(option("--budget")),
        "solved": is_solved,
        "verified": is_solved,
        "programs_to_solve": position,
        "programs_to_verify": position,
        "best_reward": 1.0,
        "unique_programs": 5,
        "evaluated_programs": 4,
        "best_program": "a\nb",
        "shrunk_program": "a" if is_solved else None,
    }
    print("some line before\n" + json.dumps(summary))
    return 0 if is_solved else 3


if __name__ == "__main__":
    sys.exit(main())
