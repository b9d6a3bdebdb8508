"""`altlas model` and `altlas doctor`."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from altlas.config.loader import load_config
from altlas.config.sections import Config
from altlas.errors import AltlasError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the doctor looked at."""

    name: str
    is_ok: bool
    detail: str


def print_model(*, task: str, config_file: Path | None, overrides: Sequence[str]) -> None:
    """Print the policy's summary."""
    config = load_config(config_file=config_file, environ=os.environ, overrides=overrides)
    import torch
    from torchinfo import summary

    from altlas.core.device import choose_device
    from altlas.core.policy import build_policy
    from altlas.core.vocabulary import parse_vocabulary
    from altlas.tasks import load_task, load_vocabulary_text, with_task_defaults

    parsed, _ = load_task(task)
    config = with_task_defaults(config, parsed)
    vocabulary = parse_vocabulary(
        load_vocabulary_text(config.paths.vocabulary), name=parsed.vocabulary, where="the vocabulary"
    )
    device = choose_device(config.model.device)
    policy = build_policy(config.model, len(vocabulary), seed=config.run.seed)
    tokens = torch.zeros((config.sampling.batch_size, config.sampling.max_tokens), dtype=torch.long)
    print(summary(policy, input_data=[tokens], verbose=0, col_names=("output_size", "num_params")))
    print(f"vocabulary {parsed.vocabulary}: {len(vocabulary)} tokens; device: {device.device} ({device.reason})")


def run_doctor(*, config_file: Path | None, overrides: Sequence[str], as_json: bool) -> int:
    """Look at everything a run needs, print what was found; returns 0 when all is well, else 1."""
    config = load_config(config_file=config_file, environ=os.environ, overrides=overrides)
    looks: list[tuple[str, Callable[[Config], str]]] = [
        ("python", _python),
        # Before anything imports torch: the launcher's process is forked from a small parent.
        ("sandbox", _sandbox),
        ("redis", _redis),
        ("torch", _torch),
        ("device", _device),
    ]
    findings = [_look(name, look, config) for name, look in looks]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.is_ok else 'FAIL'} {finding.name}: {finding.detail}")
    return 0 if all(finding.is_ok for finding in findings) else 1


def _look(name: str, look: Callable[[Config], str], config: Config) -> Finding:
    try:
        return Finding(name, True, look(config))
    except (AltlasError, ImportError) as error:
        return Finding(name, False, str(error))


def _python(config: Config) -> str:
    return f"{platform.python_version()} at {sys.executable} on {platform.system()} {platform.release()}"


def _sandbox(config: Config) -> str:
    from altlas_evaluator.engine import Executor

    executor = Executor(config.sandbox)
    try:
        return f"tier {executor.tier}: {', '.join(executor.layers)}"
    finally:
        executor.close()


def _redis(config: Config) -> str:
    from altlas.transport.embedded import EmbeddedRedis
    from altlas.transport.redis_client import connect_blocking, durability, redis_address

    with contextlib.ExitStack() as stack:
        redis_url, kind = redis_address(config.transport), "reachable"
        if not redis_url:
            data_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="altlas-"))
            server = stack.enter_context(EmbeddedRedis(Path(data_dir)))
            redis_url, kind = server.url, f"embedded, {server.describe()['binary']}"
        client = stack.enter_context(contextlib.closing(connect_blocking(redis_url, config.security)))
        return f"{kind}: " + ", ".join(f"{name} {value}" for name, value in durability(client).items())


def _torch(config: Config) -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _device(config: Config) -> str:
    from altlas.core.device import choose_device

    choice = choose_device(config.model.device)
    return f"{choice.device} ({choice.reason})"
