"""From sampled tokens to program texts, a batch at a time.

A language whose text has layout is written by its tokenizer, program by program. A brainf program is its tokens end to
end, a byte each, and is written for the whole batch through a table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from altlas.core.brainf import BrainfTokenizer
from altlas.core.tokenizer import TextTokenizer, build_tokenizer
from altlas.core.trajectory import IntArray
from altlas.core.vocabulary import Vocabulary

DecodeBatch: TypeAlias = Callable[[IntArray, IntArray], list[bytes]]
"""Takes tokens [B, T] and lengths [B] of programs that end with <EOS> or have none; returns their texts."""


def build_decoder(vocabulary: Vocabulary, *, language: str) -> DecodeBatch:
    """Return how programs of a language are written.

    Raises:
        VocabularyError: the vocabulary does not fit the language.
    """
    tokenizer = build_tokenizer(vocabulary, language)
    return _table_decoder(vocabulary) if isinstance(tokenizer, BrainfTokenizer) else _text_decoder(tokenizer)


def _text_decoder(tokenizer: TextTokenizer) -> DecodeBatch:
    def decode_batch(tokens: IntArray, lengths: IntArray) -> list[bytes]:
        rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
        return [tokenizer.decode(row[:length]).encode() for row, length in rows]

    return decode_batch


def _table_decoder(vocabulary: Vocabulary) -> DecodeBatch:
    is_special = np.array([kind == "special" for kind in vocabulary.kinds])
    characters = zip(vocabulary.texts, is_special, strict=True)
    table = np.array([0 if special else ord(text) for text, special in characters], dtype=np.uint8)

    def decode_batch(tokens: IntArray, lengths: IntArray) -> list[bytes]:
        is_written = (np.arange(tokens.shape[1]) < lengths[:, None]) & ~is_special[tokens]
        text = table[tokens[is_written]].tobytes()
        ends = np.cumsum(is_written.sum(axis=1)).tolist()
        return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    return decode_batch
