"""Several processes for one trainer: started by torchrun, or here as torchrun starts them, and what each then does.

Invariants: the first process serves and the others follow it; all end when one does. What was launched here listens to
nobody beyond this machine, but for the trainer's own address.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from altlas.config.sections import TrainerSection
from altlas.errors import ConfigError
from altlas.rpc.security import Security
from altlas.transport.socket_dir import SocketDir
from altlas_trainer.group import join
from altlas_trainer.replicas import Leader, follow

LOGGER = logging.getLogger(__name__)
_STORE = "ALTLAS_TRAINER_STORE"
# The processes meet over a file, so torch need not serve a store over TCP, which it does on every interface.
_NO_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def launch(processes: int, arguments: Sequence[str]) -> Mapping[int, int]:
    """Run `altlas ARGUMENTS` in so many processes until they end. SIGTERM and SIGINT are passed on to them.

    Returns:
        The exit code of each that failed, by rank, as subprocess has it: -9 is killed by SIGKILL.
    """
    meeting = SocketDir()
    os.environ[_STORE] = str(meeting.path / "group")
    os.environ[_NO_STORE] = "1"
    for name in _INTERFACES:
        os.environ.setdefault(name, "lo")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="trainer",
        rdzv_backend="c10d",
        rdzv_endpoint=str(meeting.path / "rendezvous"),
        rdzv_configs={"store_type": "file"},
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(meeting.path)),  # else a directory that nobody removes
    )
    try:
        elastic_launch(config, sys.executable)("-m", "altlas.cli.main", *arguments)
    except SignalException as error:
        LOGGER.info("the trainer's processes have ended on %s", error.sigval.name)
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    finally:
        meeting.remove()
    return {}


def serve_in_group(
    section: TrainerSection, *, listen: str, metrics_port: int | None, security: Security | None = None
) -> None:
    """Serve, or follow the process that does, as one of those that torchrun started.

    Raises:
        ConfigError: torchrun started another number of them than is configured, or an address is taken.
    """
    size = int(os.environ["WORLD_SIZE"])
    if section.processes not in (1, size):
        raise ConfigError(
            f"trainer.processes is {section.processes} and torchrun started {size}: start as many, or leave the "
            "setting at 1"
        )
    group = join(os.environ, timeout_s=section.group_timeout_s, store_path=os.environ.get(_STORE, ""))
    if group.rank:
        # SIGTERM comes to all at once, and rank 0 may be in an update that takes this one.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        follow(group)
        return
    from altlas_trainer.app import serve

    asyncio.run(serve(listen=listen, metrics_port=metrics_port, security=security, leader=Leader(group)))
