"""Chooses the torch device that a role computes on, and says why. A named device that cannot be used is an error."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from functools import cache

import torch

from altlas.errors import ConfigError

_KNOWN = ("auto", "cuda", "mps", "cpu")
_WAY_OUT = "set model.device to auto or cpu"


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """A device and the reason it was taken, for the log."""

    device: torch.device
    reason: str


def choose_device(requested: str) -> DeviceChoice:
    """Return the device for model.device = `requested`: auto takes cuda, then mps, then cpu.

    With cuda the whole process computes by deterministic algorithms alone from then on.

    Raises:
        ConfigError: the named device is unknown or cannot be used; the message holds the cause and the ways out.
    """
    if requested not in _KNOWN:
        raise ConfigError(f"model.device: {requested!r} is none of {', '.join(_KNOWN)}")
    problems = {"cuda": _cuda_problem, "mps": _mps_problem}
    if requested == "cpu":
        return DeviceChoice(torch.device("cpu"), "cpu was asked for")
    if requested != "auto":
        problem = problems[requested]()
        if problem:
            raise ConfigError(f"model.device: {requested} was asked for but cannot be used: {problem}; or {_WAY_OUT}")
        return _take(requested, f"{requested} was asked for{_describe(requested)}")
    passed_over = []
    for name, find_problem in problems.items():
        problem = find_problem()
        if not problem:
            return _take(name, f"auto: {name} is here{_describe(name)}")
        passed_over.append(f"{name}: {problem.partition(';')[0]}")
    return DeviceChoice(torch.device("cpu"), f"auto: no accelerator ({', '.join(passed_over)})")


def _take(name: str, reason: str) -> DeviceChoice:
    if name == "cuda":
        # A run repeats to the last bit only where sums are taken in one order; CUDA's atomic additions come in any.
        # https://docs.pytorch.org/docs/stable/notes/randomness.html; cuBLAS reads the variable at its first product.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Nothing here reads what it has not written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return DeviceChoice(torch.device(name), reason)


def _cuda_problem() -> str:
    """Return why cuda cannot be used, with what to do after a semicolon; empty when it can."""
    if not torch.version.cuda:
        return f"torch {torch.__version__} is built without CUDA; install a CUDA build of torch"
    if torch.cuda.is_available():
        return ""
    built_for = f"torch {torch.__version__} for CUDA {torch.version.cuda}"
    if torch.cuda.device_count() == 0:
        return (
            f"no GPU is visible to {built_for}; check nvidia-smi, CUDA_VISIBLE_DEVICES "
            "and that the container was started with its GPUs"
        )
    return f"CUDA does not start with {built_for}; install a driver that supports this version"


def _mps_problem() -> str:
    if not torch.backends.mps.is_built():
        return f"torch {torch.__version__} is built without MPS; use a macOS build of torch on Apple silicon"
    if not torch.backends.mps.is_available():
        return "MPS is not available; it needs macOS 14 or later on Apple silicon"
    return ""


def _describe(name: str) -> str:
    return f" ({torch.cuda.get_device_name()})" if name == "cuda" else ""


def device_memory_bytes() -> dict[tuple[str, ...], float]:
    """Return the memory of each GPU that this process has begun to use, by device and kind: allocated, reserved, total.

    Empty before the first use: to ask a GPU for its memory then would take some of it.
    """
    return {
        (f"cuda:{number}", kind): float(size_bytes)
        for number in _cuda_devices()
        for kind, size_bytes in (
            ("allocated", torch.cuda.memory_allocated(number)),
            ("reserved", torch.cuda.memory_reserved(number)),
            ("total", torch.cuda.get_device_properties(number).total_memory),
        )
    }


def device_utilisation_ratio() -> dict[tuple[str, ...], float]:
    """Return how busy each of those GPUs was of late, 0 to 1; empty where the driver or nvidia-ml-py does not tell."""
    try:
        return {(f"cuda:{number}",): torch.cuda.utilization(number) / 100 for number in _cuda_devices()}
    except _no_answer():
        return {}


def _cuda_devices() -> list[int]:
    is_in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    numbers = range(torch.cuda.device_count() if is_in_use else 0)
    return [number for number in numbers if torch.cuda.memory_reserved(number)]


@cache
def _no_answer() -> tuple[type[Exception], ...]:
    """Return what torch raises where it cannot tell: no nvidia-ml-py, no library of the driver, a part of a GPU."""
    try:
        return ImportError, RuntimeError, importlib.import_module("pynvml").NVMLError
    except ImportError:
        return ImportError, RuntimeError
