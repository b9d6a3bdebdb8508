"""Between JavaScript text and token ids.

`decode` gives every id sequence one text, the canonical one: a statement a line, blocks indented by four spaces. White
space is no token, so `encode` looks at pieces alone and gives back every token that decode wrote. A text is within the
vocabulary when encode gives it no <UNK>: every word, string literal and operator in it is a token's text, every digit
of every number is a token, and two numbers have something between them. Anything else becomes one <UNK> per piece
(word, number, literal, comment, character), so nothing is lost silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from altlas.core.vocabulary import Kind, Vocabulary
from altlas.errors import VocabularyError

if TYPE_CHECKING:
    import torch

INDENT_WIDTH = 4
_WORD = r"[A-Za-z_$][\w$]*"
_OPERATOR = r"=>|>>>=?|\*\*=?|&&=?|\|\|=?|\?\?=?|\?\.|<<=?|>>=?|===?|!==?|\+\+|--|[-+*/%&|^<>]=|[-+*/%&|^~<>=!?]"
_SIGNS = ("+", "-")
_STEPS = ("++", "--")
_NUMBER = re.compile("[0-9]+")
_SHAPES: dict[Kind, re.Pattern[str]] = {
    "function": re.compile(_WORD, re.ASCII),
    "name": re.compile(_WORD, re.ASCII),
    "constant": re.compile(_WORD, re.ASCII),
    "keyword": re.compile(_WORD, re.ASCII),
    "digit": re.compile(r"[0-9]"),
    "operator": re.compile(_OPERATOR),
    "string": re.compile(r"'[^'\\\n\r]*'"),
    "punctuation": re.compile(r"[()\[\]{},:;.]"),
}
_PIECE = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<unknown><UNK>)"
    r"|(?P<number>[0-9][\w$]*)"
    r"|(?P<string>(?P<quote>['\"`])(?:(?!(?P=quote))[^\\\n]|\\.)*(?:(?P=quote)|$|(?=\n)))"
    r"|(?P<word>[^\W\d][\w$]*|\$[\w$]*)"
    r"|(?P<comment>//[^\n]*|/\*.*?(?:\*/|$))"
    rf"|(?P<operator>{_OPERATOR})"
    r"|(?P<other>.)",
    re.DOTALL,
)
_OPERAND_KINDS = frozenset({"function", "name", "string", "constant", "special", "digit"})


class JavaScriptTokenizer:
    """Encodes and decodes with one vocabulary. Holds no state between calls."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Take a vocabulary of JavaScript tokens.

        Raises:
            VocabularyError: a token's text does not have the shape of its kind, so it could not be read back.
        """
        _check_shapes(vocabulary)
        self.vocabulary = vocabulary

    def encode(self, text: str) -> torch.Tensor:
        """Return the token ids of a text, int64 [T], without <SOS> and <EOS>."""
        import torch

        return torch.tensor(self.encode_ids(text), dtype=torch.long)

    def encode_ids(self, text: str) -> list[int]:
        """Return the token ids of a text, without <SOS> and <EOS>; needs no torch."""
        return list(self._encode(text))

    def decode(self, ids: Iterable[int] | torch.Tensor) -> str:
        """Return the canonical text of any id sequence: up to <EOS>, without <PAD> and <SOS>.

        Raises:
            VocabularyError: an id is not in the vocabulary.
        """
        writer = _Writer()
        vocabulary = self.vocabulary
        for token in map(int, ids):
            if token == vocabulary.eos_id:
                break
            if not 0 <= token < len(vocabulary):
                raise VocabularyError(f"token id {token} is outside the vocabulary of {len(vocabulary)} tokens")
            if token not in (vocabulary.pad_id, vocabulary.sos_id):
                writer.write(vocabulary.texts[token], vocabulary.kinds[token])
        return "".join(writer.parts)

    def _encode(self, text: str) -> Iterator[int]:
        id_of, unknown = self.vocabulary.id_of, self.vocabulary.unk_id
        follows_number = False
        for match in _PIECE.finditer(text):
            group, piece = match.lastgroup, match.group()
            if group == "space":
                continue
            is_number = group == "number" and not follows_number and _NUMBER.fullmatch(piece) is not None
            if is_number and all(digit in id_of for digit in piece):
                yield from (id_of[digit] for digit in piece)
            else:
                is_number = False
                yield unknown if group == "number" else id_of.get(piece, unknown)
            follows_number = is_number


class _Writer:
    """Writes tokens one after the other; each decides what stands between it and the one before."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._previous: tuple[str, Kind] = ("", "special")
        self._is_sign = False
        self._level = 0
        self._parentheses = 0

    def write(self, text: str, kind: Kind) -> None:
        if text == "}":
            self._level = max(0, self._level - 1)
        is_first = not self.parts
        if not is_first:
            self.parts.append(self._gap(text, kind))
        ends_operand = not is_first and self._ends_operand()
        self.parts.append(text)
        self._is_sign = kind == "operator" and text in _SIGNS and not ends_operand
        self._previous = (text, kind)
        if text == "{":
            self._level += 1
        elif text in ("(", ")"):
            self._parentheses = max(0, self._parentheses + (1 if text == "(" else -1))

    def _gap(self, text: str, kind: Kind) -> str:
        before = self._previous[0]
        if before == "{" or text == "}" or (before == "}" and text != "else"):
            return "\n" + " " * (INDENT_WIDTH * self._level)
        if before == ";" and not self._parentheses:
            return "\n" + " " * (INDENT_WIDTH * self._level)
        return "" if self._is_joined(text, kind) else " "

    def _ends_operand(self) -> bool:
        text, kind = self._previous
        return kind in _OPERAND_KINDS or text in (")", "]", *_STEPS)

    def _is_joined(self, text: str, kind: Kind) -> bool:
        """Say whether a token stands in the line without a space before it."""
        before, before_kind = self._previous
        if before_kind == "digit" and kind == "digit":
            return True
        if text == ".":
            return before_kind != "operator"  # "?." is an operator
        if text in (")", "]", ",", ";") or before in ("(", "[", "."):
            return True
        if text in ("(", "[", *_STEPS) and self._ends_operand():
            return True
        return self._is_sign and kind != "operator"


def _check_shapes(vocabulary: Vocabulary) -> None:
    for text, kind in zip(vocabulary.texts, vocabulary.kinds, strict=True):
        shape = _SHAPES.get(kind)
        if kind != "special" and (shape is None or not shape.fullmatch(text)):
            raise VocabularyError(
                f"vocabulary {vocabulary.name!r}: {text!r} cannot be a JavaScript token of kind {kind}"
            )
