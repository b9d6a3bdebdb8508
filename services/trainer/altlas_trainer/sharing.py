"""An update's forward and backward pass over several processes, each with a share of the programs.

Every process gets the values of all programs, so what is computed from them, the loss with whatever terms and
normalisation, is one process's and the same in each. Its gradient reaches the weights in each process by way of the
process's own programs, and DistributedDataParallel adds these parts up: by the chain rule the sum is the gradient that
one process has, up to the order of additions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from altlas.core.policy import AltlasRNN
from altlas.core.teacher_forcing import Forcing, ProgramValues
from altlas.core.trajectory import IntArray
from altlas.errors import ProtocolError
from altlas_trainer.group import Group


def shares(tokens: IntArray, lengths: IntArray, count: int) -> list[IntArray]:
    """Return the rows of each of `count` shares of programs int64 [N, T] of lengths [N]; some may be empty.

    Programs in lexicographic order are cut where the nodes that each adds to the prefix tree divide evenly, so that
    common beginnings lie in one share and the shares cost the same.
    """
    order = np.lexsort(tokens.T[::-1])
    in_order, sizes = tokens[order], lengths[order]
    differs = in_order[1:] != in_order[:-1]
    common = np.where(differs.any(axis=1), differs.argmax(axis=1), tokens.shape[1])
    added = sizes.copy()
    added[1:] -= np.minimum(common + 1, np.minimum(sizes[1:], sizes[:-1]))
    nodes = np.cumsum(added)
    cuts = np.searchsorted(nodes, nodes[-1] * np.arange(1, count) / count)
    return np.split(order, cuts)


def share_forcings(policy: AltlasRNN, forcings: Sequence[Forcing], group: Group) -> list[Forcing]:
    """Return each of `forcings`, all of `policy`, shared among the group."""
    of_share = DistributedDataParallel(_Evaluation(policy))
    return [SharedForcing(of_share, forcing, group) for forcing in forcings]


class _Evaluation(nn.Module):
    """What DistributedDataParallel has to see as the forward pass of the policy."""

    def __init__(self, policy: AltlasRNN) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, forcing: Forcing, tokens: IntArray, lengths: IntArray) -> ProgramValues:
        return forcing.evaluate(tokens, lengths)


class SharedForcing:
    """A Forcing whose programs are divided among a group. Every process has to call it, with the same programs."""

    def __init__(self, of_share: DistributedDataParallel, forcing: Forcing, group: Group) -> None:
        self._of_share = of_share
        self._forcing = forcing
        self._group = group

    def evaluate(self, tokens: IntArray, lengths: IntArray) -> ProgramValues:
        """See Forcing; the gradient is that of this process's share times the number of processes.

        DistributedDataParallel takes the mean over the processes, which makes the sum of it.
        """
        share = shares(tokens, lengths, self._group.size)[self._group.rank]
        # Gradients are exchanged by all. One without programs takes any, and gives nothing of it.
        rows = share if len(share) else np.zeros(1, dtype=np.int64)
        own = self._evaluate_own(tokens[rows, : lengths[rows].max()], lengths[rows])
        programs, starts = len(lengths), np.cumsum(lengths) - lengths
        total = 2 * programs + int(lengths.sum())
        device = self._of_share.module.policy.output.weight.device
        # The last place says whether somebody could not do its share.
        exchanged = torch.zeros(total + 1, device=device)
        flat, places = torch.zeros(0, device=device), torch.zeros(0, dtype=torch.int64, device=device)
        if isinstance(own, ProgramValues):
            flat = torch.cat([own.log_probs, own.entropies, own.token_log_probs])
            of_tokens = 2 * programs + starts[rows][own.programs] + own.positions
            places = torch.from_numpy(np.concatenate([rows, programs + rows, of_tokens])).to(device)
            if not len(share):
                flat, places = flat[:0], places[:0]
            exchanged[places] = flat.detach()
        else:
            exchanged[-1] = 1.0
        self._group.add_up(exchanged)
        if bool(exchanged[-1]):
            self._refuse(own, tokens, lengths)
        if flat.requires_grad:
            flat.register_hook(lambda gradient: gradient * self._group.size)  # type: ignore[no-untyped-call]
        whole = exchanged[:-1].index_copy(0, places, flat)
        return ProgramValues(
            log_probs=whole[:programs],
            entropies=whole[programs : 2 * programs],
            token_log_probs=whole[2 * programs :],
            programs=np.repeat(np.arange(programs), lengths),
            positions=np.arange(len(whole) - 2 * programs) - np.repeat(starts, lengths),
        )

    def _evaluate_own(self, tokens: IntArray, lengths: IntArray) -> ProgramValues | ProtocolError:
        try:
            values: ProgramValues = self._of_share(self._forcing, tokens, lengths)
        except ProtocolError as error:
            return error
        return values

    def _refuse(self, own: ProgramValues | ProtocolError, tokens: IntArray, lengths: IntArray) -> None:
        """Raise what one process with the whole batch would, in every process, so that they go on together."""
        with torch.no_grad():
            self._forcing.evaluate(tokens, lengths)
        raise RuntimeError("a process refused its share of a batch in which nothing is wrong") from (
            own if isinstance(own, ProtocolError) else None
        )
