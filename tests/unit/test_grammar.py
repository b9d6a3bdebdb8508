"""The constraint against lark's own parser, against a breadth-first search, and against the Python compiler."""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterator
from importlib import resources

import numpy as np
import pytest
from lark import Lark, Token
from lark.parsers.lalr_interactive_parser import InteractiveParser
from random_programs import sample

from altlas.core.grammar import GrammarConstraint, Unconstrained, build_constraint
from altlas.core.lalr import build_automaton
from altlas.core.lalr_kernel import UNREACHABLE
from altlas.core.stacks import Stacks, tabulate, terminals_of
from altlas.core.tokenizer import Tokenizer
from altlas.core.trajectory import IntArray
from altlas.core.vocabulary import SPECIAL_TOKENS, parse_vocabulary
from altlas.errors import ConfigError, ProtocolError, VocabularyError
from altlas.tasks import load_vocabulary_text

VOCABULARY = parse_vocabulary(load_vocabulary_text(""))
TOKENIZER = Tokenizer(VOCABULARY)
GRAMMAR = (resources.files("altlas.core") / "grammars" / "python.lark").read_text()
TOY_GRAMMAR = """
start: sum | NAME ASSIGN sum
sum: term | sum "+" term
term: NAME | "(" sum ")" | "(" ")" NEVER | "[" sum "," sum "," sum "]"
ASSIGN: "="
%declare NAME NEVER
"""


@functools.cache
def constraint() -> GrammarConstraint:
    return GrammarConstraint(VOCABULARY)


@functools.cache
def automaton_tokens() -> dict[str, tuple[int, ...]]:
    return dict(build_automaton(GRAMMAR, VOCABULARY).tokens)


def lengths_of(tokens: IntArray) -> IntArray:
    lengths: IntArray = (tokens == VOCABULARY.eos_id).argmax(axis=1) + 1
    return lengths


def accepted_by(parser: InteractiveParser) -> set[str]:
    return set(parser.accepts())  # type: ignore[no-untyped-call]


def fed(parser: InteractiveParser, terminal: str) -> InteractiveParser:
    advanced: InteractiveParser = parser.copy()  # type: ignore[no-untyped-call]
    advanced.feed_token(Token(terminal, ""))
    return advanced


def shortest_completion(parser: InteractiveParser, terminals: set[str], *, at_most: int) -> int:
    """The literal definition: breadth first over all continuations, through lark's own parser."""
    frontier = [parser]
    for length in range(1, at_most + 1):
        following = {}
        for state in frontier:
            accepted = accepted_by(state)
            if "$END" in accepted:
                return length
            for terminal in sorted(accepted & terminals):
                advanced = fed(state, terminal)
                following[tuple(advanced.parser_state.state_stack)] = advanced
        frontier = list(following.values())
    return UNREACHABLE


def test_cost_equals_the_breadth_first_search_on_every_short_prefix_of_a_toy_grammar() -> None:
    tokens = [{"text": text, "kind": "punctuation"} for text in "()[],"]
    tokens += [{"text": "=", "kind": "operator"}, {"text": "+", "kind": "operator"}, {"text": "x", "kind": "name"}]
    document = {"version": 1, "special_tokens": SPECIAL_TOKENS, "vocabularies": {"python": tokens}}
    vocabulary = parse_vocabulary(json.dumps(document))
    automaton = build_automaton(TOY_GRAMMAR, vocabulary)
    stacks = Stacks(tabulate(automaton, eos_id=vocabulary.eos_id), start=automaton.start)
    numbers = {name: number for number, name in enumerate(terminals_of(automaton))}
    terminals = set[str]().union(*automaton.shifts) & automaton.tokens.keys()
    frontier = [(0, Lark(TOY_GRAMMAR, parser="lalr").parse_interactive(""))]
    checked = unfinishable = 0
    for _ in range(4):
        reached = []
        for node, parser in frontier:
            following = np.full((1, len(vocabulary)), -1, dtype=np.int32)
            costs = np.full((1, len(vocabulary)), UNREACHABLE, dtype=np.int16)
            seen = np.zeros((1, len(numbers)), dtype=np.bool_)
            stacks.fill(np.array([node]), following, costs, seen)
            accepted = accepted_by(parser)
            assert seen[0, numbers["$END"]] == (following[0, vocabulary.eos_id] == 0) == ("$END" in accepted)
            for terminal in sorted(terminals):
                (token,) = automaton.tokens[terminal]
                after = fed(parser, terminal) if terminal in accepted else None
                expected = shortest_completion(after, terminals, at_most=5) if after else UNREACHABLE
                assert expected == (costs[0, token] if costs[0, token] <= 5 else UNREACHABLE)
                assert seen[0, numbers[terminal]] == (following[0, token] != -1) == (costs[0, token] < UNREACHABLE)
                checked += bool(after)
                unfinishable += bool(after) and costs[0, token] == UNREACHABLE
                if after and seen[0, numbers[terminal]]:
                    reached.append((int(following[0, token]) - 1, after))
        frontier = reached
    assert checked > 90
    assert unfinishable


def walk(tokens: list[int], lark: Lark) -> Iterator[tuple[IntArray, InteractiveParser, set[int]]]:
    """Yield, before each token, the constraint's node, lark's parser and the tokens that lark takes there."""
    tokens_of = automaton_tokens()
    parser, nodes, bound = lark.parse_interactive(""), np.array([constraint().start]), set[int]()
    for token in tokens:
        accepted = accepted_by(parser)
        takes = {other for terminal in accepted for other in tokens_of.get(terminal, ())}
        if "NAME" in accepted:
            takes -= set(tokens_of["NAME"]) - bound
        takes.discard(VOCABULARY.id_of["."])  # a dead end: what may follow it is not in this vocabulary
        if "$END" in accepted:
            takes.add(VOCABULARY.eos_id)
        yield nodes, parser, takes
        if token == VOCABULARY.eos_id:
            return
        terminal = next(name for name in accepted if token in tokens_of.get(name, ()))
        if terminal == "TARGET":
            bound.add(token)
        parser = fed(parser, terminal)
        nodes = constraint().advance(nodes, np.array([token]))


def test_with_ample_budget_legal_is_what_larks_parser_accepts_with_bound_names() -> None:
    lark = Lark(GRAMMAR, parser="lalr")
    for seed in range(25):
        for nodes, _, takes in walk(sample(constraint(), 1, 6 + seed, seed=seed)[0].tolist(), lark):
            assert set(np.flatnonzero(constraint().legal(nodes, remaining=1000)[0])) == takes


def test_with_a_tight_budget_legal_is_what_can_still_be_completed() -> None:
    lark = Lark(GRAMMAR, parser="lalr")
    tokens_of = automaton_tokens()
    searched = 0
    for seed in range(10):
        for nodes, parser, takes in walk(sample(constraint(), 1, 6 + seed, seed=seed)[0].tolist(), lark):
            if not can_end(nodes, 4):
                continue
            expected = takes & {VOCABULARY.eos_id}
            for terminal in accepted_by(parser) & tokens_of.keys():
                if shortest_completion(fed(parser, terminal), set(tokens_of), at_most=3) <= 3:
                    expected |= takes & set(tokens_of[terminal])
            assert set(np.flatnonzero(constraint().legal(nodes, remaining=4)[0])) == expected
            searched += 1
    assert searched > 40


def can_end(nodes: IntArray, remaining: int) -> bool:
    try:
        constraint().legal(nodes, remaining=remaining)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("max_tokens", [5, 6, 7, 9, 12, 17, 25, 40])
def test_every_sample_compiles_fits_and_is_canonical(max_tokens: int) -> None:
    tokens = sample(constraint(), 250, max_tokens, seed=max_tokens)
    assert (tokens == VOCABULARY.eos_id).sum(axis=1).tolist() == [1] * len(tokens)
    for row, length in zip(tokens, lengths_of(tokens), strict=True):
        source = TOKENIZER.decode(row)
        ast.parse(source)
        assert TOKENIZER.encode_ids(source) == row[: length - 1].tolist()
        assert TOKENIZER.decode(TOKENIZER.encode_ids(source)) == source


def test_names_are_read_only_after_they_are_bound() -> None:
    tokens = sample(constraint(), 400, 40, seed=3)
    names = {"x", "y", "i", "n"}
    read = 0
    for row in tokens:
        tree = ast.parse(TOKENIZER.decode(row))
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        stored |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        assert used & names <= stored
        read += bool(used & names)
    assert read > 40


@pytest.mark.parametrize(
    "source",
    [
        "print('hello', 'world')",
        "print('hello' + ' ' + 'world')",
        "print(int(input()) + int(input()))",
        "print(input() + input())",
        "print('hello' if int(input()) > 5 else 'world')",
        "print(input()[::-1])",
        "print(max(int(input()), int(input())))",
        "n = int(input())\nprint(n * (n + 1) // 2)",
        "x = 0\nfor i in range(int(input()) + 1):\n    x += i\nprint(x)",
        "def f(n):\n    return 1 if n < 2 else n * f(n - 1)\nprint(f(int(input())))",
        "if input() == 'hello':\n    print('world')\nelse:\n    print(0)\n",
        "n = int(input())\nwhile n > 0:\n    print(n)\n    n += -1\n",
        "x = [int(input()), int(input())]\nprint(x[1], len(x), max(x))",
        "for i in input():\n    print(i)\n",
        "print(int(input()) % 2 == 0)",
        "x = True\nprint(x)",
    ],
)
def test_useful_programs_are_within_the_grammar(source: str) -> None:
    ids = [*TOKENIZER.encode_ids(source), VOCABULARY.eos_id]
    tokens = np.array([ids])
    masks = constraint().replay(tokens, np.array([len(ids)]), max_tokens=40)
    assert masks[0, np.arange(len(ids)), ids].all()


@pytest.mark.parametrize(
    "source",
    [
        "print(",
        "print()",
        "print(x)",
        "x = 1",
        "print(01)",
        "print(1)\n",
        "return 1",
        "'hello'",
        "print('hello' 'world')",
        "print(int())",
        "print(input(1))",
        "print(max(1))",
        "if 1 < 2:\n    print(1)\n",
        "print(f(1))",
        "print('hello' - 1)",
        "1 = 2",
    ],
)
def test_programs_outside_the_grammar_are_refused(source: str) -> None:
    ids = [*TOKENIZER.encode_ids(source), VOCABULARY.eos_id]
    with pytest.raises(ProtocolError, match="not legal"):
        constraint().replay(np.array([ids]), np.array([len(ids)]), max_tokens=60)


@pytest.mark.parametrize("grammar", ["language", "none"])
def test_replay_gives_the_masks_that_sampling_saw(grammar: str) -> None:
    subject = build_constraint(VOCABULARY, language="python", grammar="none" if grammar == "none" else "language")
    tokens = sample(subject, 60, 30, seed=1)
    lengths = lengths_of(tokens)
    replayed = subject.replay(tokens, lengths, max_tokens=30)
    nodes = np.full(60, subject.start)
    for step in range(30):
        seen = subject.legal(nodes, remaining=30 - step)
        np.testing.assert_array_equal(replayed[:, step], seen)
        nodes = subject.advance(nodes, tokens[:, step])
    beyond = np.arange(30) >= lengths[:, None]
    assert replayed[beyond].sum() == beyond.sum()
    assert replayed[beyond][:, VOCABULARY.pad_id].all()


def test_masks_do_not_depend_on_what_was_asked_before() -> None:
    tokens = sample(constraint(), 40, 40, seed=9)
    lengths = lengths_of(tokens)
    fresh = GrammarConstraint(VOCABULARY)
    backwards = fresh.replay(tokens[::-1], lengths[::-1], max_tokens=40)[::-1]
    np.testing.assert_array_equal(backwards, constraint().replay(tokens, lengths, max_tokens=40))


def test_a_budget_below_the_shortest_program_is_a_configuration_error() -> None:
    subject = constraint()
    assert subject.shortest == 5
    assert subject.legal(np.array([subject.start]), remaining=5).any()
    with pytest.raises(ConfigError, match=r"the shortest takes 5.*max_tokens"):
        subject.legal(np.array([subject.start]), remaining=4)


def test_advance_and_replay_refuse_what_cannot_follow() -> None:
    for subject in (constraint(), Unconstrained(VOCABULARY)):
        with pytest.raises(ProtocolError):
            subject.advance(np.array([subject.start]), np.array([VOCABULARY.unk_id]))
        with pytest.raises(ProtocolError, match="trajectory 0"):
            subject.replay(np.array([[VOCABULARY.sos_id, 0]]), np.array([1]), max_tokens=10)


@pytest.mark.parametrize("max_tokens", [1, 2, 7, 40])
def test_unconstrained_samples_hold_no_special_token_and_end_in_time(max_tokens: int) -> None:
    tokens = sample(Unconstrained(VOCABULARY), 200, max_tokens, seed=max_tokens)
    assert ((tokens == VOCABULARY.eos_id).sum(axis=1) == 1).all()
    for row, length in zip(tokens, lengths_of(tokens), strict=True):
        assert (row[: length - 1] > VOCABULARY.unk_id).all()
        assert (row[length:] == VOCABULARY.pad_id).all()


def test_an_unknown_language_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"no grammar for 'cobol', only for .*python.*grammar = none"):
        build_constraint(VOCABULARY, language="cobol", grammar="language")


def test_a_vocabulary_that_cannot_spell_a_program_is_named_with_what_it_lacks() -> None:
    document = json.loads(load_vocabulary_text(""))
    document["vocabularies"]["python"] = [
        token for token in document["vocabularies"]["python"] if token["kind"] != "newline" and token["text"] != "print"
    ]
    with pytest.raises(VocabularyError, match=r"nothing in it for .*NEWLINE, PRINT"):
        GrammarConstraint(parse_vocabulary(json.dumps(document)))


def test_a_grammar_that_is_not_lalr_is_refused() -> None:
    with pytest.raises(ValueError, match="not LALR"):
        build_automaton('start: a | b\na: "print"\nb: "print"', VOCABULARY)


def test_a_grammar_in_which_a_token_is_two_terminals_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match="both"):
        build_automaton("start: NAME | TARGET\n%declare NAME TARGET", VOCABULARY)


def test_dropping_the_tables_changes_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = GrammarConstraint(VOCABULARY)
    kept = [sample(subject, 40, 30, seed=seed) for seed in range(4)]
    monkeypatch.setattr("altlas.core.grammar._MOST_ROWS", 50)
    forgetful = GrammarConstraint(VOCABULARY)
    dropped = [sample(forgetful, 40, 30, seed=seed) for seed in range(4)]
    for before, after in zip(kept, dropped, strict=True):
        np.testing.assert_array_equal(before, after)
    assert forgetful._rows < subject._rows
