"""The texts of brainf programs: between them and token ids, and programs that write constants.

A token is a character, so `decode` only joins and `encode` only splits: decode(encode(s)) == s for every s that decode
can give. Any character that is no token becomes an <UNK> of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from altlas.core.vocabulary import SPECIAL_TOKENS, Vocabulary
from altlas.errors import VocabularyError

if TYPE_CHECKING:
    import torch

OPERATIONS = "><+-[].,"
_PIECE = re.compile("<UNK>|.", re.DOTALL)


class BrainfTokenizer:
    """Encodes and decodes with one vocabulary. Holds no state between calls."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Take a vocabulary of operations.

        Raises:
            VocabularyError: a token is not one of the eight operations.
        """
        for text in vocabulary.texts[len(SPECIAL_TOKENS) :]:
            if len(text) != 1 or text not in OPERATIONS:
                raise VocabularyError(
                    f"vocabulary {vocabulary.name!r}: {text!r} is none of {' '.join(OPERATIONS)}, which brainf "
                    'programs are made of; set vocabulary = "brainf" in the task'
                )
        self.vocabulary = vocabulary

    def encode(self, text: str) -> torch.Tensor:
        """Return the token ids of a text, int64 [T], without <SOS> and <EOS>."""
        import torch

        return torch.tensor(self.encode_ids(text), dtype=torch.long)

    def encode_ids(self, text: str) -> list[int]:
        """Return the token ids of a text, without <SOS> and <EOS>; needs no torch."""
        id_of, unknown = self.vocabulary.id_of, self.vocabulary.unk_id
        return [id_of.get(piece, unknown) for piece in _PIECE.findall(text)]

    def decode(self, ids: Iterable[int] | torch.Tensor) -> str:
        """Return the text of any id sequence: up to <EOS>, without <PAD> and <SOS>.

        Raises:
            VocabularyError: an id is not in the vocabulary.
        """
        vocabulary = self.vocabulary
        pieces: list[str] = []
        for token in map(int, ids):
            if token == vocabulary.eos_id:
                break
            if not 0 <= token < len(vocabulary):
                raise VocabularyError(f"token id {token} is outside the vocabulary of {len(vocabulary)} tokens")
            if token not in (vocabulary.pad_id, vocabulary.sos_id):
                pieces.append(vocabulary.texts[token])
        return "".join(pieces)


def write_constants(values: Sequence[int], *, base: int) -> str:
    """Return a program that writes `values`, each in [0, base), whatever its input: the shorter way round to each."""
    program = ""
    cell = 0
    for value in values:
        up, down = (value - cell) % base, (cell - value) % base
        program += "+" * up if up <= down else "-" * down
        program += "."
        cell = value
    return program
