"""Texts of brainf: tokens, the grammar, task files, and the packs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from brainf_reference import interpret, match_brackets
from hypothesis import given
from hypothesis import strategies as st

from altlas.client.task_text import write_task
from altlas.core.brainf import OPERATIONS, BrainfTokenizer, write_constants
from altlas.core.grammar import GrammarConstraint
from altlas.core.score import Score
from altlas.core.task import Task, parse_task
from altlas.core.tokenizer import Tokenizer, build_tokenizer
from altlas.core.vocabulary import SPECIAL_TOKENS, parse_vocabulary
from altlas.errors import TaskError, VocabularyError
from altlas.tasks import list_tasks, load_task, load_vocabulary_text
from altlas.tasks.check import Finding, check_task
from altlas_evaluator.languages.brainf.runner import score_brainf

VOCABULARY = parse_vocabulary(load_vocabulary_text(""), name="brainf")
TOKENIZER = BrainfTokenizer(VOCABULARY)
CONSTRAINT = GrammarConstraint(VOCABULARY, language="brainf")
PAPER = [name for name in list_tasks() if name.startswith("brainf/")]
LONG = [name for name in list_tasks() if name.startswith("brainf-64/")]

ECHO = """
name = "echo-one"
description = "Write the input."
language = "brainf"
vocabulary = "brainf"
cases = [{ input = [3], expected = [3] }, { input = [-9, 1], expected = [-9] }]
held_out = [{ input = [7], expected = [7] }]
"""


def test_the_vocabulary_is_the_eight_operations() -> None:
    assert VOCABULARY.texts == (*SPECIAL_TOKENS, *OPERATIONS)


@given(st.text(alphabet="><+-[].,", max_size=80))
def test_operations_come_back_as_they_were(text: str) -> None:
    ids = TOKENIZER.encode_ids(text)
    assert len(ids) == len(text)
    assert TOKENIZER.decode(ids) == text


@given(st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=40))
def test_decoding_any_ids_gives_text_that_encodes_back_to_it(ids: list[int]) -> None:
    text = TOKENIZER.decode(ids)
    assert TOKENIZER.decode(TOKENIZER.encode_ids(text)) == text


def test_ids_are_a_tensor_for_who_wants_one() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("+[,]")) == "+[,]"


def test_other_characters_are_unknown_and_wrong_ids_refused() -> None:
    assert TOKENIZER.encode_ids("+ é") == [VOCABULARY.id_of["+"], VOCABULARY.unk_id, VOCABULARY.unk_id]
    with pytest.raises(VocabularyError, match="token id 12 is outside"):
        TOKENIZER.decode([12])


def test_the_tokenizer_is_the_languages() -> None:
    python = parse_vocabulary(load_vocabulary_text(""))
    assert isinstance(build_tokenizer(VOCABULARY, "brainf"), BrainfTokenizer)
    assert isinstance(build_tokenizer(python, "python"), Tokenizer)
    with pytest.raises(VocabularyError, match="vocabulary 'python': 'print' is none of"):
        build_tokenizer(python, "brainf")


def sample_uniformly(seed: int, *, count: int, max_tokens: int) -> list[str]:
    generator = np.random.default_rng(seed)
    nodes = np.full(count, CONSTRAINT.start)
    columns = []
    for step in range(max_tokens):
        legal = CONSTRAINT.legal(nodes, remaining=max_tokens - step)
        columns.append(np.where(legal, generator.random(legal.shape), -1.0).argmax(axis=1))
        nodes = CONSTRAINT.advance(nodes, columns[-1])
    tokens = np.array(columns).T
    assert ((tokens == VOCABULARY.eos_id).sum(axis=1) == 1).all()
    return [TOKENIZER.decode(row) for row in tokens]


@given(st.integers(0, 1000), st.integers(1, 60))
def test_every_sampled_program_is_balanced(seed: int, max_tokens: int) -> None:
    programs = sample_uniformly(seed, count=16, max_tokens=max_tokens)
    assert all(len(program) < max_tokens and match_brackets(program)[1] for program in programs)


def test_whatever_is_balanced_can_be_sampled() -> None:
    for program in ("", "[]", "[[]]", "+[->,.<]", "[" * 500 + "]" * 500):
        ids = [*TOKENIZER.encode_ids(program), VOCABULARY.eos_id]
        masks = CONSTRAINT.replay(np.array([ids]), np.array([len(ids)]), max_tokens=1024)
        assert masks[0, np.arange(len(ids)), ids].all()
    assert CONSTRAINT.shortest == 1


@given(st.lists(st.integers(0, 26), max_size=5), st.sampled_from([27, 256]))
def test_a_constant_program_writes_its_values(values: list[int], base: int) -> None:
    assert interpret(write_constants(values, base=base), [], base=base, max_steps=5000).output == values


def test_a_task_of_integers_is_read() -> None:
    task = parse_task(ECHO, where="echo.toml")
    assert task.cases[1].input == (-9, 1)
    assert (task.brainf.base, task.brainf.max_steps, task.brainf.length_reward) == (256, 5000, False)
    assert task.reference == ""
    with_table = parse_task(ECHO + "[brainf]\nbase = 27\nlength_reward = true\n", where="echo.toml")
    assert (with_table.brainf.base, with_table.brainf.length_reward) == (27, True)
    for written in (task, with_table):
        assert parse_task(write_task(written), where="again") == written


TEXT = 'name = "t"\ndescription = "t"\nreference = "print(1)"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ECHO.replace("input = [3], expected = [3]", 'stdin = "3", expected_stdout = "3"'),
            "cases: case 1: brainf reads",
        ),
        (ECHO.replace(", expected = [7]", ""), "held_out.0.expected_stdout: is missing"),
        (ECHO.replace("[3]", "[3.5]"), r"cases\.0\.input\.0: .*integer"),
        (ECHO.replace("[3]", "['3']"), r"cases\.0\.input\.0: .*integer"),
        (ECHO.replace("[3]", "[9223372036854775808]"), r"cases\.0\.input\.0: "),
        (ECHO + "[brainf]\nbase = 0\n", r"brainf\.base: "),
        (ECHO + "[brainf]\nmax_steps = 1000001\n", r"brainf\.max_steps: "),
        (ECHO + "[brainf]\nsteps = 5\n", r"brainf\.steps: "),
        (ECHO + "[limits]\ncpu_s = 0.5\n", r"limits: has no meaning for brainf.*\[brainf\]"),
        (ECHO + "[reward]\nexact = 0.5\n", r"reward: has no meaning for brainf"),
        (TEXT + "cases = [{ input = [1], expected = [1] }]", "cases: case 1: python reads and writes text"),
        (TEXT + "cases = [{ stdin = '1' }]", "cases.0.expected_stdout: is missing"),
        (
            TEXT + "cases = [{ expected_stdout = '1' }]\n[brainf]\nbase = 2\n",
            "brainf: is for brainf tasks alone.*python",
        ),
        ('name = "t"\ndescription = "t"\ncases = [{ expected_stdout = "1" }]', "reference: a solution is required"),
        (ECHO.replace("echo-one", "-echo"), "name: "),
    ],
)
def test_a_wrong_task_is_told_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=f"^t.toml: {message}"):
        parse_task(text, where="t.toml")


def findings_of(task: Task) -> list[Finding]:
    def score(sources: Any) -> list[Score]:
        scores = score_brainf(task, [source.encode() for source in sources])
        return [scores.score(row) for row in range(len(scores))]

    return check_task(task, vocabulary_text=load_vocabulary_text(""), max_tokens=task.max_tokens, score=score)


@pytest.mark.parametrize("reference", PAPER + LONG)
def test_a_task_of_the_packs_is_sound(reference: str) -> None:
    task, _ = load_task(reference)
    findings = findings_of(task)
    assert [finding for finding in findings if not finding.ok] == []
    assert any("no reference" in finding.name for finding in findings) == (not task.reference)
    assert (task.max_tokens, task.budget) == (40, 500_000)


def test_the_packs_hold_the_published_tasks_and_longer_ones() -> None:
    assert len(PAPER) == 26
    assert len(LONG) == 24
    for reference in LONG:
        name = reference.partition("/")[2]
        longer, published = load_task(reference)[0], load_task(f"brainf/{name}")[0]
        assert longer.cases[: len(published.cases)] == published.cases
        assert longer.held_out == published.held_out
        assert len(longer.cases) == 64
        added = {case.input for case in longer.cases[len(published.cases) :]}
        assert len(added) == 64 - len(published.cases)
        assert not added & {case.input for case in (*published.cases, *published.held_out)}


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"reference": ",,."}, "the reference solves every case"),
        ({"reference": "]"}, "the grammar accepts the reference"),
        ({"reference": ", ."}, "the vocabulary expresses the reference"),
        ({"held_out": []}, "a task with input has held-out cases"),
        ({"held_out": [{"input": [3], "expected": [3]}]}, "some held-out inputs are new"),
        ({"cases": [{"input": [3], "expected": []}]}, "the empty program does not solve it"),
    ],
)
def test_an_unsound_task_is_told_what_is_wrong(changes: dict[str, Any], failed: str) -> None:
    task = Task.model_validate(json.loads(json.dumps(parse_task(ECHO, where="t").model_dump() | changes)))
    assert failed in {finding.name for finding in findings_of(task) if not finding.ok}
