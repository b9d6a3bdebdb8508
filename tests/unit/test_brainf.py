"""The interpreter of brainf and its reward: the published semantics, and a slow reference on random programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brainf_reference import grade, interpret
from hypothesis import given, settings
from hypothesis import strategies as st

from altlas.config.sections import RewardSection, SandboxSection
from altlas.core.program import ProgramStatus
from altlas.core.score_batch import STATUSES
from altlas.core.task import MAX_BRAINF_STEPS, BrainfSettings, Case, Task
from altlas.errors import ConfigError
from altlas.tasks import list_tasks, load_task
from altlas_evaluator.engine import Batch, Executor
from altlas_evaluator.languages.brainf import runner
from altlas_evaluator.languages.brainf.runner import SOURCE_BYTES, run_brainf, score_brainf
from altlas_evaluator.scoring import TaskScorer

DATA = Path(__file__).parents[1] / "data"
VECTORS = json.loads((DATA / "brainf_vectors.json").read_text())["cases"]
SCORES = json.loads((DATA / "brainf_scores.json").read_text())["tasks"]
REASONS = {"ok": "success", "step_limit": "step-limit", "syntax_error": "syntax-error"}

# Mostly operations, brackets more often than by chance, and now and then a character that is none.
SOURCES = st.one_of(
    st.text(alphabet="><+-[].,", max_size=60),
    st.text(alphabet="[[]]><+-.,", max_size=60),
    st.text(alphabet="><+-[]., aé\n😀", max_size=30),
)
# What the kernel shortens: counts to 0, what comes round again, what walks right, what is done before the first input.
FRAGMENTS = st.lists(
    st.sampled_from(
        ["[-]", "[+]", "+", "-", ">", "<", "[", "]", ",", ".", "[>]", "[<]", "+[>+]", "[->+<]", "+[>,+<<]"]
    ),
    max_size=16,
).map("".join)
SOURCES = SOURCES | FRAGMENTS
BASES = st.sampled_from([1, 2, 3, 10, 27, 256, 1 << 31])
CELLS = st.one_of(st.integers(0, 5), st.integers(-300, 300), st.integers(-(1 << 63), (1 << 63) - 1))
INPUTS = st.lists(CELLS, max_size=6)


def make_task(
    cases: list[tuple[list[int], list[int]]], *, held_out: list[tuple[list[int], list[int]]] | None = None, **table: Any
) -> Task:
    return Task(
        name="t",
        description="t",
        language="brainf",
        vocabulary="brainf",
        brainf=BrainfSettings(**table),
        cases=tuple(Case(input=tuple(inputs), expected=tuple(target)) for inputs, target in cases),
        held_out=tuple(Case(input=tuple(inputs), expected=tuple(target)) for inputs, target in held_out or []),
    )


REVERSE = make_task([([1, 2], [2, 1, 0]), ([5, 6, 7], [7, 6, 5, 0])], held_out=[([9, 8, 7, 6], [6, 7, 8, 9, 0])])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["id"]))
def test_a_published_vector_comes_out_exactly(vector: dict[str, Any]) -> None:
    run = run_brainf(
        vector["program"].encode(),
        vector["input"],
        base=vector["base"],
        max_steps=vector["max_steps"],
        requires_balance=vector["require_correct_syntax"],
        memory=vector["init_memory"] or (),
    )
    expect = vector["expect"]
    assert (run.output, run.steps, run.memory) == (expect["output"], expect["steps"], expect["memory"])
    assert (run.status == "ok", REASONS[run.status]) == (expect["success"], expect["failure_reason"])


@pytest.mark.parametrize("name", SCORES)
def test_the_published_rewards_come_out(name: str) -> None:
    task, _ = load_task(f"brainf/{name}")
    sources = [program["code"].encode() for program in SCORES[name]]
    with_length = task.model_copy(update={"brainf": task.brainf.model_copy(update={"length_reward": True})})
    for graded, field in ((task, "reward"), (with_length, "reward_simplify")):
        scores = score_brainf(graded, sources)
        assert scores.rewards == pytest.approx([program[field] for program in SCORES[name]], rel=0, abs=1e-12)
        limits = [program["reason"] == "step-limit" for program in SCORES[name]]
        assert [STATUSES[status] is ProgramStatus.TIMEOUT for status in scores.statuses] == limits


@pytest.mark.parametrize("reference", [name for name in list_tasks() if name.startswith("brainf")])
def test_a_given_reference_solves_its_task(reference: str) -> None:
    task, _ = load_task(reference)
    scores = score_brainf(task, [task.reference.encode(), b""])
    assert scores.solved.tolist() == scores.verified.tolist() == [bool(task.reference), False]


@settings(deadline=None)
@given(SOURCES, INPUTS, BASES, st.integers(1, 400), st.booleans(), st.lists(CELLS, max_size=4))
def test_a_run_is_that_of_the_reference(
    source: str, inputs: list[int], base: int, max_steps: int, requires_balance: bool, memory: list[int]
) -> None:
    settings_ = {"base": base, "max_steps": max_steps, "requires_balance": requires_balance, "memory": memory}
    run = run_brainf(source.encode(), inputs, **settings_)  # type: ignore[arg-type]
    expected = interpret(source, inputs, **settings_)  # type: ignore[arg-type]
    assert (run.status, run.output, run.steps, run.memory) == (
        expected.status, expected.output, expected.steps, expected.memory,
    )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.lists(SOURCES, min_size=1, max_size=8),
    st.lists(st.tuples(INPUTS, INPUTS), min_size=1, max_size=4),
    BASES,
    st.integers(1, 400),
    st.booleans(),
)
def test_scores_are_those_of_the_reference(
    sources: list[str], cases: list[tuple[list[int], list[int]]], base: int, max_steps: int, length_reward: bool
) -> None:
    table = {"base": base, "max_steps": max_steps, "length_reward": length_reward}
    scores = score_brainf(make_task(cases, **table), [source.encode() for source in sources])
    alone = [score_brainf(make_task([case], **table), [source.encode() for source in sources]) for case in cases]
    behaviours: dict[tuple[tuple[int, ...], ...], bytes] = {}
    for row, source in enumerate(sources):
        reward, runs = grade(source, cases, **table)  # type: ignore[arg-type]
        has_ended = runs[-1].status == "ok"
        exact = [run.output == target for run, (_, target) in zip(runs, cases, strict=False) if run.status == "ok"]
        assert scores.rewards[row] == pytest.approx(reward, rel=1e-12, abs=1e-12)
        assert scores.cases_passed[row] == sum(exact)
        assert scores.solved[row] == scores.verified[row] == (sum(exact) == len(cases))
        assert STATUSES[scores.statuses[row]] is (ProgramStatus.OK if has_ended else ProgramStatus.TIMEOUT)
        by_case = [batch.case_rewards[row, 0] if case < len(exact) else -0.5 for case, batch in enumerate(alone)]
        assert scores.case_rewards[row].tolist() == by_case
        seen = tuple(tuple(run.output) if run.status == "ok" else (-1, -1) for run in runs)
        assert behaviours.setdefault(seen, scores.behaviours[row].tobytes()) == scores.behaviours[row].tobytes()
    assert len(set(behaviours.values())) == len(behaviours)


# What is done for many cases at once: lanes that part at a bracket, move and write apart, or are stopped on the way.
LOCKSTEP = [
    b",[-]", b",[.-]", b",[>+<-]>.", b",[[->+<]>-]", b",[>,]<[.<]", b",>,[<[>>+<<-]>-]>.", b",<<,[<,.]", b",+[-[,.]>,]",
    b",>,<[>[->+>+<<]>>[-<<+>>]<<<-]>>.", b",>,[<[-]>-]<.", b",>,[<[+]>[-]]<.", b",>,[<,.>[-]]<.", b",[-]+[.,]",
    b"-[.-],.[,.]", b"-[.-]-[.-]-[.-]-[.-]-[.-],.", b",[+],[-]>,.", b",-[[.]-]", b",---[>,[>]+<]", b",[->,.[<]>]",
    b">,[[-<+>],.>]<.", b",[>,]<[.-]", b",+.", b",-.",
]  # fmt: skip


def test_cases_are_scored_together_as_each_is_alone() -> None:
    draw = np.random.default_rng(3)
    fragments = ["[-]", "[", "]", "[", "]", "+", "-", ">", "<", ",", ",", ".", "[>]", "[<]", "[->+<]"]
    sources = LOCKSTEP + [",".join("".join(draw.choice(fragments, 9)) for _ in range(2)).encode() for _ in range(200)]
    cases = [(draw.integers(0, 9, draw.integers(0, 5)).tolist(), draw.integers(0, 9, 3).tolist()) for _ in range(36)]
    cases[10], cases[20] = ([19], [19]), ([200, 3, 250], [200] * 4)
    cases[30:34] = [([value], [0]) for value in (-2, 300, (1 << 63) - 1, -(1 << 63))]
    ok = STATUSES.index(ProgramStatus.OK)
    for max_steps in (40, 5000):  # of ,[-] on 19, which are just too many, and the usual
        together = score_brainf(make_task(cases, max_steps=max_steps), sources)
        alone = [score_brainf(make_task([case], max_steps=max_steps), sources) for case in cases]
        has_ended = np.stack([batch.statuses == ok for batch in alone])
        graded = np.where(has_ended.all(axis=0), len(cases), has_ended.argmin(axis=0))
        assert len(np.unique(graded)) > 5
        for row, count in enumerate(graded.tolist()):
            expected = [batch.case_rewards[row, 0] for batch in alone[:count]] + [-0.5] * (len(cases) - count)
            assert together.case_rewards[row].tolist() == expected, sources[row]
            assert together.cases_passed[row] == sum(batch.cases_passed[row] for batch in alone[:count])
    padded = score_brainf(make_task(cases), [source + b" " * 1100 for source in sources])  # too long to be run together
    both = (padded.statuses == ok) & (together.statuses == ok)
    assert both.sum() > 50
    assert (padded.behaviours[both] == together.behaviours[both]).all()
    assert (padded.rewards[both] == together.rewards[both]).all()


def test_behaviours_are_what_users_have_stored() -> None:
    cases = [([value, 2], [value]) for value in range(5)]
    scores = score_brainf(make_task(cases), [b"", b",.", b",[.-]", b">,[>,]<[.<].", b",[,]+[]", b",[-[]]"])
    assert [behaviour.tobytes().hex() for behaviour in scores.behaviours] == [
        "f52bee0154f4c2f83e03322af3baf214",
        "9158aa647f545c0b1768dae70194b96d",
        "bd2ef1bec85926a8b7ec4ca586e18ae1",
        "97143702945e23ac882064aa82f924d8",
        "cd094ba416b71232def9cc881437f4db",
        "021592eb2719e78aa7c0fe126fc7e687",
    ]


@pytest.mark.parametrize(
    ("source", "is_endless"),
    [
        (b"+[]", True),
        (b"+[<]", True),
        (b"+[.+-]", True),
        (b"+[>+[<]<+-]", True),
        (b"+[+]", False),  # 256 turns, and it wraps
        (b"+[>+]", True),  # never the same state twice
        (b"+[->+<]>[-<+>]<[->+<]", False),
        (b"+[>,]", False),
    ],
)
def test_a_loop_is_cut_short_only_where_it_would_never_end(source: bytes, is_endless: bool) -> None:
    scores = score_brainf(make_task([([1], [1])]), [source])
    run = run_brainf(source, [1], base=256, max_steps=5000)
    assert (STATUSES[scores.statuses[0]] is ProgramStatus.TIMEOUT) == is_endless == (run.status == "step_limit")


def test_the_limit_of_steps_is_one_more_than_a_program_may_take() -> None:
    assert run_brainf(b"." * 4999, [], base=256, max_steps=5000).status == "ok"
    assert run_brainf(b"." * 5000, [], base=256, max_steps=5000).status == "step_limit"


def test_a_program_that_fails_on_a_held_out_case_is_solved_and_not_verified() -> None:
    scores = score_brainf(REVERSE, [b">,[>,]<[.<].", b">,>,>,>,<[.<]<.", b","])
    assert (scores.solved.tolist(), scores.verified.tolist()) == ([True, False, False], [True, False, False])
    only_short = make_task([([1], [1])], held_out=[([1, 2], [1, 2])])
    assert score_brainf(only_short, [b",."]).score(0).verified is False


def test_a_character_is_a_step_however_many_bytes_it_has() -> None:
    assert run_brainf("é€😀.".encode(), [], base=256, max_steps=100).steps == 4
    assert run_brainf(b"\xff\xfe.", [], base=256, max_steps=100).output == [0]
    long = make_task([([], [0])], length_reward=True)
    assert score_brainf(long, ["é".encode() * 49 + b"."]).rewards[0] == pytest.approx((1 + 2 + 0.5) / 4)


def test_what_is_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="base = 0 is out of range"):
        run_brainf(b"", [], base=0, max_steps=10)
    with pytest.raises(ConfigError, match="max_steps"):
        run_brainf(b"", [], base=2, max_steps=MAX_BRAINF_STEPS + 1)
    with pytest.raises(ConfigError, match="brainf programs have"):
        score_brainf(REVERSE, [b"", b"+" * (SOURCE_BYTES + 1)])
    with pytest.raises(ValueError, match="no programs"):
        score_brainf(REVERSE, [])


def test_scores_do_not_depend_on_how_the_work_is_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1).integers(0, 8, (50, 20))
    sources = ["".join("><+-[].,"[op] for op in row).encode() for row in draw] + [b">,[>,]<[.<]."]
    whole = score_brainf(REVERSE, sources)
    monkeypatch.setattr(runner, "_STEPS_PER_CALL", 3 * 2 * 5000)
    parted = score_brainf(REVERSE, sources)
    assert (whole.rewards == parted.rewards).all()
    assert (whole.behaviours == parted.behaviours).all()
    assert parted.verified.tolist() == [False] * 50 + [True]


def test_a_cancelled_batch_ends_the_work() -> None:
    with Executor(SandboxSection(slots=1)) as executor:
        batch = Batch(executor)
        scorer = TaskScorer(batch, RewardSection())
        assert scorer.score(REVERSE, [b"", b">,[>,]<[.<]."])[1].reward == 1.0
        batch.cancel()
        with pytest.raises(CancelledError):
            scorer.score_batch(REVERSE, [b""])


def test_it_works_where_nothing_can_be_cached() -> None:
    code = (
        "import logging; logging.basicConfig(level=logging.INFO)\n"
        "from altlas_evaluator.languages.brainf import runner\n"
        "runner._PATIENCE_S = 0.0\n"
        "print(runner.run_brainf(b',.', [7], base=256, max_steps=10).output)"
    )
    environment = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout == "[7]\n"
    assert done.stderr.count("compiling the brainf interpreter") == 1


def test_without_numba_the_error_names_what_to_install() -> None:
    code = """
import sys
sys.modules["numba"] = None
from altlas.errors import ConfigError, TaskError
from altlas.tasks import load_task
from altlas_evaluator.languages.brainf.runner import run_brainf
try:
    run_brainf(b"", [], base=2, max_steps=2)
except ConfigError as error:
    print(error)
try:
    load_task("brainf/add", languages=["python"])
except TaskError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("pip install 'altlas[brainf]'") == 2
