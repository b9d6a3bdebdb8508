"""`altlas serve ROLE`: configuration, logging, and the role's own serve function. Roles are imported only here."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from altlas.cli.first_run import FirstRun, first_request
from altlas.config.loader import load_config
from altlas.config.sections import Config
from altlas.errors import AltlasError, ConfigError
from altlas.obs.logs import configure_logging

LOGGER = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1


def load(
    config_file: Path | None, overrides: Sequence[str], *, redis_url: str | None, role: str, parent: int | None
) -> Config:
    """Load the role's configuration and set up its logging; with `parent`, end when that process ends."""
    extra = [f"transport.redis_url={redis_url}"] if redis_url is not None else []
    config = load_config(config_file=config_file, environ=os.environ, overrides=[*overrides, *extra])
    configure_logging(role=role, level=config.logging.level, log_format=config.logging.format)
    if parent is not None:
        _end_with(parent)
    return config


def coordinator(
    config: Config,
    *,
    listen: str,
    trainer: str,
    generators: Sequence[str],
    metrics_port: int | None,
    name: str,
    adopt: bool,
    first: FirstRun | None,
) -> None:
    """Serve the coordinator; with `first` start that run, unless it was started before."""
    from altlas.transport.redis_client import redis_address
    from altlas_coordinator.app import serve

    redis_url = redis_address(config.transport)
    if not redis_url:
        raise ConfigError(
            "the coordinator needs a Redis: set transport.redis_url, ALTLAS_TRANSPORT__REDIS_URL or --redis-url"
        )
    asyncio.run(
        serve(
            config,
            listen=listen,
            redis_url=redis_url,
            trainer=trainer,
            generators=generators,
            metrics_port=metrics_port,
            name=name,
            adopt=adopt,
            first=first_request(first) if first is not None else None,
        )
    )


def generator(config: Config, *, listen: str, trainer: str, metrics_port: int | None) -> None:
    """Serve the generator."""
    from altlas.rpc.security import load_security
    from altlas_generator.app import serve

    security = load_security(config.security)
    asyncio.run(serve(listen=listen, trainer=trainer, metrics_port=metrics_port, security=security))


def trainer(
    config_file: Path | None, overrides: Sequence[str], *, listen: str, metrics_port: int | None, parent: int | None
) -> None:
    """Serve the trainer: in this process, in several that this one launches, or as one of those that torchrun started.

    One of several ends with torchrun, whatever `parent` is.
    """
    from altlas.rpc.security import load_security

    size, rank = 1, 0
    if "TORCHELASTIC_RUN_ID" in os.environ:
        size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    role = f"trainer[{rank}]" if rank else "trainer"
    config = load(config_file, overrides, redis_url=None, role=role, parent=None if size > 1 else parent)
    if size > 1:
        from altlas_trainer.launch import serve_in_group

        _end_with(os.getppid(), signal.SIGKILL)
        security = load_security(config.security)
        serve_in_group(config.trainer, listen=listen, metrics_port=metrics_port, security=security)
    elif config.trainer.processes > 1:
        from altlas_trainer.launch import launch

        options = [*(["--metrics-port", str(metrics_port)] if metrics_port is not None else [])]
        options += ["--config", str(config_file)] if config_file is not None else []
        options += [word for override in overrides for word in ("--set", override)]
        end_as(launch(config.trainer.processes, ["serve", "trainer", "--listen", listen, *options]))
    else:
        from altlas_trainer.app import serve

        asyncio.run(serve(listen=listen, metrics_port=metrics_port, security=load_security(config.security)))


def end_as(codes: Mapping[int, int]) -> None:
    """End this process as one of those that it stands for, by their exit codes; return where there are none.

    Whoever looks after it replaces a process that was killed, and not one that ended by itself: of a signal where one
    of them died of a signal, else with the first's code.
    """
    for rank, code in sorted(codes.items()):
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        LOGGER.critical("process %d of the trainer died (%s), and so all have ended", rank, how)
    number = next((-code for code in codes.values() if code < 0), None)
    if number is not None:
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    if codes:
        sys.exit(codes[min(codes)])


def evaluator(config: Config, *, listen: str, metrics_port: int | None) -> None:
    """Serve the evaluator."""
    from altlas.transport.redis_client import redis_address
    from altlas_evaluator.app import serve

    serve(config, listen=listen, redis_url=redis_address(config.transport), metrics_port=metrics_port)


def _end_with(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    # It may have died before the call above.
    if os.getppid() != parent:
        raise AltlasError(f"the process that started this one ({parent}) is gone")
