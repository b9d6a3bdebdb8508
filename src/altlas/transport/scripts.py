"""The Lua scripts, one file each under lua/, where every key and argument is documented at the head."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def script_text(name: str) -> str:
    """Return the text of lua/<name>.lua."""
    return resources.files("altlas.transport").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
