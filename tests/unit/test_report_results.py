"""The file of results: what goes in comes out, a torn line is repaired and said, what is wrong names its line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from comparisons import make_row, unsolved
from hypothesis import given
from hypothesis import strategies as st

from altlas.errors import ConfigError
from altlas.report.results import ResultsFile, Row, check_labels, read_results

TEXT = st.text(max_size=30)
ROWS = st.builds(
    make_row,
    task=st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1),
    seed=st.integers(0, 2**63 - 1),
    programs_to_solve=st.one_of(st.none(), st.integers(1, 10**9)),
    solved=st.booleans(),
    best_reward=st.floats(-2, 1),
    program=st.text(max_size=30),
    shrunk_program=st.text(max_size=30),
)


def fail(text: str) -> None:
    raise AssertionError(text)


@given(st.lists(ROWS, max_size=4, unique_by=lambda row: row.key))
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    path = tmp_path_factory.mktemp("results") / "deep" / "er.csv"
    with ResultsFile(path, say=fail) as results:
        for row in rows:
            results.append(row)
    assert read_results(path) == rows
    assert path.read_bytes().count(b"\n") == len(rows) + 1
    with ResultsFile(path, say=fail) as results:
        assert results.rows == rows


@pytest.mark.parametrize("kept", [1, 10, -1])
def test_a_torn_last_line_is_taken_away_loudly(tmp_path: Path, kept: int) -> None:
    path, first, second = tmp_path / "name.csv", make_row(), make_row(seed=2)
    with ResultsFile(path, say=fail) as results:
        results.append(first)
        whole = path.read_bytes()
        results.append(second)
    path.write_bytes(whole + path.read_bytes()[len(whole) :][:kept])
    said: list[str] = []
    with ResultsFile(path, say=said.append) as results:
        assert results.rows == [first]
        results.append(second)
    assert "name.csv: the last line had been cut short" in said[0]
    assert read_results(path) == [first, second]


def test_a_torn_header_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "name.csv"
    path.write_text("task,algo")
    with ResultsFile(path, say=lambda text: None) as results:
        assert results.rows == []
    assert read_results(path) == []


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    with (
        ResultsFile(tmp_path / "name.csv", say=fail),
        pytest.raises(ConfigError, match="another `altlas bench`"),
        ResultsFile(tmp_path / "name.csv", say=fail),
    ):
        pass


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("task,algorithm", "task,method", "give another --name"),
        (",1000,", ",many,", r"name\.csv:2: 'many' is no budget"),
        (",256,1,", ",256,yes,", r"name\.csv:2: 'yes' is no solved"),
        (",256,1,", ",256,", r"name\.csv:2: 19 values, not 20"),
    ],
)
def test_what_is_wrong_names_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "name.csv"
    with ResultsFile(path, say=fail) as results:
        results.append(make_row())
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        read_results(path)


def test_a_run_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "name.csv"
    with ResultsFile(path, say=fail) as results:
        results.append(make_row())
        results.append(make_row(programs=12))
    with pytest.raises(ConfigError, match=r"name\.csv:3: the same run as line 2"):
        read_results(path)


def test_no_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the results"):
        read_results(tmp_path / "none.csv")


def test_a_label_stands_for_one_thing() -> None:
    row = unsolved()
    check_labels([row, dataclasses.replace(row, seed=2)])
    with pytest.raises(ConfigError, match="'policy' would stand for two things"):
        check_labels([row, dataclasses.replace(row, seed=2, settings="policy;model.hidden=8")])
