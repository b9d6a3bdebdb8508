"""The vocabulary document: what it must hold, and what each fault is told as."""

from __future__ import annotations

import json
from typing import Any

import pytest

from altlas.core.vocabulary import SPECIAL_TOKENS, parse_vocabulary
from altlas.errors import VocabularyError
from altlas.tasks import load_vocabulary_text


def document(tokens: list[tuple[str, str]], **overrides: Any) -> str:
    fields = {
        "version": 1,
        "special_tokens": list(SPECIAL_TOKENS),
        "vocabularies": {"python": [{"text": text, "kind": kind} for text, kind in tokens]},
    }
    return json.dumps(fields | overrides)


def test_special_tokens_have_the_first_ids_and_the_rest_follow_in_order() -> None:
    vocabulary = parse_vocabulary(document([("print", "function"), ("x", "name")]))
    assert vocabulary.texts == ("<PAD>", "<SOS>", "<EOS>", "<UNK>", "print", "x")
    assert (vocabulary.pad_id, vocabulary.sos_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2, 3)
    assert vocabulary.id_of["x"] == 5
    assert vocabulary.kinds[4:] == ("function", "name")
    assert len(vocabulary) == 6


def test_shipped_vocabulary_parses_and_has_about_sixty_tokens() -> None:
    vocabulary = parse_vocabulary(load_vocabulary_text(""))
    assert 55 <= len(vocabulary) <= 65
    assert {"print", "input", "range", "'hello'", "''", "+=", "return", "<DEDENT>", "9"} <= set(vocabulary.texts)


def test_the_python_tokens_that_quoted_learning_figures_rest_on_are_unchanged() -> None:
    digest = parse_vocabulary(load_vocabulary_text("")).digest
    assert digest == "fc4fc4baa61d60278585be6c962b1787bb7e5dfd83d417e74e6231e553102026"


def test_python_stdin_holds_every_python_token() -> None:
    stdin = parse_vocabulary(load_vocabulary_text(""), name="python-stdin")
    python = parse_vocabulary(load_vocabulary_text(""))
    assert set(stdin.texts) - set(python.texts) == {"min", "abs", "split", "count", "'Fizz'", "'Buzz'"}
    assert set(python.texts) < set(stdin.texts)


def test_digest_depends_on_tokens_and_order_only() -> None:
    tokens = [("print", "function"), ("x", "name")]
    digest = parse_vocabulary(document(tokens)).digest
    assert parse_vocabulary(json.dumps(json.loads(document(tokens)), indent=4)).digest == digest
    assert parse_vocabulary(document(tokens[::-1])).digest != digest
    assert parse_vocabulary(document([("print", "name"), ("x", "name")])).digest != digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"version": 1', "not valid JSON"),
        ("[]", "not a vocabulary document"),
        (document([("x", "name")], version=2), "version 2"),
        (document([("x", "name")], special_tokens=["<PAD>"]), "special_tokens"),
        (document([("x", "name"), ("y", "name"), ("x", "digit")]), "'x' is there twice, at positions 0 and 2"),
        (document([]), "is empty"),
        (document([("<EOS>", "name")]), "'<EOS>' at position 0 is a special token"),
        (document([("x", "special")]), "the kind special is reserved"),
        (document([("x", "nam")]), "vocabularies.python.0.kind"),
        (document([("", "name")]), "vocabularies.python.0.text"),
        (document([("x", "name")], vocabularies={"pythn": []}), "did you mean 'pythn'"),
        (document([("x", "name")], extra=1), "extra"),
    ],
)
def test_each_fault_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(VocabularyError) as raised:
        parse_vocabulary(text, where="my.json")
    assert said in str(raised.value)
    assert str(raised.value).startswith("my.json")


def test_a_missing_file_is_an_error_that_names_the_key() -> None:
    with pytest.raises(VocabularyError, match=r"nowhere/vocab\.json.*paths\.vocabulary"):
        load_vocabulary_text("nowhere/vocab.json")
