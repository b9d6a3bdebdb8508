"""Chooses the torch device that a role computes on, and says why. A named device that cannot be used is an error."""

from __future__ import annotations

from dataclasses import dataclass

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
        return DeviceChoice(torch.device(requested), f"{requested} was asked for{_describe(requested)}")
    passed_over = []
    for name, find_problem in problems.items():
        problem = find_problem()
        if not problem:
            return DeviceChoice(torch.device(name), f"auto: {name} is the fastest here{_describe(name)}")
        passed_over.append(f"{name}: {problem.partition(';')[0]}")
    return DeviceChoice(torch.device("cpu"), f"auto: no accelerator ({', '.join(passed_over)})")


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
