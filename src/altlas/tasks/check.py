"""What makes a task sound: its reference solves it and can be sampled, and what ignores the input does not solve it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from altlas.core.brainf import write_constants
from altlas.core.grammar import build_constraint
from altlas.core.score import Score
from altlas.core.task import BRAINF, Case, Task
from altlas.core.tokenizer import TextTokenizer, build_tokenizer
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


def reference_ids(source: str, tokenizer: TextTokenizer) -> list[int]:
    """Return the ids a sampler would write for a source, without <EOS>: only a block ends in a line break."""
    stripped = source.strip("\n").rstrip()
    ends_in_block = stripped.rpartition("\n")[2].startswith(" ")
    return tokenizer.encode_ids(stripped + "\n" if ends_in_block else stripped)


def _check_expressible(task: Task, vocabulary: Vocabulary, max_tokens: int) -> list[Finding]:
    tokenizer = build_tokenizer(vocabulary, task.language)
    if not task.reference:
        return [Finding("no reference is given: nothing here shows that it can be solved", ok=True)]
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
        refusal = _find_refusal(ids, tokenizer, language=task.language, max_tokens=max_tokens)
        findings.append(Finding("the grammar accepts the reference", not refusal, refusal))
    return findings


def _find_refusal(ids: Sequence[int], tokenizer: TextTokenizer, *, language: str, max_tokens: int) -> str:
    """Say where the grammar refuses a program and what it would take; empty when it accepts."""
    vocabulary = tokenizer.vocabulary
    constraint = build_constraint(vocabulary, language=language, grammar="language")
    nodes = np.array([constraint.start])
    for position, token in enumerate([*ids, vocabulary.eos_id]):
        legal = constraint.legal(nodes, remaining=max_tokens - position)[0]
        if not legal[token]:
            allowed = " ".join(vocabulary.texts[other] for other in np.flatnonzero(legal))
            written = tokenizer.decode(ids[:position])
            return f"after {written!r} it does not take {vocabulary.texts[token]!r}, only: {allowed}"
        nodes = constraint.advance(nodes, np.array([token]))
    return ""


def _check_cases(task: Task) -> list[Finding]:
    inputs = [_input_of(case) for case in task.cases]
    is_covered = not any(inputs) or bool(task.held_out) or _are_all_inputs(task)
    findings = [Finding("a task with input has held-out cases", is_covered, "add [[held_out]] cases")]
    repeated = [held_out for case in task.held_out if (held_out := _input_of(case)) in inputs]
    if task.language == BRAINF:
        # The published cases are drawn at random, and short inputs come twice.
        is_new = not task.held_out or len(repeated) < len(task.held_out)
        findings.append(Finding("some held-out inputs are new", is_new, "every one is also among the cases"))
    else:
        findings.append(Finding("held-out inputs are new", not repeated, f"also among the cases: {repeated}"))
    return findings


def _input_of(case: Case) -> str | tuple[int, ...]:
    return case.stdin if case.input is None else case.input


def _are_all_inputs(task: Task) -> bool:
    """Say whether the cases of a brainf task are all inputs of their length, so that none could be held out."""
    inputs = {case.input or () for case in task.cases}
    lengths = {len(values) for values in inputs}
    return task.language == BRAINF and len(lengths) == 1 and len(inputs) == task.brainf.base ** lengths.pop()


def _check_scores(task: Task, score: Callable[[Sequence[str]], Sequence[Score]]) -> list[Finding]:
    constants = _constant_programs(task)
    sources = ["", *constants, *([task.reference] if task.reference else [])]
    empty, *others = score(sources)
    lucky = [source for source, result in zip(constants, others, strict=False) if result.solved]
    findings = []
    if task.reference:
        reference = others[-1]
        seen = f"{reference.cases_passed} of {reference.cases} cases, {reference.status}"
        findings = [
            Finding("the reference solves every case", reference.solved, f"{seen} {reference.error}".rstrip()),
            Finding("the reference passes the held-out cases", reference.verified, "a held-out case fails"),
        ]
    return [
        *findings,
        Finding("the empty program does not solve it", not empty.solved, "the empty program passes every case"),
        Finding("no constant program solves it", not lucky, f"solved by {lucky}"),
    ]


def _constant_programs(task: Task) -> list[str]:
    """Return a program for each expected output that writes it whatever the input; none where all are the same."""
    if task.language == BRAINF:
        outputs = list(dict.fromkeys(case.expected or () for case in task.cases))
        programs = [write_constants(output, base=task.brainf.base) for output in outputs]
    else:
        texts = list(dict.fromkeys(case.expected_stdout.rstrip() for case in task.cases))
        programs = [f"print({text!r})" for text in texts]
    return programs if len(programs) > 1 else []
