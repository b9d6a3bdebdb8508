"""Parser stacks as machine code: what may follow a stack, and how many tokens finish it.

A stack is a node (state, parent), interned: a node's children are a linked list, in which equal stacks are one. Calls
that find no room for another node say so, and go on from what they know once there is more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from altlas.core.compiling import compiled, compiled_inside

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]

UNREACHABLE = 1 << 14
"""A cost that no budget of tokens can pay."""
NOTHING = -1
_FINISHED, _FULL = -2, -3


class Tables(NamedTuple):
    """An LALR(1) automaton of S states, T terminals and N nonterminals; NOTHING where there is no entry.

    shift: int32 [S, T], the next state. popped, origin: [S, T], of the rule that is reduced there. goto: [S, N].
    items: of state s, first_item[s] .. first_item[s + 1] - 1: nonterminal, symbols on the stack, tokens of the rest.
    terminals: of state s, first_terminal[s] .. : those that it shifts or reduces at.
    tokens: of terminal t, first_token[t] .. : those that it stands for.
    """

    shift: Numbers
    popped: Numbers
    origin: Numbers
    goto: Numbers
    first_item: Numbers
    item_origin: Numbers
    item_seen: Numbers
    item_rest: Numbers
    first_terminal: Numbers
    terminals: Numbers
    first_token: Numbers
    tokens: Numbers
    accepting: int
    end: int


class Nodes(NamedTuple):
    """Room for C stacks, of which `used[0]` are there: int64 [C], but for used, [1].

    child: the newest of a node's children; sibling: the next older one of its parent's. cost: NOTHING until known.
    best: the least cost seen so far while a node's is being worked out, NOTHING before.
    """

    used: Ints
    state: Ints
    parent: Ints
    child: Ints
    sibling: Ints
    cost: Ints
    best: Ints


@compiled_inside
def _push(nodes: Nodes, parent: int, state: int) -> int:
    node: int = nodes.child[parent]
    while node != NOTHING:
        if nodes.state[node] == state:
            return node
        node = nodes.sibling[node]
    node = nodes.used[0]
    if node == len(nodes.state):
        return _FULL
    nodes.used[0] = node + 1
    nodes.state[node], nodes.parent[node] = state, parent
    nodes.sibling[node], nodes.child[parent] = nodes.child[parent], node
    return node


@compiled_inside
def _reduce(tables: Tables, nodes: Nodes, node: int, count: int, origin: int) -> int:
    """Return the stack in which a nonterminal stands for the uppermost `count` symbols."""
    for _ in range(count):
        node = nodes.parent[node]
    return _push(nodes, node, tables.goto[nodes.state[node], origin])


@compiled_inside
def _feed(tables: Tables, nodes: Nodes, node: int, terminal: int) -> int:
    while True:
        state = nodes.state[node]
        if terminal == tables.end and state == tables.accepting:
            return _FINISHED
        if tables.shift[state, terminal] != NOTHING:
            return _push(nodes, node, tables.shift[state, terminal])
        if tables.popped[state, terminal] == NOTHING:
            return NOTHING
        node = _reduce(tables, nodes, node, tables.popped[state, terminal], tables.origin[state, terminal])
        if node == _FULL:
            return _FULL


@compiled_inside
def _solve(tables: Tables, nodes: Nodes, node: int, levels: Ints) -> bool:
    """Work out a stack's cost: the fewest tokens, <EOS> included, that finish a program; False where there is no room.

    Every kernel item of an LR state is valid for the prefix that leads there: the rest of one of them is written, its
    rule is reduced, and the stack that then stands is finished in turn. Items with one symbol on the stack lead to a
    stack of equal height, so stacks over one parent are solved together, by relaxation to a fixpoint.

    Args:
        tables: the automaton.
        nodes: all stacks.
        node: whose cost is not known.
        levels: int64 [heights still to come, most stacks of one level], room.
    """
    members, count, done = levels[0], 1, 0
    members[0], nodes.best[node] = node, UNREACHABLE
    while done < count:
        current = members[done]
        done += 1
        state = nodes.state[current]
        best = 1 if state == tables.accepting else UNREACHABLE
        for item in range(tables.first_item[state], tables.first_item[state + 1]):
            seen = tables.item_seen[item]
            target = _reduce(tables, nodes, current, seen, tables.item_origin[item])
            if target == _FULL:
                return False
            if nodes.cost[target] == NOTHING and seen == 1:
                if nodes.best[target] == NOTHING:
                    nodes.best[target] = UNREACHABLE
                    members[count] = target
                    count += 1
                continue
            if nodes.cost[target] == NOTHING and not _solve(tables, nodes, target, levels[1:]):
                return False
            best = min(best, tables.item_rest[item] + nodes.cost[target])
        nodes.best[current] = best
    changed = True
    while changed:
        changed = False
        for current in members[:count]:
            state = nodes.state[current]
            for item in range(tables.first_item[state], tables.first_item[state + 1]):
                if tables.item_seen[item] == 1:
                    target = _reduce(tables, nodes, current, 1, tables.item_origin[item])
                    cost = nodes.cost[target] if nodes.cost[target] != NOTHING else nodes.best[target]
                    if tables.item_rest[item] + cost < nodes.best[current]:
                        nodes.best[current] = tables.item_rest[item] + cost
                        changed = True
    for current in members[:count]:
        nodes.cost[current] = nodes.best[current]
    return True


@compiled
def _cost(tables: Tables, nodes: Nodes, node: int) -> int:
    if nodes.cost[node] == NOTHING:
        heights, below = 2, node  # the start's item counts no symbol, and leads one up
        while below != NOTHING:
            heights, below = heights + 1, nodes.parent[below]
        levels = np.empty((heights, tables.goto.shape[1] + 1), dtype=np.int64)
        if not _solve(tables, nodes, node, levels):
            nodes.best[: nodes.used[0]] = NOTHING
    cost: int = nodes.cost[node]
    return cost


@compiled
def fill(
    tables: Tables,
    nodes: Nodes,
    stacks: Ints,
    following: npt.NDArray[np.int32],
    costs: npt.NDArray[np.int16],
    seen: npt.NDArray[np.bool_],
) -> int:
    """Write what may follow each stack, and return how many were done before there was no room for another node.

    Args:
        tables: the automaton.
        nodes: all stacks.
        stacks: int64 [n], nodes.
        following: int32 [n, V], filled: the node after each token that may follow, plus one; 0 after <EOS>.
        costs: int16 [n, V], filled likewise: its cost, 0 after <EOS>.
        seen: bool [n, T], filled: whether a terminal may follow.
    """
    targets = np.empty(tables.shift.shape[1], dtype=np.int64)
    for row in range(len(stacks)):
        state = nodes.state[stacks[row]]
        terminals = tables.terminals[tables.first_terminal[state] : tables.first_terminal[state + 1]]
        for terminal in terminals:
            targets[terminal] = _feed(tables, nodes, stacks[row], terminal)
            if targets[terminal] == _FULL:
                return row
        for terminal in terminals:
            first, end = tables.first_token[terminal], tables.first_token[terminal + 1]
            if targets[terminal] == NOTHING or first == end:
                continue
            target, cost = -1, 0
            if targets[terminal] != _FINISHED:
                target = targets[terminal]
                cost = _cost(tables, nodes, target)
                if cost == NOTHING:
                    return row
            if cost < UNREACHABLE:
                seen[row, terminal] = True
                for token in tables.tokens[first:end]:
                    following[row, token], costs[row, token] = target + 1, cost
    return len(stacks)
