"""Builds the evaluator's C module with the package. Optional: without a compiler the loop in Python does the same."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SANDBOX = Path("services/evaluator/altlas_evaluator/sandbox")
FLAGS = ("-O2", "-Wall", "-Wextra", "-shared", "-fPIC")


class ForkLoopHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles `_forkloop.c` beside itself, against the stable ABI of Python 3.11."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it makes a wheel; `build_data` gets what was built."""
        if self.target_name != "wheel":
            return
        source = Path(self.root) / SANDBOX / "_forkloop.c"
        target = source.with_suffix(".abi3.so")
        compiler = (sysconfig.get_config_var("CC") or "cc").split()
        command = [*compiler, *FLAGS, f"-I{sysconfig.get_path('include')}", str(source), "-o", str(target)]
        target.unlink(missing_ok=True)
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", "") or str(error)
            self.app.display_warning(f"the fork loop in C is not built, the slower one in Python is used: {reason}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["artifacts"].append(f"/{target.relative_to(self.root)}")
