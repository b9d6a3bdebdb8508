"""What makes a task sound: its reference solves it and can be sampled, and what ignores the input does not solve it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from altlas.core.grammar import build_constraint
from altlas.core.score import Score
from altlas.core.task import Task
from altlas.core.tokenizer import Tokenizer
from altlas.core.vocabulary import Vocabulary, parse_vocabulary


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `detail` says what was seen."""

    name: str
    ok: bool
    detail: str = ""


def check_task(
    task: Task, *, vocabulary_text: str, max_tokens: int, score: Callable[[Sequence[str]], Sequence[Score]]
) -> list[Finding]:
    """Check a task; `score` grades sources on it, one score each.

    Raises:
        VocabularyError: the vocabulary is wrong, or has no such vocabulary as the task names.
    """
    vocabulary = parse_vocabulary(vocabulary_text, name=task.vocabulary, where="the vocabulary")
    return [
        *_check_expressible(task, vocabulary, max_tokens),
        *_check_cases(task),
        *_check_scores(task, score),
    ]


def reference_ids(source: str, tokenizer: Tokenizer) -> list[int]:
    """Return the ids a sampler would write for a source, without <EOS>: only a block ends in a line break."""
    stripped = source.strip("\n").rstrip()
    ends_in_block = stripped.rpartition("\n")[2].startswith(" ")
    return tokenizer.encode_ids(stripped + "\n" if ends_in_block else stripped)


def _check_expressible(task: Task, vocabulary: Vocabulary, max_tokens: int) -> list[Finding]:
    tokenizer = Tokenizer(vocabulary)
    ids = reference_ids(task.reference, tokenizer)
    in_vocabulary = vocabulary.unk_id not in ids
    length = len(ids) + 1
    findings = [
        Finding("the vocabulary expresses the reference", in_vocabulary, f"read as: {tokenizer.decode(ids)}"),
        Finding(
            "the reference fits sampling.max_tokens", length <= max_tokens, f"{length} tokens, at most {max_tokens}"
        ),
    ]
    if all(finding.ok for finding in findings):
        refusal = _find_refusal(ids, vocabulary, language=task.language, max_tokens=max_tokens)
        findings.append(Finding("the grammar accepts the reference", not refusal, refusal))
    return findings


def _find_refusal(ids: Sequence[int], vocabulary: Vocabulary, *, language: str, max_tokens: int) -> str:
    """Say where the grammar refuses a program and what it would take; empty when it accepts."""
    constraint = build_constraint(vocabulary, language=language, grammar="language")
    nodes = np.array([constraint.start])
    for position, token in enumerate([*ids, vocabulary.eos_id]):
        legal = constraint.legal(nodes, remaining=max_tokens - position)[0]
        if not legal[token]:
            allowed = " ".join(vocabulary.texts[other] for other in np.flatnonzero(legal))
            written = Tokenizer(vocabulary).decode(ids[:position])
            return f"after {written!r} it does not take {vocabulary.texts[token]!r}, only: {allowed}"
        nodes = constraint.advance(nodes, np.array([token]))
    return ""


def _check_cases(task: Task) -> list[Finding]:
    has_input = any(case.stdin for case in task.cases)
    seen = {case.stdin for case in task.cases}
    repeated = [case.stdin for case in task.held_out if case.stdin in seen]
    return [
        Finding("a task with input has held-out cases", not has_input or bool(task.held_out), "add [[held_out]] cases"),
        Finding("held-out inputs are new", not repeated, f"also among the cases: {repeated}"),
    ]


def _check_scores(task: Task, score: Callable[[Sequence[str]], Sequence[Score]]) -> list[Finding]:
    outputs = list(dict.fromkeys(case.expected_stdout.rstrip() for case in task.cases))
    constants = [f"print({output!r})" for output in outputs] if len(outputs) > 1 else []
    reference, empty, *others = score([task.reference, "", *constants])
    lucky = [source for source, result in zip(constants, others, strict=True) if result.solved]
    seen = f"{reference.cases_passed} of {reference.cases} cases, {reference.status}"
    return [
        Finding("the reference solves every case", reference.solved, f"{seen} {reference.error}".rstrip()),
        Finding("the reference passes the held-out cases", reference.verified, "a held-out case fails"),
        Finding("the empty program does not solve it", not empty.solved, "the empty program passes every case"),
        Finding("no constant program solves it", not lucky, f"solved by {lucky}"),
    ]
