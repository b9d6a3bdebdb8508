"""Round trips between text and tokens."""

from __future__ import annotations

import ast
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from altlas.core.tokenizer import Tokenizer
from altlas.core.vocabulary import SPECIAL_TOKENS, parse_vocabulary
from altlas.errors import VocabularyError
from altlas.tasks import load_vocabulary_text

VOCABULARY = parse_vocabulary(load_vocabulary_text(""))
TOKENIZER = Tokenizer(VOCABULARY)
UNKNOWN = VOCABULARY.unk_id
ANY_IDS = st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=60)
BODY_IDS = st.lists(st.integers(UNKNOWN, len(VOCABULARY) - 1), max_size=60)


def spell(*texts: str) -> list[int]:
    return [VOCABULARY.id_of[text] for text in texts]


@given(ANY_IDS | BODY_IDS)
@settings(max_examples=600)
def test_decoding_any_ids_gives_text_that_encodes_back_to_it(ids: list[int]) -> None:
    text = TOKENIZER.decode(ids)
    assert TOKENIZER.decode(TOKENIZER.encode_ids(text)) == text


@given(BODY_IDS)
@settings(max_examples=300)
def test_visible_tokens_survive_the_round_trip(ids: list[int]) -> None:
    def visible(tokens: list[int]) -> list[int]:
        return [token for token in tokens if VOCABULARY.kinds[token] not in ("indent", "dedent")]

    body = [token for token in ids if token != VOCABULARY.eos_id]
    assert visible(TOKENIZER.encode_ids(TOKENIZER.decode(body))) == visible(body)


@given(
    st.text(alphabet=st.sampled_from("xfi150 +-=<>'\":()[].,\n\t#\\é_print<UNK>"), max_size=40) | st.text(max_size=30)
)
@settings(max_examples=600)
def test_encoding_is_total_and_its_decoding_is_canonical(text: str) -> None:
    canonical = TOKENIZER.decode(TOKENIZER.encode_ids(text))
    assert TOKENIZER.decode(TOKENIZER.encode_ids(canonical)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "print('hello', 'world')",
        "print('hello' + ' ' + 'world')",
        "x = -1",
        "x = 3 - -1",
        "print(input()[::-1])",
        "print(x[1:], -x, [x, -1])",
        "print('hello' if int(input()) > 5 else 'world')",
        "def f(x):\n    if x < 10:\n        return x\n    return f(x // 10)\nprint(f(int(input())))",
        "for i in range(1, n + 1):\n    x += i\n",
        "x = [y, n][0](1)\nif x == '':\n    print()\nelse:\n    print(20, '')\n",
        "",
    ],
)
def test_readable_python_is_canonical_and_within_the_vocabulary(text: str) -> None:
    ids = TOKENIZER.encode_ids(text)
    assert UNKNOWN not in ids
    assert TOKENIZER.decode(ids) == text
    ast.parse(text)


@pytest.mark.parametrize(
    ("loose", "canonical"),
    [
        ("x=1", "x = 1"),
        ("print( x ,y )", "print(x, y)"),
        ("if  x>1 :\n        print(x)\n", "if x > 1:\n        print(x)\n"),
        ("x\t+=  -  1  ", "x += -1"),
        ("x [ : : - 1 ]", "x[::-1]"),
        ("print(1);", "print(1) <UNK>"),
    ],
)
def test_free_spacing_has_the_tokens_of_canonical_spacing(loose: str, canonical: str) -> None:
    assert TOKENIZER.encode_ids(loose) == TOKENIZER.encode_ids(canonical)
    assert TOKENIZER.decode(TOKENIZER.encode_ids(loose)) == canonical


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("15", ["1", "5"]),
        ("1 5", ["1", "<UNK>"]),
        ("1 5 6", ["1", "<UNK>", "6"]),
        ("foo bar", ["<UNK>", "<UNK>"]),
        ("printx", ["<UNK>"]),
        ("5x", ["<UNK>"]),
        ('"hello"', ["<UNK>"]),
        ("f'hello'", ["<UNK>"]),
        ("'hello", ["<UNK>"]),
        ("x # a comment", ["x", "<UNK>"]),
        ("  x", ["<UNK>", "x"]),
        ("x ** 2", ["x", "<UNK>", "2"]),
        ("<EOS>", ["<", "<UNK>", ">"]),
        ("<UNK>", ["<UNK>"]),
        ("x\ny", ["x", "<NEWLINE>", "y"]),
    ],
)
def test_pieces_outside_the_vocabulary_become_one_unknown_each(text: str, tokens: list[str]) -> None:
    assert TOKENIZER.encode_ids(text) == spell(*tokens)


def test_blocks_become_layout_tokens() -> None:
    ids = spell("while", "x", ":", "<NEWLINE>", "<INDENT>", "x", "+=", "1", "<NEWLINE>", "<DEDENT>", "x", "=", "2")
    assert TOKENIZER.decode(ids) == "while x:\n    x += 1\nx = 2"
    assert TOKENIZER.encode_ids("while x:\n    x += 1\nx = 2") == ids


def test_decode_stops_at_eos_skips_pad_and_sos_and_shows_unknown() -> None:
    assert TOKENIZER.decode(spell("<SOS>", "x", "<PAD>", "<UNK>", "<EOS>", "y")) == "x <UNK>"
    assert TOKENIZER.decode(spell("<DEDENT>", "x", "<INDENT>", "<NEWLINE>", "<NEWLINE>", "1")) == "x\n\n    1"


def test_an_id_outside_the_vocabulary_is_an_error() -> None:
    with pytest.raises(VocabularyError, match="outside the vocabulary"):
        TOKENIZER.decode([len(VOCABULARY)])


def test_encode_returns_a_long_tensor_and_decode_takes_one() -> None:
    import torch

    encoded = TOKENIZER.encode("print(15)")
    assert encoded.dtype == torch.long
    assert encoded.tolist() == TOKENIZER.encode_ids("print(15)")
    assert TOKENIZER.decode(encoded) == "print(15)"
    assert TOKENIZER.encode("").shape == (0,)


def test_a_vocabulary_without_layout_tokens_has_unknowns_in_their_place() -> None:
    tokens = [{"text": "x", "kind": "name"}]
    text = json.dumps({"version": 1, "special_tokens": SPECIAL_TOKENS, "vocabularies": {"python": tokens}})
    tokenizer = Tokenizer(parse_vocabulary(text))
    assert tokenizer.decode(tokenizer.encode_ids("x\n    x")) == "x <UNK> <UNK> x"


@pytest.mark.parametrize(("text", "kind"), [("1x", "name"), ("12", "digit"), ("'a", "string"), ("!", "operator")])
def test_a_token_that_could_not_be_read_back_is_refused(text: str, kind: str) -> None:
    tokens = [{"text": text, "kind": kind}]
    document = json.dumps({"version": 1, "special_tokens": SPECIAL_TOKENS, "vocabularies": {"python": tokens}})
    with pytest.raises(VocabularyError, match="cannot be a Python token"):
        Tokenizer(parse_vocabulary(document))
