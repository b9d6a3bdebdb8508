"""`altlas serve ROLE`: configuration, logging, and the role's own serve function. Roles are imported only here."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from altlas.config.loader import load_config
from altlas.config.sections import Config
from altlas.errors import AltlasError, ConfigError
from altlas.obs.logs import configure_logging

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
) -> None:
    """Serve the coordinator."""
    from altlas_coordinator.app import serve

    redis_url = config.transport.redis_url
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
        )
    )


def generator(config: Config, *, listen: str, trainer: str, metrics_port: int | None) -> None:
    """Serve the generator."""
    from altlas.rpc.security import load_security
    from altlas_generator.app import serve

    security = load_security(config.security)
    asyncio.run(serve(listen=listen, trainer=trainer, metrics_port=metrics_port, security=security))


def trainer(config: Config, *, listen: str, metrics_port: int | None) -> None:
    """Serve the trainer."""
    from altlas.rpc.security import load_security
    from altlas_trainer.app import serve

    asyncio.run(serve(listen=listen, metrics_port=metrics_port, security=load_security(config.security)))


def evaluator(config: Config, *, listen: str, metrics_port: int | None) -> None:
    """Serve the evaluator."""
    from altlas_evaluator.app import serve

    serve(config, listen=listen, redis_url=config.transport.redis_url, metrics_port=metrics_port)


def _end_with(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # It may have died before the call above.
    if os.getppid() != parent:
        raise AltlasError(f"the process that started this one ({parent}) is gone")
