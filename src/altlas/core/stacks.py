"""The parser stacks of an automaton, and how many tokens a program needs to be finished.

A stack is a node (state, parent), interned: equal stacks are one node, so what is known about a stack is worked out
once. Node numbers depend on the order in which stacks are met; nothing else does, so everything derived from a node
depends on its stack alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from altlas.core import lalr_kernel
from altlas.core.lalr import END, Automaton
from altlas.core.lalr_kernel import NOTHING, Nodes, Numbers, Tables
from altlas.core.trajectory import BoolArray, IntArray


def terminals_of(automaton: Automaton) -> list[str]:
    """Return the terminals of an automaton by their numbers in its tables."""
    return sorted({END, *automaton.tokens}.union(*automaton.shifts, *automaton.reduces))


def tabulate(automaton: Automaton, *, eos_id: int) -> Tables:
    """Return an automaton's tables; the end of input is the token `eos_id`."""
    terminals = {name: number for number, name in enumerate(terminals_of(automaton))}
    nonterminals = {name: number for number, name in enumerate(automaton.rules)}
    states = len(automaton.shifts)
    shift, popped, origin = (np.full((states, len(terminals)), NOTHING, dtype=np.int32) for _ in range(3))
    goto = np.full((states, len(nonterminals)), NOTHING, dtype=np.int32)
    for state in range(states):
        for terminal, target in automaton.shifts[state].items():
            shift[state, terminals[terminal]] = target
        for terminal, (count, name) in automaton.reduces[state].items():
            popped[state, terminals[terminal]], origin[state, terminals[terminal]] = count, nonterminals[name]
        for name, target in automaton.gotos[state].items():
            goto[state, nonterminals[name]] = target
    items = [item for of_state in automaton.items for item in of_state]
    following = [
        [terminals[terminal] for terminal in (*automaton.shifts[state], *automaton.reduces[state])]
        for state in range(states)
    ]
    tokens = [(eos_id,) if name == END else automaton.tokens.get(name, ()) for name in terminals]
    return Tables(
        shift=shift,
        popped=popped,
        origin=origin,
        goto=goto,
        first_item=_bounds(automaton.items),
        item_origin=_numbers(nonterminals[item.origin] for item in items),
        item_seen=_numbers(item.seen for item in items),
        item_rest=_numbers(item.rest for item in items),
        first_terminal=_bounds(following),
        terminals=_numbers(number for of_state in following for number in of_state),
        first_token=_bounds(tokens),
        tokens=_numbers(token for of_terminal in tokens for token in of_terminal),
        accepting=automaton.accepting,
        end=terminals[END],
    )


def _bounds(parts: Sequence[Sequence[object]]) -> Numbers:
    return _numbers(np.cumsum([0, *map(len, parts)]))


def _numbers(values: Iterable[int]) -> Numbers:
    return np.array(list(values), dtype=np.int32)


class Stacks:
    """Interned parser stacks over an automaton's tables, node 0 being the start, whose state is `start`."""

    def __init__(self, tables: Tables, *, start: int) -> None:
        self._tables = tables
        used, *arrays = (np.full(size, NOTHING, dtype=np.int64) for size in (1, *[1024] * (len(Nodes._fields) - 1)))
        self._nodes = Nodes(used, *arrays)
        self._nodes.used[0], self._nodes.state[0] = 1, start

    def __len__(self) -> int:
        return int(self._nodes.used[0])

    def fill(self, nodes: IntArray, following: Numbers, costs: npt.NDArray[np.int16], seen: BoolArray) -> None:
        """Write what may follow each of `nodes`, int64 [n].

        Args:
            nodes: the stacks.
            following: int32 [n, V], filled: the node after each token that may follow, plus one; 0 after <EOS>.
            costs: int16 [n, V], filled likewise: the fewest tokens that then finish the program, <EOS> included.
            seen: bool [n, T], filled: whether a terminal may follow, by its number.
        """
        done = 0
        while True:
            rest = slice(done, None)
            done += lalr_kernel.fill(self._tables, self._nodes, nodes[rest], following[rest], costs[rest], seen[rest])
            if done == len(nodes):
                return
            self._grow()

    def _grow(self) -> None:
        used, *arrays = self._nodes
        self._nodes = Nodes(used, *(np.concatenate([array, np.full_like(array, NOTHING)]) for array in arrays))
