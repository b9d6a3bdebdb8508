"""Variation of programs by their grammar: edits of whole expressions and lines instead of single tokens.

An edit that a person would make in one step takes several tokens to write, and what lies between does not parse: to
read the input into a name and use it twice, to put an expression into a larger one, to put a line into a loop. So
elites are varied on their derivation trees, as grammar-guided genetic programming does (Whigham 1995), with the edits
that refactoring knows as extracting a variable and inlining.

Phrases are spans of tokens: expressions, or lines with what ends them. Whether two phrases may stand for one another
is not worked out: the child is parsed, and one that does not parse is drawn again. Invariant: every child is a whole
program of the grammar, of at most `longest` tokens, that reads no name before one was bound.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from altlas.core.grammar import GrammarConstraint, TokenConstraint
from altlas.core.lalr import END, Automaton
from altlas.core.mutation import MOST_EDITS, Children
from altlas.core.rng import SplitMix
from altlas.core.trajectory import FloatArray
from altlas.core.vocabulary import Vocabulary

_Option = TypeVar("_Option")
Rule = tuple[str, ...]
RuleCounts = Mapping[str, Mapping[Rule, int]]
"""How often a nonterminal became what, in some programs."""

UNIFORMS = 4
"""Uniform numbers per child; they seed a stream of its own, since how many an edit takes is not known before."""

_ATTEMPTS = 12
_MOST_EXPRESSION, _LEAST_LINE, _MOST_LINE = 10, 6, 26
_BRACKETED = 0.5
_ANY_VALUE = 0.15
_FUNCTION = 0.1
_SAME = 0.5

# The grammars' heads explain the prefixes k, i, d, c and s. A name may hold a number or a text.
_CHAIN = re.compile(r"(?:simple_)?([kidcs])\d")
_PREFIX_OF = {"number": "k", "converted": "s", "condition": "v", "choice": "v", "list": "v"}
_ALIKE = {"k": "kid", "i": "kid", "c": "csd", "s": "csd", "d": "kidkidcs", "v": "kidcs"}
_LINES = {"line", "line_closed", "line_binding", "function", "compound", "if_closed", "if_binding", "for_closed"}


@dataclass(frozen=True, slots=True)
class Phrase:
    """Tokens `start` to `end` (exclusive) of a program: a line, or an expression whose kind `prefix` names.

    `symbol` is the rule it is derived from; `prefix` is empty for a line.
    """

    start: int
    end: int
    symbol: str
    prefix: str

    @property
    def is_line(self) -> bool:
        return not self.prefix


@dataclass(frozen=True, slots=True)
class Parsed:
    """A program, its last line ended like the others, and its phrases; `bound` tells after which token a name is."""

    tokens: tuple[int, ...]
    phrases: tuple[Phrase, ...]
    bound: tuple[tuple[int, int], ...]
    functions: tuple[int, ...]
    rules: tuple[tuple[str, Rule], ...]

    def names_before(self, place: int) -> list[int]:
        """Return the names that may be read at a place, each once."""
        return sorted({token for at, token in self.bound if at < place})

    def has_function_before(self, place: int) -> bool:
        return any(at < place for at in self.functions)


_BUILT: dict[int, Phrases] = {}


class _Draws:
    """What a child is drawn with: random numbers of its own, and the elites' rules for new code."""

    def __init__(self, seed: bytes, counts: RuleCounts, learned: float) -> None:
        self.random = SplitMix(seed).random
        self._counts = counts
        self._learned = learned

    def choose(self, options: Sequence[_Option]) -> _Option:
        return options[int(self.random() * len(options))]

    def rule(self, symbol: str, fitting: Sequence[Rule]) -> Rule:
        """Draw by how often elites have a rule, in a share `learned` of the draws and where they have one; else any."""
        counted = self._counts.get(symbol, {}) if self.random() < self._learned else {}
        known = [(rule, counted[rule]) for rule in fitting if rule in counted]
        left = self.random() * sum(count for _, count in known)
        for rule, count in known:
            left -= count
            if left < 0:
                return rule
        return self.choose(fitting)


def phrases_of(constraint: TokenConstraint, vocabulary: Vocabulary) -> Phrases | None:
    """Return what edits phrases of the programs a constraint lets be written; None where its grammar has none."""
    if not isinstance(constraint, GrammarConstraint) or "line_binding" not in constraint.automaton.rules:
        return None
    kept = _BUILT.get(id(constraint.automaton))
    if kept is None or kept.automaton is not constraint.automaton:
        kept = Phrases(constraint.automaton, vocabulary)
        _BUILT.clear()
        _BUILT[id(constraint.automaton)] = kept
    return kept


class Phrases:
    """Parses, derives and edits programs of one grammar."""

    def __init__(self, automaton: Automaton, vocabulary: Vocabulary) -> None:
        self.automaton = automaton
        self._rules = automaton.rules
        self._fewest = automaton.fewest
        self._tokens = automaton.tokens
        self._terminals: dict[int, list[str]] = {}
        for terminal, ids in automaton.tokens.items():
            for token in ids:
                self._terminals.setdefault(token, []).append(terminal)
        self._separator = automaton.tokens["NEWLINE" if "NEWLINE" in automaton.tokens else "SEMICOLON"][0]
        self._names = frozenset(automaton.tokens.get("NAME", ()))
        self._binding = next(
            rule for rule in self._rules["line_binding"] if "TARGET" in rule and rule[-2].startswith("value")
        )
        self._alike: dict[int, list[int]] = {}
        for token, kind in enumerate(vocabulary.kinds):
            self._alike[token] = [other for other, its in enumerate(vocabulary.kinds) if its == kind]
        self.parse = functools.lru_cache(maxsize=4096)(self._parse)

    def vary(
        self,
        parents: Children,
        partners: Children,
        uniforms: FloatArray,
        *,
        longest: int,
        crossover: float,
        mean_edits: float,
        counts: RuleCounts | None = None,
        learned: float = 0.0,
    ) -> Children:
        """Return a child for each parent [B], made like those of `altlas.core.mutation.mutate` but of phrases.

        With probability `crossover` a phrase of the partner takes the place of one of the parent's and 0 to 2 edits
        follow; else there are 1 + Geometric edits, `mean_edits` on the mean and at most MOST_EDITS. An edit for which
        no drawn change gives a program is left out.

        Args:
            parents, partners: B programs each, of at most `longest` tokens, without <EOS>.
            uniforms: float32 [B, UNIFORMS] in (0, 1).
            longest: tokens of the longest child.
            crossover: in [0, 1].
            mean_edits: at least 1.
            counts: of the rules in programs that are worth resembling, see `count_rules`.
            learned: share of the rules for new code that are drawn by `counts`; of the rest each is as likely.
        """
        tokens = np.zeros((len(parents.lengths), longest), dtype=np.int64)
        lengths = np.zeros(len(parents.lengths), dtype=np.int64)
        for row, (size, partner_size) in enumerate(zip(parents.lengths, partners.lengths, strict=True)):
            draws = _Draws(uniforms[row].tobytes(), counts or {}, learned)
            parent = tuple(parents.tokens[row, :size].tolist())
            partner = tuple(partners.tokens[row, :partner_size].tolist())
            child = self._child(parent, partner, draws, longest, crossover, mean_edits)
            tokens[row, : len(child)] = child
            lengths[row] = len(child)
        return Children(tokens, lengths)

    def count_rules(self, programs: Children) -> RuleCounts:
        """Return how often each rule stands in programs [N] without <EOS>."""
        counts: defaultdict[str, Counter[Rule]] = defaultdict(Counter)
        for row, size in enumerate(programs.lengths):
            program = self.parse(tuple(programs.tokens[row, :size].tolist()))
            for symbol, rule in program.rules if program else ():
                counts[symbol][rule] += 1
        return counts

    def _child(
        self,
        parent: tuple[int, ...],
        partner: tuple[int, ...],
        draws: _Draws,
        longest: int,
        crossover: float,
        mean_edits: float,
    ) -> tuple[int, ...]:
        program, other = self.parse(parent), self.parse(partner)
        if program is None:
            return parent
        if draws.random() < crossover and other is not None:
            program = self._change(program, functools.partial(_cross, program, other, draws), longest)
            edits = int(draws.random() * 3)
        else:
            edits = 1
            while edits < MOST_EDITS and draws.random() > 1.0 / mean_edits:
                edits += 1
        for _ in range(edits):
            edit = _draw_edit(draws)
            program = self._change(program, functools.partial(edit, self, program, draws), longest)
        return self._without_end(program.tokens)

    def _change(self, program: Parsed, make: Callable[[], Sequence[int] | None], longest: int) -> Parsed:
        for _ in range(_ATTEMPTS):
            made = make()
            if made is None:
                continue
            tokens = self._without_end(made)
            if len(tokens) <= longest and tuple(made) != program.tokens:
                child = self.parse(tokens)
                if child is not None:
                    return child
        return program

    def _without_end(self, tokens: Sequence[int]) -> tuple[int, ...]:
        end = len(tokens) - (len(tokens) > 0 and tokens[-1] == self._separator)
        return tuple(tokens[:end])

    def _anew(self, program: Parsed, draws: _Draws) -> Sequence[int] | None:
        """Derive another phrase in the place of one."""
        phrase = draws.choose(program.phrases)
        derived = self._derive_alike(program, phrase, draws)
        return derived and _replace(program, phrase, derived[0])

    def _wrap(self, program: Parsed, draws: _Draws) -> Sequence[int] | None:
        """Derive a larger phrase, and put the old one in the place of a part of it."""
        phrase = draws.choose(program.phrases)
        derived = self._derive_alike(program, phrase, draws)
        if derived is None:
            return None
        around, parts = derived
        inner = [part for part in parts if part.is_line == phrase.is_line and part.end - part.start < len(around)]
        if not inner:
            return None
        hole = draws.choose(inner)
        kept = list(program.tokens[phrase.start : phrase.end])
        if not phrase.is_line and len(kept) > 1 and draws.random() < _BRACKETED:
            kept = [*self._tokens["LPAR"], *kept, *self._tokens["RPAR"]]
        return _replace(program, phrase, [*around[: hole.start], *kept, *around[hole.end :]])

    def _hoist(self, program: Parsed, draws: _Draws) -> Sequence[int] | None:
        """Put a part of a phrase in the place of the whole."""
        phrase = draws.choose(program.phrases)
        parts = [
            part
            for part in program.phrases
            if part.is_line == phrase.is_line
            and phrase.start <= part.start
            and part.end <= phrase.end
            and part.end - part.start < phrase.end - phrase.start
        ]
        if not parts:
            return None
        part = draws.choose(parts)
        return _replace(program, phrase, program.tokens[part.start : part.end])

    def _insert(self, program: Parsed, draws: _Draws) -> Sequence[int] | None:
        """Derive a line before or after another."""
        line = _choose_line(program, draws)
        derived = self._derive_alike(program, line, draws)
        place = line.start if draws.random() < 0.5 else line.end
        return derived and [*program.tokens[:place], *derived[0], *program.tokens[place:]]

    def _delete(self, program: Parsed, draws: _Draws) -> Sequence[int] | None:
        return _replace(program, _choose_line(program, draws), ())

    def _bind(self, program: Parsed, draws: _Draws) -> Sequence[int] | None:
        """Extract a variable: bind a name to an expression before a line around it, and read the name instead."""
        expressions = [phrase for phrase in program.phrases if not phrase.is_line and phrase.end - phrase.start > 1]
        if not expressions:
            return None
        phrase = draws.choose(expressions)
        around = [
            line for line in program.phrases if line.is_line and line.start <= phrase.start and phrase.end <= line.end
        ]
        line = draws.choose(around)
        name = draws.choose(self._tokens["TARGET"])
        value = program.tokens[phrase.start : phrase.end]
        bound: list[int] = []
        for symbol in self._binding:
            bound += [name] if symbol == "TARGET" else value if symbol.startswith("value") else self._tokens[symbol]
        changed = _replace(program, phrase, (name,))
        return [*changed[: line.start], *bound, *changed[line.start :]]

    def _point(self, program: Parsed, draws: _Draws) -> Sequence[int] | None:
        """Put another token of the same kind in the place of one."""
        place = int(draws.random() * len(program.tokens))
        other = draws.choose(self._alike[program.tokens[place]])
        return [*program.tokens[:place], other, *program.tokens[place + 1 :]]

    def _derive_alike(self, program: Parsed, phrase: Phrase, draws: _Draws) -> tuple[list[int], list[Phrase]] | None:
        """Derive a line for a line and an expression for an expression, with what may be read there."""
        names = program.names_before(phrase.start)
        n = "NAME" if names else "NEVER"
        f = "F" if program.has_function_before(phrase.start) else "NEVER"
        if phrase.is_line:
            r = "RETURN" if "RETURN" in phrase.symbol else "NEVER"
            symbols = [f"line{{{n},{f},{r}}}"] if names else ["line_closed", "line_binding"]
            if not program.functions and draws.random() < _FUNCTION:
                symbols = ["function"]
            budget = _LEAST_LINE + int(draws.random() * (_MOST_LINE - _LEAST_LINE))
        else:
            budget = 1 + int(draws.random() * _MOST_EXPRESSION)
            prefix = draws.choose(_ALIKE[phrase.prefix])
            symbol = "value" if draws.random() < _ANY_VALUE else f"{prefix}{1 + int(draws.random() * 3)}"
            if phrase.prefix == "v" and draws.random() < _SAME:
                symbol = phrase.symbol.partition("{")[0]
            symbols = [name for name in (symbol, f"{symbol}{{{n}}}", f"{symbol}{{{n},{f}}}") if name in self._rules]
        symbols = [symbol for symbol in symbols if self._fewest.get(symbol, budget + 1) <= budget]
        if not symbols:
            return None
        tokens: list[int] = []
        phrases: list[Phrase] = []
        self._derive(draws.choose(symbols), budget, draws, set(names), tokens, phrases)
        return tokens, phrases

    def _derive(
        self, symbol: str, budget: int, draws: _Draws, names: set[int], tokens: list[int], phrases: list[Phrase]
    ) -> None:
        """Append tokens of a symbol, at most `budget` of them: of the rules that fit each is as likely."""
        if symbol in self._tokens:
            token = draws.choose(sorted(names) if symbol == "NAME" else self._tokens[symbol])
            if symbol == "TARGET":
                names.add(token)
            tokens.append(token)
            return
        start = len(tokens)
        fitting = [rule for rule in self._rules[symbol] if sum(self._fewest[part] for part in rule) <= budget]
        rule = draws.rule(symbol, fitting)
        rest = sum(self._fewest[part] for part in rule)
        for part in rule:
            rest -= self._fewest[part]
            before = len(tokens)
            self._derive(part, budget - rest, draws, names, tokens, phrases)
            budget -= len(tokens) - before
        _note(phrases, symbol, start, len(tokens))

    def _parse(self, tokens: tuple[int, ...]) -> Parsed | None:
        """Return the phrases of a program, None for what is none or reads a name before one is bound."""
        automaton = self.automaton
        states, starts, symbols = [automaton.start], [0], [""]
        rules: list[tuple[str, Rule]] = []
        phrases: list[Phrase] = []
        bound: list[tuple[int, int]] = []
        functions: list[int] = []
        known: set[int] = set()
        last = ""
        for place in range(len(tokens) + 1):
            terminals = [END] if place == len(tokens) else self._terminals.get(tokens[place], ())
            state = states[-1]
            terminal = next(
                (name for name in terminals if name in automaton.shifts[state] or name in automaton.reduces[state]),
                None,
            )
            if terminal == END and state == automaton.accepting:
                break
            while terminal is not None and terminal not in automaton.shifts[states[-1]]:
                if terminal == END and states[-1] == automaton.accepting:
                    break
                reduced = automaton.reduces[states[-1]].get(terminal)
                if reduced is None:
                    return None
                size, last = reduced
                start = starts[-size]
                rules.append((last, tuple(symbols[-size:])))
                del states[-size:], starts[-size:], symbols[-size:]
                symbols.append(last)
                states.append(automaton.gotos[states[-1]][last])
                starts.append(start)
                _note(phrases, last, start, place)
                if terminal == END and last.startswith("print"):
                    phrases.append(Phrase(start, place + 1, last, ""))
            if terminal is None:
                return None
            if terminal == END:
                break
            token = tokens[place]
            if terminal == "NAME" and token not in known:
                return None
            if terminal == "TARGET":
                known.add(token)
                bound.append((place, token))
            if terminal == "F":
                functions.append(place)
            states.append(automaton.shifts[states[-1]][terminal])
            starts.append(place)
            symbols.append(terminal)
        ends = any(phrase.is_line and phrase.end > len(tokens) for phrase in phrases)
        whole = (*tokens, self._separator) if ends else tokens
        return Parsed(whole, tuple(phrases), tuple(bound), tuple(functions), tuple(rules))


def _note(phrases: list[Phrase], symbol: str, start: int, end: int) -> None:
    """Add a phrase unless its symbol is none; rules of one symbol are one phrase, which keeps the last of their names.

    What is derived from a rule of one symbol is noted right before it, since parts are noted before wholes.
    """
    base = symbol.partition("{")[0]
    chain = _CHAIN.fullmatch(base)
    prefix = chain[1] if chain else _PREFIX_OF.get(base, "")
    if not prefix and base not in _LINES:
        return
    if phrases and (phrases[-1].start, phrases[-1].end, phrases[-1].is_line) == (start, end, not prefix):
        phrases.pop()
    phrases.append(Phrase(start, end, symbol, prefix))


def _choose_line(program: Parsed, draws: _Draws) -> Phrase:
    return draws.choose([phrase for phrase in program.phrases if phrase.is_line])


def _replace(program: Parsed, phrase: Phrase, tokens: Sequence[int]) -> list[int]:
    return [*program.tokens[: phrase.start], *tokens, *program.tokens[phrase.end :]]


def _cross(program: Parsed, other: Parsed, draws: _Draws) -> Sequence[int] | None:
    """Put a phrase of another program in the place of one of the same sort."""
    phrase = draws.choose(program.phrases)
    donors = [donor for donor in other.phrases if donor.is_line == phrase.is_line]
    if not donors:
        return None
    donor = draws.choose(donors)
    return _replace(program, phrase, other.tokens[donor.start : donor.end])


def _draw_edit(draws: _Draws) -> Callable[[Phrases, Parsed, _Draws], Sequence[int] | None]:
    kind = draws.random()
    for share, edit in _EDITS[:-1]:
        if kind < share:
            return edit
        kind -= share
    return _EDITS[-1][1]


_EDITS = (
    (0.30, Phrases._anew),
    (0.20, Phrases._wrap),
    (0.12, Phrases._hoist),
    (0.06, Phrases._insert),
    (0.06, Phrases._delete),
    (0.10, Phrases._bind),
    (0.16, Phrases._point),
)
"""Shares of the kinds of edits."""
