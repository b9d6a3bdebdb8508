"""The tokens that programs are made of, parsed from a vocabulary document.

The document is JSON: `version` (1), `special_tokens` (the four below, in this order) and `vocabularies`, which maps a
name to a list of `{"text": ..., "kind": ...}`. Ids are positions: the special tokens have 0 to 3, then the list in its
order. Every text is there once. Line structure has tokens of kind newline, indent and dedent, whose text is a label.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from altlas.errors import VocabularyError

SPECIAL_TOKENS = ("<PAD>", "<SOS>", "<EOS>", "<UNK>")
VERSION = 1

Kind = Literal[
    "special",
    "function",
    "name",
    "digit",
    "operator",
    "punctuation",
    "string",
    "constant",
    "keyword",
    "newline",
    "indent",
    "dedent",
]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A named vocabulary; `texts` and `kinds` are indexed by token id, `digest` is a hexadecimal SHA-256 over both."""

    name: str
    texts: tuple[str, ...]
    kinds: tuple[Kind, ...]
    id_of: Mapping[str, int] = field(compare=False)
    digest: str

    pad_id: int = 0
    sos_id: int = 1
    eos_id: int = 2
    unk_id: int = 3

    def __len__(self) -> int:
        return len(self.texts)

    def id_of_kind(self, kind: Kind) -> int | None:
        """Return the id of the first token of a kind, None where there is none."""
        return self.kinds.index(kind) if kind in self.kinds else None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Token(_Strict):
    text: Annotated[str, Field(min_length=1)]
    kind: Kind


class _Document(_Strict):
    version: int
    special_tokens: tuple[str, ...]
    vocabularies: dict[str, tuple[_Token, ...]]


def parse_vocabulary(json_text: str, *, name: str = "python", where: str = "the vocabulary") -> Vocabulary:
    """Parse one vocabulary of a document; `where` names the document in errors.

    Raises:
        VocabularyError: not JSON, not of the schema or version, no such vocabulary, an empty one, or a token twice.
    """
    document = _parse_document(json_text, where)
    if name not in document.vocabularies:
        raise VocabularyError(f"{where}: no vocabulary {name!r}{_suggest(name, list(document.vocabularies))}")
    tokens = document.vocabularies[name]
    if not tokens:
        raise VocabularyError(f"{where}: vocabulary {name!r} is empty; list at least one token")
    return _build(name, tokens, where)


def _parse_document(json_text: str, where: str) -> _Document:
    try:
        document = _Document.model_validate(json.loads(json_text))
    except json.JSONDecodeError as error:
        raise VocabularyError(
            f"{where}: not valid JSON: {error}; restore the file or leave paths.vocabulary empty for the shipped one"
        ) from error
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc']) or 'document'}: {item['msg']}" for item in error.errors()
        ]
        raise VocabularyError(f"{where}: not a vocabulary document: " + "; ".join(lines)) from error
    if document.version != VERSION:
        raise VocabularyError(f"{where}: version {document.version}, but this altlas reads version {VERSION}")
    if document.special_tokens != SPECIAL_TOKENS:
        raise VocabularyError(
            f"{where}: special_tokens is {list(document.special_tokens)}, but has to be {list(SPECIAL_TOKENS)}"
        )
    return document


def _build(name: str, tokens: Sequence[_Token], where: str) -> Vocabulary:
    id_of = {text: index for index, text in enumerate(SPECIAL_TOKENS)}
    for position, token in enumerate(tokens):
        place = f"{where}: vocabulary {name!r}"
        if token.text in SPECIAL_TOKENS:
            raise VocabularyError(f"{place}: {token.text!r} at position {position} is a special token; take it out")
        if token.kind == "special":
            raise VocabularyError(f"{place}: {token.text!r} at position {position}: the kind special is reserved")
        if token.text in id_of:
            first = id_of[token.text] - len(SPECIAL_TOKENS)
            raise VocabularyError(
                f"{place}: token {token.text!r} is there twice, at positions {first} and {position}; remove one"
            )
        id_of[token.text] = len(id_of)
    specials: list[Kind] = ["special"] * len(SPECIAL_TOKENS)
    kinds = (*specials, *(token.kind for token in tokens))
    texts = tuple(id_of)
    digest = hashlib.sha256(json.dumps([texts, kinds]).encode()).hexdigest()
    return Vocabulary(name=name, texts=texts, kinds=kinds, id_of=MappingProxyType(id_of), digest=digest)


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; it holds {', '.join(map(repr, known)) or 'none'}"
