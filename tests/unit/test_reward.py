"""The reward against a slow, literal reading of its definition, and the promises that learning rests on."""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from altlas.config.sections import RewardSection
from altlas.core.program import Execution, ProgramStatus
from altlas.core.reward import (
    COMPARED_CHARACTERS,
    ignores_input,
    is_exact,
    normalise,
    resolve_weights,
    score_executions,
    similarity,
    trend,
)
from altlas.core.task import Case, RewardOverrides, Task
from altlas.errors import ConfigError, SandboxError

SETTINGS = RewardSection()
WITHOUT_TREND = RewardSection(trend=0)
OWN_FAILURES = [status for status in ProgramStatus if status is not ProgramStatus.SANDBOX_ERROR]


def make_task(*expected: str, held_out: tuple[str, ...] = (), reward: RewardOverrides | None = None) -> Task:
    return Task(
        name="sample",
        description="",
        reference="print()",
        cases=tuple(Case(stdin=str(n), expected_stdout=text) for n, text in enumerate(expected)),
        held_out=tuple(Case(expected_stdout=text) for text in held_out),
        reward=reward or RewardOverrides(),
    )


def printed(*outputs: str, status: ProgramStatus = ProgramStatus.OK) -> list[Execution]:
    return [Execution(status=status, stdout=output.encode()) for output in outputs]


def slow_distance(a: str, b: str) -> int:
    """Levenshtein distance by its recurrence."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        previous, row = row, [i]
        for j, right in enumerate(b, start=1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (left != right)))
    return row[-1]


def slow_similarity(output: str, expected: str) -> float:
    if output == expected:
        return 1.0
    if output == "" or expected == "":
        return 0.0
    text = 1 - slow_distance(output, expected) / max(len(output), len(expected))
    try:
        got, wanted = [Fraction(word) for word in output.split()], [Fraction(word) for word in expected.split()]
    except ValueError:
        return min(text, 0.99)
    if len(got) != len(wanted):
        return min(text, 0.99)
    closeness = [float(1 / (1 + abs(a - e) / max(1, abs(e)))) for a, e in zip(got, wanted, strict=True)]
    return min((text + sum(closeness) / len(closeness)) / 2, 0.99)


def slow_trend(outputs: list[str], wanted: list[str]) -> float | None:
    """1 - sqrt(1 - r^2), r from its sums in exact arithmetic."""

    def numbers(texts: list[str]) -> list[Fraction] | None:
        found = [re.fullmatch(r"([+-]?[0-9]{1,15})([.][0-9]{1,15})?", text) for text in texts]
        return [Fraction(match[0]) for match in found if match] if all(found) else None

    got, expected, n = numbers(outputs), numbers(wanted), len(wanted)
    if n < 3 or expected is None or len(set(expected)) == 1:
        return None
    if got is None or len(set(got)) == 1:
        return 0.0
    covariance = n * sum(a * b for a, b in zip(got, expected, strict=True)) - sum(got) * sum(expected)
    spread = (n * sum(a * a for a in got) - sum(got) ** 2) * (n * sum(b * b for b in expected) - sum(expected) ** 2)
    return 1 - math.sqrt(1 - covariance**2 / spread)


def slow_reward(task: Task, executions: list[Execution], settings: RewardSection) -> float:
    total = settings.syntax + settings.runs + settings.similarity + settings.exact
    reward, passed = 0.0, 0
    outputs = ["" if item.status == "timeout" else item.stdout.decode().rstrip() for item in executions]
    wanted = [case.expected_stdout.rstrip() for case in task.cases]
    for execution, output, expected in zip(executions, outputs, wanted, strict=True):
        exact = execution.status == "ok" and output == expected
        passed += exact
        reward += settings.syntax * (execution.status != "syntax_error") / total / len(executions)
        reward += settings.runs * (execution.status == "ok") / total / len(executions)
        reward += settings.similarity * slow_similarity(output, expected) / total / len(executions)
        reward += settings.exact * exact / total / len(executions)
    followed = slow_trend(outputs, wanted)
    if followed is not None:
        followed *= all(execution.status == "ok" for execution in executions)
        reward = (total * reward + settings.trend * followed) / (total + settings.trend)
    if passed == len(executions):
        return 1.0
    if len(set(outputs)) == 1 and len(set(wanted)) > 1:
        reward = min(reward, settings.constant_cap)
    return min(reward, 0.99)


LINES = st.one_of(
    st.text("ab 1-\n", max_size=8),
    st.integers(-10_000, 10_000).map(str),
    st.lists(st.integers(0, 99), min_size=2, max_size=3).map(lambda numbers: " ".join(map(str, numbers))),
)
NUMBERS = st.one_of(
    st.integers(-9, 9).map(str),
    st.integers(-(10**15) + 1, 10**15 - 1).map(str),
    st.decimals(-1000, 1000, places=2).map(str),
)
CASES = st.one_of(
    st.lists(st.tuples(LINES, LINES, st.sampled_from(OWN_FAILURES)), min_size=1, max_size=4),
    st.lists(st.tuples(NUMBERS, NUMBERS, st.just(ProgramStatus.OK)), min_size=2, max_size=6),
    st.lists(st.tuples(NUMBERS, NUMBERS, st.sampled_from(OWN_FAILURES)), min_size=3, max_size=3),
)
WEIGHTS = st.floats(0, 1, allow_subnormal=False)


@st.composite
def reward_sections(draw: st.DrawFn) -> RewardSection:
    names = ("syntax", "runs", "similarity", "exact")
    weights = {name: draw(WEIGHTS) for name in names}
    if sum(weights.values()) < 1e-6:
        weights["exact"] = 1.0
    return RewardSection(**weights, trend=draw(WEIGHTS), constant_cap=draw(WEIGHTS))


@given(cases=CASES, settings=reward_sections())
def test_reward_is_its_definition(cases: list[tuple[str, str, ProgramStatus]], settings: RewardSection) -> None:
    task = make_task(*(expected for expected, _, _ in cases))
    executions = [Execution(status=status, stdout=output.encode()) for _, output, status in cases]
    score = score_executions(task, executions, settings)
    assert score.reward == pytest.approx(slow_reward(task, executions, settings), abs=1e-9)
    assert 0.0 <= score.reward <= 1.0
    assert (score.reward == 1.0) == score.solved
    assert score.solved == (score.cases_passed == score.cases == len(cases))
    for reward, execution, case in zip(score.case_rewards, executions, task.cases, strict=True):
        alone = make_task(case.expected_stdout)
        assert reward == pytest.approx(slow_reward(alone, [execution], settings), abs=1e-9)
        assert (reward == 1.0) == is_exact(execution, case)


@given(st.text("abc \n09.-", max_size=12), st.text("abc \n09.-", max_size=12))
def test_similarity_is_one_for_equals_alone(output: str, expected: str) -> None:
    value = similarity(output, expected)
    assert 0.0 <= value <= 1.0
    assert (value == 1.0) == (output == expected)


def test_similarity_grows_on_the_way_to_the_answer() -> None:
    steps = ["", "x", "h", "hello", "hello wor", "hello world"]
    values = [similarity(step, "hello world") for step in steps]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert values[-1] == 1.0


def test_nearer_number_is_better_though_its_text_is_no_nearer() -> None:
    assert similarity("14", "15") > similarity("94", "955") > 0
    assert similarity("14", "15") > similarity("85", "15")


def test_long_outputs_are_compared_by_their_beginning_and_length() -> None:
    expected = "abcdefgh" * (COMPARED_CHARACTERS // 4)
    assert similarity(expected[:-1], expected) > 0.9
    assert similarity("a" * 1_000_000, "abc") < 1e-4
    assert similarity(expected * 4, expected) == pytest.approx(0.25)


def test_trailing_white_space_does_not_count_and_leading_does() -> None:
    task = make_task("a\nb\n")
    assert score_executions(task, printed("a\nb  \n\n"), SETTINGS).solved
    assert not score_executions(task, printed(" a\nb"), SETTINGS).solved


def test_right_output_of_a_failed_program_is_not_exact() -> None:
    task = make_task("a")
    for status in OWN_FAILURES:
        (execution,) = printed("a", status=status)
        assert is_exact(execution, task.cases[0]) == (status is ProgramStatus.OK)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=8))
@example([("100000000000000", "1"), ("100000000000001", "2"), ("100000000000002", "3")])  # r^2 would lose all digits
@example([("0.1", "1"), ("0.1", "2"), ("0.1", "3")])  # whose mean is not 0.1
@example([("1", "0.1"), ("2", "0.1"), ("4", "0.1")])
def test_trend_is_its_definition(pairs: list[tuple[str, str]]) -> None:
    outputs, expected = [output for output, _ in pairs], [wanted for _, wanted in pairs]
    value = trend(outputs, expected)
    assert value == pytest.approx(slow_trend(outputs, expected), abs=1e-7)
    assert value is None or 0.0 <= value <= 1.0


@pytest.mark.parametrize(
    "expected",
    [
        ("1", "2"),
        ("7", "7", "7"),
        ("7", "7.0", "+7"),
        ("1", "2", "three"),
        ("1", "2", "3 apples"),
        ("1", "2", "3 4"),
        ("1", "2", ""),
        ("1", "2", "1" * 16),
    ],
)
def test_without_numbers_to_follow_the_weight_of_trend_is_left_out(expected: tuple[str, ...]) -> None:
    task, executions = make_task(*expected), printed(*("1" * n for n in range(1, len(expected) + 1)))
    score = score_executions(task, executions, SETTINGS)
    assert set(score.components) == {"syntax", "runs", "similarity", "exact"}
    assert score == score_executions(task, executions, WITHOUT_TREND)


@pytest.mark.parametrize(
    ("outputs", "value"),
    [
        (("2", "4", "6"), 1.0),
        (("-1", "-2", "-3.0\n"), 1.0),
        (("101", "102", "103"), 1.0),
        (("1", "2", "1"), 0.0),
        (("5", "5", "5"), 0.0),
        (("5", "5.0", "+5"), 0.0),
        (("1", "2", ""), 0.0),
        (("1", "2", "3 4"), 0.0),
        (("1", "2", "inf"), 0.0),
        (("1", "2", "nan"), 0.0),
        (("1", "2", "9" * 5000), 0.0),
        (("1", "2", "1e300"), 0.0),
    ],
)
def test_trend_is_of_numbers_that_move_with_the_expected(outputs: tuple[str, ...], value: float) -> None:
    score = score_executions(make_task("1", "2", "3"), printed(*outputs), SETTINGS)
    assert score.components["trend"] == pytest.approx(value, abs=1e-12)
    assert 0 <= score.reward < 1


def test_a_failed_execution_has_no_trend() -> None:
    task = make_task("1", "2", "3")
    for status in OWN_FAILURES:
        executions = [*printed("1", "2"), *printed("3", status=status)]
        assert score_executions(task, executions, SETTINGS).components["trend"] == (status is ProgramStatus.OK)


@given(cases=CASES, own=st.sampled_from([None, 0.0, 0.5]), settings=reward_sections())
def test_trend_moves_neither_case_rewards_nor_what_else_a_score_says(
    cases: list[tuple[str, str, ProgramStatus]], own: float | None, settings: RewardSection
) -> None:
    expected = [wanted for _, wanted, _ in cases]
    executions = [Execution(status=status, stdout=output.encode()) for output, _, status in cases]
    score = score_executions(make_task(*expected, reward=RewardOverrides(trend=own)), executions, settings)
    without = score_executions(make_task(*expected), executions, settings.model_copy(update={"trend": 0.0}))
    assert dataclasses.replace(score, reward=0.0) == dataclasses.replace(without, reward=0.0)
    if own == 0:
        assert score.reward == without.reward


def test_without_weight_on_trend_the_reward_is_that_of_the_cases() -> None:
    score = score_executions(make_task("1", "2", "3"), printed("1", "2", "33"), WITHOUT_TREND)
    close = (0.5 + 1 / 11) / 2
    assert score.reward == pytest.approx(0.05 + 0.15 + 0.4 * (1 + 1 + close) / 3 + 0.4 * 2 / 3)


@pytest.mark.parametrize(
    ("expected", "grows", "fitted"),
    [
        ("5 8 11 17 23 32", "1 2 3 5 7 10", "5 8 2 5 17 8"),  # 3n + 2 as n
        ("1 3 6 15 28 55", "1 4 9 25 49 100", "1 7 7 25 25 55"),  # 1 + ... + n as n * n, and as 655 % (n * 6)
    ],
)
def test_what_grows_as_it_should_outranks_constants_that_fit_more_cases(expected: str, grows: str, fitted: str) -> None:
    def rewards(settings: RewardSection) -> list[float]:
        task = make_task(*expected.split())
        return [score_executions(task, printed(*outputs.split()), settings).reward for outputs in (grows, fitted)]

    better, worse = rewards(SETTINGS)
    assert better > worse
    better, worse = rewards(WITHOUT_TREND)
    assert better < worse


def test_constant_output_is_capped_where_expectations_differ() -> None:
    task = make_task("1", "2", "1")
    assert score_executions(task, printed("1", "1", "1"), SETTINGS).reward == SETTINGS.constant_cap
    assert score_executions(task, printed("1", "3", "1"), SETTINGS).reward > SETTINGS.constant_cap
    assert score_executions(make_task("1", "1"), printed("1", "1"), SETTINGS).reward == 1.0
    assert not ignores_input(["1"], ["1"])


def test_a_task_s_own_settings_go_first() -> None:
    task = make_task("ab", reward=RewardOverrides(syntax=0, runs=0, similarity=1, exact=1, constant_cap=0.5))
    weights = resolve_weights(task, SETTINGS)
    assert dataclasses.asdict(weights) == {
        "syntax": 0.0,
        "runs": 0.0,
        "similarity": 0.5,
        "exact": 0.5,
        "trend": pytest.approx(1 / 3),
        "constant_cap": 0.5,
    }
    assert score_executions(task, printed("ax"), SETTINGS).reward == 0.25


def test_weights_that_are_all_zero_are_refused() -> None:
    task = make_task("a", reward=RewardOverrides(syntax=0, runs=0, similarity=0, exact=0))
    with pytest.raises(ConfigError, match="all 0"):
        score_executions(task, printed("a"), SETTINGS)


def test_unsolved_never_reaches_one_even_without_weight_on_exact() -> None:
    task = make_task("a", reward=RewardOverrides(syntax=1, runs=0, similarity=0, exact=0))
    score = score_executions(task, printed("b"), SETTINGS)
    assert score.reward < 1.0
    assert not score.solved


def test_components_are_means_over_cases() -> None:
    task = make_task("ab", "cd")
    executions = [*printed("ab"), Execution(status=ProgramStatus.RUNTIME_ERROR, stderr=b"x\nValueError: no\n\n")]
    score = score_executions(task, executions, SETTINGS)
    assert score.components == {"syntax": 1.0, "runs": 0.5, "similarity": 0.5, "exact": 0.5}
    assert (score.status, score.error) == (ProgramStatus.RUNTIME_ERROR, "ValueError: no")
    assert (score.cases_passed, score.cases) == (1, 2)
    assert math.isclose(score.reward, 0.05 + 0.15 / 2 + 0.4 / 2 + 0.4 / 2)


def test_verified_takes_the_held_out_cases_and_the_reward_does_not() -> None:
    task = make_task("1", "2", held_out=("3",))
    solved = printed("1", "2")
    assert not score_executions(task, solved, SETTINGS).verified
    failed = score_executions(task, solved, SETTINGS, held_out=printed("4"))
    passed = score_executions(task, solved, SETTINGS, held_out=printed("3\n"))
    assert (failed.verified, passed.verified) == (False, True)
    assert failed.reward == passed.reward == 1.0
    assert score_executions(make_task("1"), printed("1"), SETTINGS).verified


def test_fault_of_the_sandbox_is_never_scored() -> None:
    fault = Execution(status=ProgramStatus.SANDBOX_ERROR, stderr=b"the launcher died")
    task = make_task("1", "2", held_out=("3",))
    with pytest.raises(SandboxError, match="the launcher died"):
        score_executions(task, [*printed("1"), fault], SETTINGS)
    with pytest.raises(SandboxError, match="the launcher died"):
        score_executions(task, printed("1", "2"), SETTINGS, held_out=[fault])


def test_one_execution_per_case_is_demanded() -> None:
    with pytest.raises(ValueError, match="1 executions for 2 cases"):
        score_executions(make_task("1", "2"), printed("1"), SETTINGS)


def test_behaviour_names_statuses_and_outputs() -> None:
    task = make_task("1", "2")
    behaviours = [
        score_executions(task, executions, SETTINGS).behaviour
        for executions in (
            printed("1", "2"),
            printed("1\n", "2"),
            printed("12", ""),
            printed("1", "2", status=ProgramStatus.RUNTIME_ERROR),
        )
    ]
    assert [len(behaviour) for behaviour in behaviours] == [16] * 4
    assert behaviours[0] == behaviours[1]
    assert len(set(behaviours)) == 3


def test_how_far_a_program_came_in_its_time_does_not_count() -> None:
    task = make_task("1 2 3 4")
    scores = [
        score_executions(task, printed(output, status=ProgramStatus.TIMEOUT), SETTINGS)
        for output in ("", "1 2", "1 2 3 4", "1 2 3 4 5")
    ]
    assert len({(score.reward, score.behaviour, score.case_rewards) for score in scores}) == 1


def test_addresses_do_not_count() -> None:
    assert normalise(b"<function f at 0x7f01>\n") == normalise(b"<function f at 0x55aa>")
    assert normalise(b"0x7f01") == "0x7f01"


def test_output_that_is_not_text_is_scored() -> None:
    score = score_executions(make_task("a"), [Execution(status=ProgramStatus.OK, stdout=b"\xff\xfe")], SETTINGS)
    assert score.reward == pytest.approx(0.2)
