"""The evaluator's process. The sandbox launchers start before grpc is imported: a fork in a process with grpc's threads
can hang, and the launchers must inherit nothing of it.
"""

from __future__ import annotations

import asyncio

from altlas.config.sections import Config
from altlas_evaluator.engine import Executor


def serve(config: Config, *, listen: str, redis_url: str, metrics_port: int | None) -> None:
    """Serve until SIGTERM.

    Raises:
        SandboxError: no sandbox works here and allow_unsafe is not set.
        ConfigError: an address is taken, or a file of the security section is wrong.
        TransientError: Redis cannot be reached at the start.
    """
    executor = Executor(config.sandbox)
    try:
        from altlas_evaluator.service import serve_with

        asyncio.run(serve_with(executor, config, listen=listen, redis_url=redis_url, metrics_port=metrics_port))
    finally:
        executor.close()
