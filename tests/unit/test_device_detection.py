"""Device choice: what auto takes, and what a named device that is not there says."""

import os
from collections.abc import Iterator

import pytest
import torch

from altlas.core.device import choose_device
from altlas.errors import ConfigError


@pytest.fixture(autouse=True)
def other_tests_compute_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    fills = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fills


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes torch report a machine of our choosing."""

    def pretend(
        *,
        cuda_version: str | None = None,
        gpus: int = 0,
        cuda_works: bool = False,
        mps_built: bool = False,
        mps_works: bool = False,
    ) -> None:
        monkeypatch.setattr(torch.version, "cuda", cuda_version)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda_works)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Pretend GPU")
        monkeypatch.setattr(torch.backends.mps, "is_built", lambda: mps_built)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps_works)

    return pretend


def test_cpu_is_taken_when_asked_for(machine):
    machine(cuda_version="13.0", gpus=1, cuda_works=True)
    choice = choose_device("cpu")
    assert choice.device == torch.device("cpu")
    assert "asked for" in choice.reason


def test_auto_prefers_cuda_and_names_the_gpu(machine):
    machine(cuda_version="13.0", gpus=1, cuda_works=True, mps_built=True, mps_works=True)
    choice = choose_device("auto")
    assert choice.device == torch.device("cuda")
    assert "Pretend GPU" in choice.reason


@pytest.mark.parametrize(("requested", "is_repeatable"), [("auto", True), ("cuda", True), ("cpu", False)])
def test_a_gpu_computes_by_what_repeats_to_the_last_bit(machine, requested: str, is_repeatable: bool):
    machine(cuda_version="13.0", gpus=1, cuda_works=True)
    choose_device(requested)
    assert torch.are_deterministic_algorithms_enabled() == is_repeatable
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if is_repeatable else None)


def test_auto_takes_mps_before_cpu(machine):
    machine(mps_built=True, mps_works=True)
    assert choose_device("auto").device == torch.device("mps")


def test_auto_falls_to_cpu_and_says_why(machine):
    machine()
    choice = choose_device("auto")
    assert choice.device == torch.device("cpu")
    assert "without CUDA" in choice.reason
    assert "without MPS" in choice.reason


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ({}, "without CUDA"),
        ({"cuda_version": "13.0"}, "no GPU is visible"),
        ({"cuda_version": "13.0", "gpus": 1}, "driver"),
    ],
)
def test_cuda_asked_for_but_unusable_says_cause_and_way_out(machine, state, cause):
    machine(**state)
    with pytest.raises(ConfigError, match=cause) as caught:
        choose_device("cuda")
    assert "set model.device to auto or cpu" in str(caught.value)


@pytest.mark.parametrize(("state", "cause"), [({}, "without MPS"), ({"mps_built": True}, "macOS")])
def test_mps_asked_for_but_unusable_says_cause(machine, state, cause):
    machine(**state)
    with pytest.raises(ConfigError, match=cause):
        choose_device("mps")


def test_unknown_device_lists_the_known():
    with pytest.raises(ConfigError, match="'gpu' is none of auto, cuda, mps, cpu"):
        choose_device("gpu")
