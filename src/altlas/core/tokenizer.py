"""Between Python text and token ids.

`decode` gives every id sequence one text, the canonical one, and `encode` inverts it: decode(encode(s)) == s for every
s that decode can give. Text is within the vocabulary when encode gives it no <UNK>:
- every word, string literal and operator in it is a token's text, every digit of every number is a token;
- two numbers have something between them ("1 5" is no 15: the second becomes <UNK>);
- indentation is a multiple of four spaces, comments and backslashes are absent.
Spacing inside a line is free: "x=1" and "x = 1" have the same tokens. Anything else becomes one <UNK> per piece (word,
number, literal, comment, character), so nothing is lost silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from altlas.core.brainf import BrainfTokenizer
from altlas.core.javascript_tokenizer import JavaScriptTokenizer
from altlas.core.vocabulary import Kind, Vocabulary
from altlas.errors import VocabularyError

if TYPE_CHECKING:
    import torch

INDENT_WIDTH = 4
_OPERATOR = r"\*\*=?|//=?|>>=?|<<=?|[-+*/%@&|^<>=!]=|->|[-+*/%@&|^~<>=]"
_SIGNS = ("+", "-")
_NUMBER = re.compile("[0-9]+")
_SHAPES: dict[Kind, re.Pattern[str]] = {
    "function": re.compile(r"[A-Za-z_]\w*", re.ASCII),
    "name": re.compile(r"[A-Za-z_]\w*", re.ASCII),
    "constant": re.compile(r"[A-Za-z_]\w*", re.ASCII),
    "keyword": re.compile(r"[A-Za-z_]\w*", re.ASCII),
    "digit": re.compile(r"[0-9]"),
    "operator": re.compile(_OPERATOR),
    "string": re.compile(r"'[^'\\\n\r]*'"),
    "punctuation": re.compile(r"[()\[\]{},:;.]"),
    "newline": re.compile("<NEWLINE>"),
    "indent": re.compile("<INDENT>"),
    "dedent": re.compile("<DEDENT>"),
}
_SPACE = " \t\f\r"
_PIECE = re.compile(
    rf"(?P<space>[{_SPACE}]+)"
    r"|(?P<unknown><UNK>)"
    r"|(?P<number>[0-9]\w*)"
    r"|(?P<string>(?:[rRbBuUfF]{1,2})?(?:'(?:[^'\\\n]|\\.)*(?:'|$|(?=\n))|\"(?:[^\"\\\n]|\\.)*(?:\"|$|(?=\n))))"
    r"|(?P<word>[^\W\d]\w*)"
    r"|(?P<comment>#[^\n]*)"
    rf"|(?P<operator>{_OPERATOR})"
    r"|(?P<other>.)",
    re.DOTALL,
)
_CALLABLE_ENDS = frozenset({"function", "name", "string", "constant", "special", "digit"})


class TextTokenizer(Protocol):
    """What the tokenizers of all languages do; their own docstrings say which texts come back as they were."""

    vocabulary: Vocabulary

    def encode(self, text: str) -> torch.Tensor: ...
    def encode_ids(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int] | torch.Tensor) -> str: ...


def build_tokenizer(vocabulary: Vocabulary, language: str) -> TextTokenizer:
    """Return the tokenizer of a language, Python's for languages that have none of their own.

    Raises:
        VocabularyError: the vocabulary holds what the language's texts cannot.
    """
    if language == "brainf":
        return BrainfTokenizer(vocabulary)
    if language == "javascript":
        return JavaScriptTokenizer(vocabulary)
    return Tokenizer(vocabulary)


class Tokenizer:
    """Encodes and decodes with one vocabulary. Holds no state between calls."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Take a vocabulary of Python tokens.

        Raises:
            VocabularyError: a token's text does not have the shape of its kind, so it could not be read back.
        """
        _check_shapes(vocabulary)
        self.vocabulary = vocabulary
        self._newline = vocabulary.id_of_kind("newline")
        self._indent = vocabulary.id_of_kind("indent")
        self._dedent = vocabulary.id_of_kind("dedent")

    def encode(self, text: str) -> torch.Tensor:
        """Return the token ids of a text, int64 [T], without <SOS> and <EOS>."""
        import torch

        return torch.tensor(self.encode_ids(text), dtype=torch.long)

    def encode_ids(self, text: str) -> list[int]:
        """Return the token ids of a text, without <SOS> and <EOS>; needs no torch.

        Indentation is told by the first token of a line; a text that ends in a line break is at level 0 again.
        """
        unknown = self.vocabulary.unk_id
        ids: list[int] = []
        level = 0
        lines = text.split("\n")
        for number, line in enumerate(lines):
            if number:
                ids.append(unknown if self._newline is None else self._newline)
            body = line.lstrip(_SPACE)
            if body:
                indentation = line[: len(line) - len(body)]
                if len(indentation) % INDENT_WIDTH or indentation.strip(" "):
                    ids.append(unknown)
                else:
                    level, change = self._change_level(level, len(indentation) // INDENT_WIDTH)
                    ids.extend(change)
                ids.extend(self._encode_line(body))
        if len(lines) > 1 and not lines[-1].strip(_SPACE):
            ids.extend(self._change_level(level, 0)[1])
        return ids

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
        return writer.text

    def _change_level(self, level: int, wanted: int) -> tuple[int, list[int]]:
        step = self._indent if wanted > level else self._dedent
        if wanted != level and step is None:
            return level, [self.vocabulary.unk_id]
        return wanted, [] if step is None else [step] * abs(wanted - level)

    def _encode_line(self, line: str) -> Iterator[int]:
        id_of, unknown = self.vocabulary.id_of, self.vocabulary.unk_id
        follows_number = False
        for match in _PIECE.finditer(line):
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
    """Writes visible tokens one after the other; layout tokens change what comes before the next visible one."""

    def __init__(self) -> None:
        self.text = ""
        self._level = 0
        self._start_line()

    def _start_line(self) -> None:
        self._previous: tuple[str, Kind] | None = None
        self._is_sign = False
        self._brackets = 0

    def write(self, text: str, kind: Kind) -> None:
        if kind == "newline":
            self.text += "\n"
            self._start_line()
        elif kind == "indent":
            self._level += 1
        elif kind == "dedent":
            self._level = max(0, self._level - 1)
        elif self._previous is None:
            self.text += " " * (INDENT_WIDTH * self._level) + text
            self._remember(text, kind, is_sign=kind == "operator" and text in _SIGNS)
        else:
            is_sign = kind == "operator" and text in _SIGNS and not self._ends_operand(*self._previous)
            self.text += text if self._is_joined(*self._previous, text, kind) else " " + text
            self._remember(text, kind, is_sign=is_sign)

    def _remember(self, text: str, kind: Kind, *, is_sign: bool) -> None:
        self._previous = (text, kind)
        self._is_sign = is_sign
        if text == "[":
            self._brackets += 1
        elif text == "]":
            self._brackets = max(0, self._brackets - 1)

    @staticmethod
    def _ends_operand(text: str, kind: Kind) -> bool:
        return kind in _CALLABLE_ENDS or text in (")", "]", "}")

    def _is_joined(self, before: str, before_kind: Kind, text: str, kind: Kind) -> bool:
        """Say whether two tokens of a line stand without a space between them."""
        if before_kind == "digit" and kind == "digit":
            return True
        if kind == "punctuation" and text in ")],:.;":
            return True
        if before_kind == "punctuation" and before in "([.":
            return True
        if before == ":":
            return self._brackets > 0
        if text in ("(", "["):
            return self._is_sign or self._ends_operand(before, before_kind)
        return self._is_sign and kind != "operator"


def _check_shapes(vocabulary: Vocabulary) -> None:
    for text, kind in zip(vocabulary.texts, vocabulary.kinds, strict=True):
        shape = _SHAPES.get(kind)
        if shape is not None and not shape.fullmatch(text):
            raise VocabularyError(f"vocabulary {vocabulary.name!r}: {text!r} cannot be a Python token of kind {kind}")
