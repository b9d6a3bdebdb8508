"""Which tokens may follow, for sampling and for the learner that has to see the same masks.

Invariants: a mask depends on the tokens so far and on how many may still come, on nothing else; whoever samples only
legal tokens from `start` with `remaining` counting down is finished by the time `remaining` is used up, with <EOS> but
under FixedLength; after that only <PAD> is legal.
"""

from __future__ import annotations

from importlib import resources
from typing import Literal, Protocol

import numpy as np

from altlas.core.lalr import Automaton, build_automaton
from altlas.core.lalr_kernel import UNREACHABLE
from altlas.core.stacks import Stacks, tabulate, terminals_of
from altlas.core.trajectory import BoolArray, IntArray
from altlas.core.vocabulary import Vocabulary
from altlas.errors import ConfigError, ProtocolError, VocabularyError

_UNKNOWN = -1
# Some 700 bytes each with the stacks behind them. Beyond it the tables are dropped when a batch starts, and what is
# still needed is soon known again: a long run must not grow without end.
_MOST_ROWS = 200_000
_MOST_NAMES = 24
_SYNTAX = "_syntax"


class TokenConstraint(Protocol):
    """Tells legal next tokens. A node stands for what was written so far; nodes are only compared within a process.

    `shortest` is the number of tokens of the shortest program, <EOS> included where it has one: fewer are no budget.
    """

    start: int
    shortest: int

    def legal(self, nodes: IntArray, *, remaining: int) -> BoolArray:
        """Return bool [B, V]: after which tokens the program can be finished, given nodes int64 [B].

        `remaining` tokens may still be written, <EOS> and the one asked for included.

        Raises:
            ConfigError: a program cannot be finished within `remaining`.
        """

    def advance(self, nodes: IntArray, tokens: IntArray) -> IntArray:
        """Return the nodes int64 [B] after one more token each.

        Raises:
            ProtocolError: a token cannot follow.
        """

    def replay(self, tokens: IntArray, lengths: IntArray, *, max_tokens: int) -> BoolArray:
        """Return bool [B, T, V], the masks under which int64 [B, T] tokens were sampled; <PAD> beyond each length.

        Raises:
            ProtocolError: a token was not legal.
        """


def build_constraint(
    vocabulary: Vocabulary,
    *,
    language: str,
    grammar: Literal["language", "syntax", "none"],
    length: Literal["free", "fixed"] = "free",
) -> TokenConstraint:
    """Build what `sampling.grammar` and `sampling.length` ask for.

    Raises:
        ConfigError: there is no grammar for the language, or a fixed length is asked of one.
        VocabularyError: the vocabulary cannot spell any program of the grammar.
    """
    if length == "fixed":
        if grammar != "none":
            raise ConfigError("sampling.length fixed cannot be kept by a grammar; set sampling.grammar = none")
        return FixedLength(vocabulary)
    if grammar == "none":
        return Unconstrained(vocabulary)
    return GrammarConstraint(vocabulary, language=language, grammar=grammar)


class Unconstrained:
    """Any tokens but the special ones, and <EOS> as the last that fits. Node 0: writing; 1: finished."""

    start = 0
    shortest = 1

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._masks = np.ones((2, len(vocabulary)), dtype=np.bool_)
        self._masks[0, [vocabulary.pad_id, vocabulary.sos_id, vocabulary.unk_id]] = False
        self._masks[1] = False
        self._masks[1, vocabulary.pad_id] = True

    def legal(self, nodes: IntArray, *, remaining: int) -> BoolArray:
        """See TokenConstraint."""
        masks = self._masks[nodes]
        if remaining == 1:
            masks[nodes == 0] = np.arange(masks.shape[1]) == self._vocabulary.eos_id
        return masks

    def advance(self, nodes: IntArray, tokens: IntArray) -> IntArray:
        """See TokenConstraint."""
        if not self._masks[nodes, tokens].all():
            raise ProtocolError("a special token, or a token after <EOS>, cannot follow")
        return np.where(tokens == self._vocabulary.eos_id, 1, nodes)

    def replay(self, tokens: IntArray, lengths: IntArray, *, max_tokens: int) -> BoolArray:
        """See TokenConstraint."""
        return _replay(self, self._vocabulary, tokens, lengths, max_tokens)


class FixedLength:
    """Any tokens but the special ones, <EOS> too, until `remaining` is used up. There is one node, 0: writing."""

    start = 0
    shortest = 1

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._writing = np.ones(len(vocabulary), dtype=np.bool_)
        self._writing[[vocabulary.pad_id, vocabulary.sos_id, vocabulary.eos_id, vocabulary.unk_id]] = False
        self._finished = np.arange(len(vocabulary)) == vocabulary.pad_id

    def legal(self, nodes: IntArray, *, remaining: int) -> BoolArray:
        """See TokenConstraint."""
        masks: BoolArray = np.tile(self._writing if remaining > 0 else self._finished, (len(nodes), 1))
        return masks

    def advance(self, nodes: IntArray, tokens: IntArray) -> IntArray:
        """See TokenConstraint."""
        if not self._writing[tokens].all():
            raise ProtocolError("a special token cannot stand in a program of fixed length")
        return nodes

    def replay(self, tokens: IntArray, lengths: IntArray, *, max_tokens: int) -> BoolArray:
        """See TokenConstraint."""
        if wrong := np.flatnonzero(lengths != max_tokens).tolist():
            raise ProtocolError(
                f"trajectory {wrong[0]}: {int(lengths[wrong[0]])} tokens where every program has {max_tokens}; sampler "
                "and learner differ in sampling.length or max_tokens"
            )
        return _replay(self, self._vocabulary, tokens, lengths, max_tokens)


class GrammarConstraint:
    """Tokens with which the program still parses and can be finished in time.

    Where the grammar has NAME, names follow only after they were bound: TARGET binds one.
    A node is a parser stack and a set of bound names: (stack + 1) << names | set, or 0 when finished. What may follow
    a stack is a row of two tables, filled when the stack is first asked about; all else is gathers.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, language: str = "python", grammar: Literal["language", "syntax"] = "language"
    ) -> None:
        """Build the automaton; takes about half a second. Without a looser grammar the language's own is its syntax.

        Raises:
            ConfigError: there is no grammar for the language.
            VocabularyError: the vocabulary cannot spell any program of the grammar.
        """
        automaton = build_automaton(_grammar_text(language, grammar), vocabulary)
        self._vocabulary = vocabulary
        self._tables = tabulate(automaton, eos_id=vocabulary.eos_id)
        self._terminals = np.array(terminals_of(automaton))
        self._names = np.array(automaton.tokens.get("NAME", ()), dtype=np.int64)
        if len(self._names) > _MOST_NAMES:
            raise VocabularyError(f"the grammar takes at most {_MOST_NAMES} names; there are {len(self._names)}")
        self._bit_of: IntArray = np.zeros(len(vocabulary), dtype=np.int64)
        self._bit_of[self._names] = 1 << np.arange(len(self._names))
        self.start = 1 << len(self._names)
        self._automaton = automaton
        self._forget()
        self.shortest = 1 + int(self._cost[self._rows_of(np.array([self.start]))].min())

    @property
    def automaton(self) -> Automaton:
        """The grammar's own."""
        return self._automaton

    def _forget(self) -> None:
        """Begin with empty tables. Every node but `start` is void afterwards."""
        vocabulary = self._vocabulary
        self._stacks = Stacks(self._tables, start=self._automaton.start)
        self._row_of: IntArray = np.full(1024, _UNKNOWN, dtype=np.int64)
        self._next = np.full((256, len(vocabulary)), _UNKNOWN, dtype=np.int32)
        self._cost = np.full((256, len(vocabulary)), UNREACHABLE, dtype=np.int16)
        self._reads = np.zeros(256, dtype=np.bool_)
        self._binds = np.zeros(256, dtype=np.bool_)
        self._rows = 1
        self._row_of[0] = 0
        self._next[0, vocabulary.pad_id] = 0
        self._cost[0, vocabulary.pad_id] = 0

    def legal(self, nodes: IntArray, *, remaining: int) -> BoolArray:
        """See TokenConstraint."""
        if self._rows > _MOST_ROWS and (nodes == self.start).all():
            self._forget()
        rows = self._rows_of(nodes)
        legal: BoolArray = self._cost[rows] < remaining
        reading = np.flatnonzero(self._reads[rows])
        if len(reading):
            is_bound = (nodes[reading, None] & self._bit_of[self._names]) > 0
            legal[np.ix_(reading, self._names)] &= is_bound
        if not legal.any(axis=1).all():
            raise ConfigError(
                f"no program can be finished within {remaining} tokens; the shortest takes {self.shortest}: raise "
                "sampling.max_tokens"
            )
        return legal

    def advance(self, nodes: IntArray, tokens: IntArray) -> IntArray:
        """See TokenConstraint."""
        rows = self._rows_of(nodes)
        stacks: IntArray = self._next[rows, tokens].astype(np.int64)
        bits = self._bit_of[tokens]
        is_wrong = (stacks == _UNKNOWN) | (self._reads[rows] & (bits > 0) & (nodes & bits == 0))
        if is_wrong.any():
            wrong = int(tokens[np.flatnonzero(is_wrong)[0]])
            raise ProtocolError(f"token {self._vocabulary.texts[wrong]!r} cannot follow in the grammar")
        bound = nodes & (self.start - 1) | np.where(self._binds[rows], bits, 0)
        return np.where(stacks > 0, stacks * self.start + bound, 0)

    def replay(self, tokens: IntArray, lengths: IntArray, *, max_tokens: int) -> BoolArray:
        """See TokenConstraint."""
        return _replay(self, self._vocabulary, tokens, lengths, max_tokens)

    def _rows_of(self, nodes: IntArray) -> IntArray:
        stacks = nodes // self.start
        rows: IntArray = self._row_of[stacks]
        if (rows == _UNKNOWN).any():
            self._fill(np.unique(stacks[rows == _UNKNOWN]))
            rows = self._row_of[stacks]
        return rows

    def _fill(self, stacks: IntArray) -> None:
        first, self._rows = self._rows, self._rows + len(stacks)
        while self._rows > len(self._next):
            self._grow_rows()
        rows = slice(first, self._rows)
        self._row_of[stacks] = np.arange(first, self._rows)
        seen = np.zeros((len(stacks), len(self._terminals)), dtype=np.bool_)
        self._stacks.fill(stacks - 1, self._next[rows], self._cost[rows], seen)
        self._reads[rows] = seen[:, self._terminals == "NAME"].any(axis=1)
        self._binds[rows] = seen[:, self._terminals == "TARGET"].any(axis=1)
        while len(self._stacks) >= len(self._row_of):
            self._row_of = np.concatenate([self._row_of, np.full_like(self._row_of, _UNKNOWN)])

    def _grow_rows(self) -> None:
        self._next = np.concatenate([self._next, np.full_like(self._next, _UNKNOWN)])
        self._cost = np.concatenate([self._cost, np.full_like(self._cost, UNREACHABLE)])
        self._reads = np.concatenate([self._reads, np.zeros_like(self._reads)])
        self._binds = np.concatenate([self._binds, np.zeros_like(self._binds)])


def _grammar_text(language: str, grammar: Literal["language", "syntax"]) -> str:
    grammars = resources.files("altlas.core") / "grammars"
    names = {entry.name.removesuffix(".lark") for entry in grammars.iterdir() if entry.name.endswith(".lark")}
    known = sorted(name for name in names if not name.endswith(_SYNTAX))
    if language not in known:
        raise ConfigError(
            f"there is no grammar for {language!r}, only for {', '.join(known)}; set sampling.grammar = none"
        )
    syntax = language + _SYNTAX
    name = syntax if grammar == "syntax" and syntax in names else language
    return (grammars / f"{name}.lark").read_text(encoding="utf-8")


def _replay(
    constraint: TokenConstraint, vocabulary: Vocabulary, tokens: IntArray, lengths: IntArray, max_tokens: int
) -> BoolArray:
    count, longest = tokens.shape
    masks: BoolArray = np.zeros((count, longest, len(vocabulary)), dtype=np.bool_)
    masks[:, :, vocabulary.pad_id] = np.arange(longest) >= lengths[:, None]
    lanes = np.flatnonzero(lengths > 0)
    nodes = np.full(len(lanes), constraint.start, dtype=np.int64)
    for step in range(longest):
        column = tokens[lanes, step]
        legal = constraint.legal(nodes, remaining=max_tokens - step)
        is_wrong = ~legal[np.arange(len(lanes)), column]
        if is_wrong.any():
            position = int(np.flatnonzero(is_wrong)[0])
            raise ProtocolError(
                f"trajectory {int(lanes[position])}: {vocabulary.texts[int(column[position])]!r} at position {step} is "
                f"not legal within {max_tokens} tokens; sampler and learner differ in grammar, vocabulary or max_tokens"
            )
        masks[lanes, step] = legal
        goes_on = lengths[lanes] > step + 1
        lanes, nodes = lanes[goes_on], constraint.advance(nodes[goes_on], column[goes_on])
    return masks
