"""JavaScript as it is sampled: round trips between text and tokens, and QuickJS as judge of the grammar."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import sample

from altlas.core.grammar import GrammarConstraint
from altlas.core.javascript_tokenizer import JavaScriptTokenizer
from altlas.core.vocabulary import SPECIAL_TOKENS, parse_vocabulary
from altlas.errors import ProtocolError, VocabularyError
from altlas.tasks import list_tasks, load_task, load_vocabulary_text
from altlas_evaluator.languages import javascript

VOCABULARY = parse_vocabulary(load_vocabulary_text(""), name="javascript")
TOKENIZER = JavaScriptTokenizer(VOCABULARY)
UNKNOWN = VOCABULARY.unk_id
ANY_IDS = st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=60)
VISIBLE_IDS = st.lists(st.integers(UNKNOWN, len(VOCABULARY) - 1), max_size=60)


@functools.cache
def constraint() -> GrammarConstraint:
    return GrammarConstraint(VOCABULARY, language="javascript")


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    javascript.prepare()


def accepts(source: str) -> bool:
    ids = [*TOKENIZER.encode_ids(source), VOCABULARY.eos_id]
    try:
        constraint().replay(np.array([ids]), np.array([len(ids)]), max_tokens=60)
    except ProtocolError:
        return False
    return True


@given(ANY_IDS)
@settings(max_examples=600)
def test_decoding_any_ids_gives_text_that_encodes_back_to_it(ids: list[int]) -> None:
    text = TOKENIZER.decode(ids)
    assert TOKENIZER.decode(TOKENIZER.encode_ids(text)) == text


@given(VISIBLE_IDS)
@settings(max_examples=600)
def test_visible_tokens_survive_the_round_trip(ids: list[int]) -> None:
    assert TOKENIZER.encode_ids(TOKENIZER.decode(ids)) == ids


@given(
    st.text(alphabet=st.sampled_from("xfi150 +-=<>?/*'\"`:;()[]{}.,\n\t#\\é$print<UNK>"), max_size=40)
    | st.text(max_size=30)
)
@settings(max_examples=600)
def test_encoding_is_total_and_its_decoding_is_canonical(text: str) -> None:
    canonical = TOKENIZER.decode(TOKENIZER.encode_ids(text))
    assert TOKENIZER.decode(TOKENIZER.encode_ids(canonical)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "print('hello', 'world')",
        "print(x - -1, -f(2), [x, -1][0])",
        "var x = 3 * (y + 1) / 2;\nx += -1;\nx++;\nprint(x === 15 ? '' : x.length)",
        "for (var i = 0; i < 10; i--) {\n    while (x > 0) {\n        x--;\n    }\n}",
        "if (x < 1) {\n    print(1);\n} else {\n    print(2);\n}\nprint([1, 2].reverse()[0])",
        *(load_task(name)[0].reference.strip() for name in list_tasks() if name.startswith("javascript/")),
    ],
)
def test_readable_javascript_is_canonical_and_within_the_vocabulary(text: str) -> None:
    ids = TOKENIZER.encode_ids(text)
    assert UNKNOWN not in ids
    assert TOKENIZER.decode(ids) == text
    assert javascript.compile(text.encode()) == text


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("15", ["1", "5"]),
        ("1 5", ["1", "<UNK>"]),
        ("1.5", ["1", ".", "5"]),
        ("5x", ["<UNK>"]),
        ("x$", ["<UNK>"]),
        ("x==1", ["x", "<UNK>", "1"]),
        ("x===1", ["x", "===", "1"]),
        ("x?.y", ["x", "<UNK>", "y"]),
        ("x-->0", ["x", "--", ">", "0"]),
        ('"hello"', ["<UNK>"]),
        ("'it\\'s' `a ${x} b`", ["<UNK>", "<UNK>"]),
        ("x // a comment\ny", ["x", "<UNK>", "y"]),
        ("x /* over\nlines */ y", ["x", "<UNK>", "y"]),
        ("x=>x", ["x", "<UNK>", "x"]),
        ("<EOS>", ["<", "<UNK>", ">"]),
        ("<UNK>", ["<UNK>"]),
    ],
)
def test_text_is_read_in_whole_pieces(text: str, tokens: list[str]) -> None:
    assert TOKENIZER.encode_ids(text) == [VOCABULARY.id_of[token] for token in tokens]


def test_an_id_outside_the_vocabulary_is_an_error() -> None:
    with pytest.raises(VocabularyError, match="outside the vocabulary"):
        TOKENIZER.decode([len(VOCABULARY)])


def test_encode_returns_a_long_tensor() -> None:
    import torch

    assert TOKENIZER.encode("print(15)").tolist() == TOKENIZER.encode_ids("print(15)")
    assert TOKENIZER.encode("").dtype == torch.long


@pytest.mark.parametrize(
    ("text", "kind"), [("1x", "name"), ("12", "digit"), ("'a", "string"), ("//", "operator"), ("<INDENT>", "indent")]
)
def test_a_token_that_could_not_be_read_back_is_refused(text: str, kind: str) -> None:
    tokens = [{"text": text, "kind": kind}]
    document = json.dumps({"version": 1, "special_tokens": SPECIAL_TOKENS, "vocabularies": {"javascript": tokens}})
    with pytest.raises(VocabularyError, match="cannot be a JavaScript token"):
        JavaScriptTokenizer(parse_vocabulary(document, name="javascript"))


@pytest.mark.parametrize("max_tokens", [5, 7, 9, 12, 17, 25, 40, 60])
def test_every_sample_parses_fits_and_is_canonical(max_tokens: int) -> None:
    tokens = sample(constraint(), 250, max_tokens, seed=max_tokens)
    assert (tokens == VOCABULARY.eos_id).sum(axis=1).tolist() == [1] * len(tokens)
    for row in tokens:
        source = TOKENIZER.decode(row)
        javascript.compile(source.encode())
        assert TOKENIZER.encode_ids(source) == row[: row.tolist().index(VOCABULARY.eos_id)].tolist()


def test_names_are_read_only_after_they_are_bound() -> None:
    read = 0
    for row in sample(constraint(), 400, 40, seed=3):
        bound = set[str]()
        for declares, name in re.findall(r"(var |function f\()?\b([xyin])\b", TOKENIZER.decode(row)):
            assert declares or name in bound
            bound.add(name)
            read += not declares
    assert read > 200


@pytest.mark.parametrize(
    ("source", "is_accepted"),
    [
        ("print('hello' + ' ' + 'world')", True),
        ("var n = Number(readline());\nprint(n * (n + 1) / 2)", True),
        ("function f(n) { return n < 2 ? 1 : n * f(n - 1); } print(f(5))", True),
        ("var x = readline(); if (x === 'hello') { print(x.length); } else { x = 1; x += -1; }", True),
        ("for (var i = 0; i < Number(readline()); i += 2) { print(i); }", True),
        ("var x = [1, 2]; for (var i = 0; i < x.length; i++) { print(x[i]); } print(x.reverse())", True),
        ("print(", False),
        ("print(x)", False),
        ("var x = 1;", False),
        ("print(1);", False),
        ("print(01)", False),
        ("return 1;", False),
        ("print('hello' - 1)", False),
        ("x = 1; print(x)", False),
        ("print(f(1))", False),
        ("for (var i = 1; i < 9; i--) { print(i); }", False),
        ("var i = 1; i++; print(i)", False),
    ],
)
def test_the_grammar_takes_whole_useful_programs(source: str, *, is_accepted: bool) -> None:
    assert UNKNOWN not in TOKENIZER.encode_ids(source)
    assert accepts(source) is is_accepted
