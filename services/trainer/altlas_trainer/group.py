"""The processes of one trainer: what they tell each other, and how one that fails ends them all.

Rank 0 says what is done next, and every process does it in the same order: whatever one of them waits for, the others
are about to send. A process that cannot go on ends at once; torchrun ends the others, so nobody waits for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FileStore

from altlas.core.device import DeviceChoice
from altlas.errors import ConfigError

LOGGER = logging.getLogger(__name__)
_EXIT_FAILURE = 1


@dataclass(frozen=True, slots=True)
class Group:
    """This process among the trainer's. `local_rank` and `local_size` count those of this machine.

    What another does not answer within `timeout_s` fails with a RuntimeError, as does what is said to one that died.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    timeout_s: float

    def send(self, content: bytes) -> None:
        """Give bytes, at least one, to the others; of rank 0."""
        dist.broadcast(torch.tensor([len(content)]), src=0)
        dist.broadcast(torch.frombuffer(bytearray(content), dtype=torch.uint8), src=0)

    def receive(self) -> bytes:
        """Wait for what rank 0 sends next."""
        size = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(size, src=0)
        content = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(content, src=0)
        return content.numpy().tobytes()

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the processes, the same bits in each."""
        dist.all_reduce(tensor)

    def count(self, *, is_so: bool) -> int:
        """Return for how many processes it is so."""
        counted = torch.tensor([int(is_so)])
        self.add_up(counted)
        return int(counted)

    def is_alike(self, content: bytes) -> bool:
        """Return whether every process has the same bytes, as many everywhere."""
        of_first = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        dist.broadcast(of_first, src=0)
        return self.count(is_so=of_first.numpy().tobytes() == content) == self.size

    def place(self, choice: DeviceChoice) -> DeviceChoice:
        """Return this process's own device of the kind chosen.

        Raises:
            ConfigError: there are fewer GPUs than processes, or gradients cannot be exchanged between such devices.
        """
        kind = choice.device.type
        if kind not in ("cpu", "cuda"):
            raise ConfigError(
                f"model.device: {kind} cannot be shared by {self.size} processes of the trainer; set it to cpu, or "
                "trainer.processes to 1"
            )
        if kind == "cpu":
            return replace(choice, reason=f"{choice.reason}; shared by {self.size} processes")
        if self.local_size > torch.cuda.device_count():
            raise ConfigError(
                f"model.device: cuda needs a GPU for each of the trainer's {self.local_size} processes on this host, "
                f"which has {torch.cuda.device_count()}; lower trainer.processes, or set model.device to cpu"
            )
        device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)
        return DeviceChoice(device, f"{choice.reason}; one of {self.size} GPUs")

    def leave(self) -> None:
        """Close the connections to the others, when all are about to end."""
        dist.destroy_process_group()


def join(environ: Mapping[str, str], *, timeout_s: float, store_path: str = "") -> Group:
    """Meet the other processes that torchrun started, and return when all are there.

    Args:
        environ: of this process, with torchrun's variables.
        timeout_s: silence after which another is taken for gone.
        store_path: file of this machine over which they find each other; without one it is torchrun's TCP store.

    Raises:
        RuntimeError: they did not come in time.
    """
    group = Group(
        rank=int(environ["RANK"]),
        size=int(environ["WORLD_SIZE"]),
        local_rank=int(environ["LOCAL_RANK"]),
        local_size=int(environ["LOCAL_WORLD_SIZE"]),
        timeout_s=timeout_s,
    )
    dist.init_process_group(
        # What is said is on the CPU, and what is computed on the device of the run.
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        timeout=timedelta(seconds=timeout_s),
        rank=group.rank,
        world_size=group.size,
        **({"store": FileStore(store_path, group.size)} if store_path else {"init_method": "env://"}),
    )
    LOGGER.info("process %d of the trainer's %d", group.rank, group.size)
    return group


def end_process(message: str) -> NoReturn:
    """Log the message, with the error being handled, and end this process without waiting for anything.

    Threads may be stuck in a call to a process that is gone, and the orderly end of Python would wait for them.
    """
    LOGGER.critical("%s", message, exc_info=True)
    logging.shutdown()
    os._exit(_EXIT_FAILURE)
