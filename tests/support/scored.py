"""Programs and scores for what keeps, varies and proposes programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from altlas.core.mutation import Children
from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.core.score_batch import ScoreBatch, batch_scores
from altlas.core.trajectory import IntArray, TrajectoryBatch
from altlas.core.vocabulary import SPECIAL_TOKENS, Vocabulary, parse_vocabulary


def toy_vocabulary(words: str) -> Vocabulary:
    """A vocabulary of one-letter names, whose ids begin at 4."""
    tokens = [{"text": word, "kind": "name"} for word in words]
    document = {"version": 1, "special_tokens": SPECIAL_TOKENS, "vocabularies": {"python": tokens}}
    return parse_vocabulary(json.dumps(document))


def padded(programs: Sequence[Sequence[int]], width: int = 0) -> tuple[IntArray, IntArray]:
    """Tokens [B, T], T at least `width`, and lengths [B]."""
    lengths = np.array([len(program) for program in programs], dtype=np.int64)
    tokens = np.zeros((len(programs), max(int(lengths.max(initial=0)), width)), dtype=np.int64)
    for row, program in enumerate(programs):
        tokens[row, : len(program)] = program
    return tokens, lengths


def children_of(programs: Sequence[Sequence[int]], width: int = 0) -> Children:
    return Children(*padded(programs, width))


def lists_of(tokens: IntArray, lengths: IntArray) -> list[list[int]]:
    """The programs without their padding."""
    return [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]


def batch_of(programs: Sequence[Sequence[int]], *, origins: Sequence[int] = ()) -> TrajectoryBatch:
    tokens, lengths = padded(programs)
    zeros = np.zeros(tokens.shape, dtype=np.float32)
    return TrajectoryBatch(
        indices=np.arange(len(programs), dtype=np.int64),
        tokens=tokens,
        lengths=lengths,
        log_probs=zeros,
        entropies=zeros,
        policy_version=0,
        origins=np.array(origins, dtype=np.uint8),
    )


def scores_of(rewards: Sequence[float], behaviours: Sequence[int], cases: Sequence[Sequence[float]]) -> ScoreBatch:
    """Scores whose behaviours are numbers below 2**16."""
    return batch_scores(
        [
            Score(
                status=ProgramStatus.OK,
                reward=reward,
                behaviour=behaviour.to_bytes(16, "big"),
                cases=len(by_case),
                case_rewards=tuple(by_case),
            )
            for reward, behaviour, by_case in zip(rewards, behaviours, cases, strict=True)
        ]
    )
