"""Programs over the vocabulary of the stdin tasks that need more than Python's."""

from __future__ import annotations

import ast
import functools

import numpy as np
import pytest
from random_programs import sample

from altlas.core.grammar import GrammarConstraint
from altlas.core.tokenizer import Tokenizer
from altlas.core.vocabulary import parse_vocabulary
from altlas.errors import ProtocolError
from altlas.tasks import load_vocabulary_text

PYTHON = parse_vocabulary(load_vocabulary_text(""))
VOCABULARY = parse_vocabulary(load_vocabulary_text(""), name="python-stdin")
TOKENIZER = Tokenizer(VOCABULARY)


@functools.cache
def constraint() -> GrammarConstraint:
    return GrammarConstraint(VOCABULARY)


def accepts(source: str) -> bool:
    ids = [*TOKENIZER.encode_ids(source), VOCABULARY.eos_id]
    try:
        constraint().replay(np.array([ids]), np.array([len(ids)]), max_tokens=60)
    except ProtocolError:
        return False
    return True


def test_every_sample_compiles_and_is_canonical() -> None:
    used = set[str]()
    for max_tokens in (12, 20, 30, 45):
        for row in sample(constraint(), 300, max_tokens, seed=max_tokens):
            source = TOKENIZER.decode(row)
            ast.parse(source)
            length = row.tolist().index(VOCABULARY.eos_id)
            assert TOKENIZER.encode_ids(source) == row[:length].tolist()
            used |= {VOCABULARY.texts[token] for token in row}
    assert used >= {"min", "abs", "split", "count", "'Fizz'"}


@pytest.mark.parametrize(
    ("source", "is_accepted"),
    [
        ("print(min(int(input()), int(input())))", True),
        ("x = abs(int(input()) - 4) + 1\nprint(x)", True),
        ("print(input().split()[0] + input().split()[-1])", True),
        ("for x in input().split():\n    print(x)\n", True),
        ("print(len(input().split()) * 2)", True),
        ("x = input().count('Fizz')\nprint(x)", True),
        ("x = input()\nprint(x.count('Fizz'))", False),
        ("print(input().split())", False),
        ("print(abs('Fizz'))", False),
        ("print(min(1))", False),
        ("print(input().abs())", False),
    ],
)
def test_what_the_added_tokens_may_do(source: str, *, is_accepted: bool) -> None:
    ast.parse(source)
    assert accepts(source) is is_accepted


def test_python_itself_is_masked_as_if_the_added_rules_were_not_there() -> None:
    words = {"min", "abs", "split", "count", "'Fizz'", "'Buzz'", "."}
    allowed = np.array([text not in words for text in VOCABULARY.texts])
    from_python = np.array([VOCABULARY.id_of[text] for text in PYTHON.texts])
    python = GrammarConstraint(PYTHON)
    tokens = sample(python, 300, 30, seed=4)
    lengths = (tokens == PYTHON.eos_id).argmax(axis=1) + 1
    masks = python.replay(tokens, lengths, max_tokens=30)
    wider = constraint().replay(from_python[tokens], lengths, max_tokens=30)
    assert not masks[:, :, PYTHON.id_of["."]].any()
    np.testing.assert_array_equal(masks, (wider & allowed)[:, :, from_python])
