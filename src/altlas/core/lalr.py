"""An LALR(1) automaton over token ids: the passage from a lark grammar to tables."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lark import Lark
from lark.common import ParserConf
from lark.exceptions import GrammarError
from lark.grammar import Rule, Symbol
from lark.lexer import TerminalDef
from lark.parsers.lalr_analysis import LALR_Analyzer

from altlas.core.lalr_kernel import UNREACHABLE
from altlas.core.vocabulary import Vocabulary
from altlas.errors import VocabularyError

END = "$END"
_ROOT = "$root_start"
_TERMINALS_OF_KIND = {"name": ("NAME", "TARGET", "WORD"), "function": ("WORD",), "string": ("STRING",)}


@dataclass(frozen=True, slots=True)
class Item:
    """A rule of which `seen` symbols stand on the stack and the rest costs at least `rest` tokens."""

    origin: str
    seen: int
    rest: int


@dataclass(frozen=True, slots=True)
class Automaton:
    """LALR(1) tables over state numbers, and the grammar they are of.

    `reduces` maps a state and terminal to (symbols popped, nonterminal); `tokens` a terminal to its token ids; `rules`
    a nonterminal to what it may be; `fewest` a symbol to its shortest token sequence's length, or UNREACHABLE.
    """

    start: int
    shifts: Sequence[Mapping[str, int]]
    gotos: Sequence[Mapping[str, int]]
    reduces: Sequence[Mapping[str, tuple[int, str]]]
    items: Sequence[Sequence[Item]]
    accepting: int
    tokens: Mapping[str, tuple[int, ...]]
    rules: Mapping[str, tuple[tuple[str, ...], ...]]
    fewest: Mapping[str, int]


@functools.lru_cache(maxsize=4)
def build_automaton(grammar: str, vocabulary: Vocabulary) -> Automaton:
    """Build the automaton of a lark grammar whose terminals are tokens of a vocabulary; the last few are kept.

    Raises:
        VocabularyError: the vocabulary lacks tokens without which there is no program.
        ValueError: the grammar is not LALR(1) over tokens.
    """
    compiled = Lark(grammar, parser=None, lexer="basic")
    analyzer = LALR_Analyzer(ParserConf(compiled.rules, {}, ["start"]), strict=True)
    try:
        analyzer.compute_lalr()  # type: ignore[no-untyped-call]
    except GrammarError as error:
        raise ValueError(f"the grammar is not LALR(1): {error}") from error
    tokens = _match_terminals(compiled.terminals, vocabulary)
    fewest = _fewest_tokens(compiled.rules, tokens)
    if fewest["start"] >= UNREACHABLE:
        missing = sorted(terminal.name for terminal in compiled.terminals if not tokens.get(terminal.name))
        raise VocabularyError(
            f"vocabulary {vocabulary.name!r} cannot spell any program of the grammar; nothing in it for "
            f"{', '.join(missing)}. Add tokens, or set sampling.grammar = none"
        )
    automaton = _number_states(analyzer, tokens, fewest, _rules_by_origin(compiled.rules))
    _check_unambiguous(automaton)
    return automaton


def _number_states(
    analyzer: LALR_Analyzer,
    tokens: Mapping[str, tuple[int, ...]],
    fewest: Mapping[str, int],
    rules: Mapping[str, tuple[tuple[str, ...], ...]],
) -> Automaton:
    states = list(analyzer.lr0_itemsets)
    number_of = {id(state): number for number, state in enumerate(states)}
    shifts: list[dict[str, int]] = []
    gotos: list[dict[str, int]] = []
    reduces: list[dict[str, tuple[int, str]]] = []
    items: list[list[Item]] = []
    accepting = -1
    for number, state in enumerate(states):
        targets = {symbol: number_of[id(target)] for symbol, target in state.transitions.items()}
        shifts.append({str(symbol.name): target for symbol, target in targets.items() if symbol.is_term})
        gotos.append({str(symbol.name): target for symbol, target in targets.items() if not symbol.is_term})
        reduces.append(
            {
                str(symbol.name): (len(rule.expansion), str(rule.origin.name))
                for symbol, rules in state.lookaheads.items()
                for rule in rules
            }
        )
        if any(pointer.rule.origin.name == _ROOT and pointer.is_satisfied for pointer in state.kernel):
            accepting = number
        items.append(_cheapest_items(((pointer.rule, pointer.index) for pointer in state.kernel), fewest))
    start = number_of[id(analyzer.lr0_start_states["start"])]
    items[start] = [Item("start", 0, fewest["start"])]
    return Automaton(
        start=start,
        shifts=shifts,
        gotos=gotos,
        reduces=reduces,
        items=items,
        accepting=accepting,
        tokens=tokens,
        rules=rules,
        fewest=fewest,
    )


def _rules_by_origin(rules: Sequence[Rule]) -> dict[str, tuple[tuple[str, ...], ...]]:
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for rule in rules:
        found[str(rule.origin.name)].append(tuple(str(symbol.name) for symbol in rule.expansion))
    return {origin: tuple(expansions) for origin, expansions in found.items()}


def _check_unambiguous(automaton: Automaton) -> None:
    for shifts, reduces in zip(automaton.shifts, automaton.reduces, strict=True):
        terminal_of: dict[int, str] = {}
        for terminal in {*shifts, *reduces}:
            for token in automaton.tokens.get(terminal, ()):
                other = terminal_of.setdefault(token, terminal)
                if other != terminal:
                    raise ValueError(f"token {token} is both {other} and {terminal} in one state of the grammar")


def _cheapest_items(pointers: Iterable[tuple[Rule, int]], fewest: Mapping[str, int]) -> list[Item]:
    """Keep the cheapest item of each origin and depth, without the root's."""
    cheapest: dict[tuple[str, int], int] = {}
    for rule, seen in pointers:
        key = (rule.origin.name, seen)
        rest = sum(fewest[symbol.name] for symbol in rule.expansion[seen:])
        if key[0] != _ROOT and rest < cheapest.get(key, UNREACHABLE):
            cheapest[key] = rest
    return [Item(str(origin), seen, rest) for (origin, seen), rest in cheapest.items()]


def _match_terminals(terminals: Collection[TerminalDef], vocabulary: Vocabulary) -> dict[str, tuple[int, ...]]:
    """Map terminals to their token ids: by whole text, and what then is left by kind."""
    found: dict[str, list[int]] = defaultdict(list)
    for token, (text, kind) in enumerate(zip(vocabulary.texts, vocabulary.kinds, strict=True)):
        if kind == "special":
            continue
        by_text = [terminal.name for terminal in terminals if re.fullmatch(terminal.pattern.to_regexp(), text)]
        for name in by_text or _TERMINALS_OF_KIND.get(kind, ()):
            found[name].append(token)
    return {name: tuple(ids) for name, ids in found.items()}


def _fewest_tokens(rules: Sequence[Rule], tokens: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the length of the shortest token sequence of every symbol, UNREACHABLE where it has none."""
    symbols: set[Symbol] = {rule.origin for rule in rules} | {symbol for rule in rules for symbol in rule.expansion}
    fewest = {str(s.name): 1 if s.is_term and tokens.get(s.name) else UNREACHABLE for s in symbols}
    changed = True
    while changed:
        changed = False
        for rule in rules:
            total = min(UNREACHABLE, sum(fewest[symbol.name] for symbol in rule.expansion))
            if total < fewest[rule.origin.name]:
                fewest[rule.origin.name] = total
                changed = True
    return fewest
