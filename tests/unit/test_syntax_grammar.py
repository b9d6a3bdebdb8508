"""Programs of Python's syntax alone: no types, no numbers of arguments, no names bound first."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
from pydantic import ValidationError
from random_programs import sample

from altlas.config.sections import SamplingSection
from altlas.core.grammar import GrammarConstraint, build_constraint
from altlas.core.tokenizer import Tokenizer
from altlas.core.vocabulary import Vocabulary, parse_vocabulary
from altlas.errors import ConfigError, ProtocolError
from altlas.tasks import load_vocabulary_text

VOCABULARIES = ["python", "python-stdin"]
LONGEST = 60


@functools.cache
def vocabulary_of(name: str) -> Vocabulary:
    return parse_vocabulary(load_vocabulary_text(""), name=name)


@functools.cache
def language(name: str) -> GrammarConstraint:
    return GrammarConstraint(vocabulary_of(name))


@functools.cache
def syntax(name: str) -> GrammarConstraint:
    return GrammarConstraint(vocabulary_of(name), grammar="syntax")


def compiles(source: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of calls and subscripts of literals
        try:
            compile(source, "<program>", "exec")
        except SyntaxError:
            return False
    return True


def accepts(constraint: GrammarConstraint, source: str) -> bool:
    vocabulary = vocabulary_of("python-stdin")
    ids = [*Tokenizer(vocabulary).encode_ids(source), vocabulary.eos_id]
    try:
        constraint.replay(np.array([ids]), np.array([len(ids)]), max_tokens=LONGEST)
    except ProtocolError:
        return False
    return True


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("max_tokens", [2, 3, 5, 9, 15, 25, 40, LONGEST])
def test_every_sample_compiles_fits_and_is_canonical(name: str, max_tokens: int) -> None:
    vocabulary = vocabulary_of(name)
    tokenizer = Tokenizer(vocabulary)
    tokens = sample(syntax(name), 400, max_tokens, seed=max_tokens)
    assert (tokens == vocabulary.eos_id).sum(axis=1).tolist() == [1] * len(tokens)
    for row in tokens:
        source = tokenizer.decode(row)
        assert compiles(source), source
        assert tokenizer.encode_ids(source) == row[: row.tolist().index(vocabulary.eos_id)].tolist()


@pytest.mark.parametrize("name", VOCABULARIES)
def test_samples_use_every_token_of_the_vocabulary(name: str) -> None:
    vocabulary = vocabulary_of(name)
    used = np.unique(sample(syntax(name), 400, 40, seed=0)).tolist()
    assert set(used) == set(range(len(vocabulary))) - {vocabulary.sos_id, vocabulary.unk_id}


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("max_tokens", [9, 25, 40, LONGEST])
def test_the_programs_of_the_language_are_programs_of_the_syntax(name: str, max_tokens: int) -> None:
    tokens = sample(language(name), 600, max_tokens, seed=max_tokens)
    lengths = (tokens == vocabulary_of(name).eos_id).argmax(axis=1) + 1
    narrow = language(name).replay(tokens, lengths, max_tokens=max_tokens)
    wide = syntax(name).replay(tokens, lengths, max_tokens=max_tokens)
    assert not (narrow & ~wide).any()


@pytest.mark.parametrize(
    "source",
    [
        "print()",
        "print(int())",
        "print(input(1, 2))",
        "print(len(1, 2, 3))",
        "def f(x):\n    return x\nprint(f(1, 2))",
        "def f():\n    return\nprint(f())",
        "print(x)",
        "print(f(1))",
        "x += 1\nprint(x)",
        "print('hello' - 1)",
        "print(len(3)[0])",
        "print(print + [] * True)",
        "print((1 < 2)[0] == -'hello')",
        "print('hello'.count(1, 2))",
        "x = 1",
        "input()",
        "for print in 7:\n    print()\n",
        "while []:\n    int = 1\n",
        "print(input()[:True:2])",
    ],
)
def test_types_arguments_and_bindings_are_free_under_syntax_alone(source: str) -> None:
    assert compiles(source)
    assert accepts(syntax("python-stdin"), source)
    assert not accepts(language("python-stdin"), source)


@pytest.mark.parametrize(
    "source",
    [
        "return 1",
        "if 1 < 2:\n    return 1\n",
        "1 = 2",
        "True = 2",
        "x() = 2",
        "for 1 in x:\n    x\n",
        "def f(x, x):\n    return x\nf",
        "print(01)",
        "print(1.count)",
        "print(1 + )",
        "if x:\nprint(x)",
        "def f(x):\n    return x\nreturn x",
    ],
)
def test_what_does_not_compile_is_refused(source: str) -> None:
    assert not compiles(source)
    assert not accepts(syntax("python-stdin"), source)


@pytest.mark.parametrize(
    ("source", "is_accepted"),
    [
        ("print(1 + 2 * 3)", True),
        ("print(1 + 2 * 3 - 4)", False),
        ("print(int(str(int(x[0]))))", True),
        ("print(int(str(int(x[int(y)]))))", False),
        ("print(f(f(f(f(f(f(1)))))))", True),
        ("print(max(1, 2, 3))", True),
        ("print(max(1, 2, 3, 4))", False),
    ],
)
def test_chains_brackets_and_arguments_are_bounded(source: str, *, is_accepted: bool) -> None:
    assert accepts(syntax("python-stdin"), source) is is_accepted


@pytest.mark.parametrize("name", ["javascript", "brainf"])
def test_other_languages_have_their_own_grammar_for_syntax(name: str) -> None:
    vocabulary = vocabulary_of(name)
    tokens, other = (
        sample(build_constraint(vocabulary, language=name, grammar=grammar), 50, 30, seed=1)
        for grammar in ("language", "syntax")
    )
    np.testing.assert_array_equal(tokens, other)


def test_a_syntax_grammar_is_no_language() -> None:
    with pytest.raises(ConfigError, match=r"no grammar for 'python_syntax', only for brainf, javascript, python;"):
        build_constraint(vocabulary_of("python"), language="python_syntax", grammar="language")


def test_a_fixed_length_is_refused_as_under_the_language() -> None:
    with pytest.raises(ValidationError, match="grammar to none"):
        SamplingSection(length="fixed", grammar="syntax")
