"""The report of a comparison: tables that say what the rows say, plots that are equal for equal rows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from xml.etree import ElementTree

import pytest
from comparisons import make_row, unsolved

from altlas.errors import ConfigError
from altlas.report.groups import Comparison
from altlas.report.markdown import render
from altlas.report.plots import draw

OTHER = {"algorithm": "a|b", "settings": "random;x.y=1"}
COMPARISON = Comparison(
    (
        *(make_row(seed=seed, programs_to_solve=100 * seed) for seed in (1, 2, 3)),
        *(make_row(seed=seed, programs_to_solve=250, verified=False, **OTHER) for seed in (1, 2)),
        unsolved(seed=3, **OTHER),
        make_row(task="stdin/echo", programs_to_solve=7),
        unsolved(task="stdin/echo", commit="0123456789abcdef", **OTHER),
    )
)


def test_the_page_says_what_the_rows_say() -> None:
    page = render(COMPARISON, name="demo", plots=["demo.svg", "demo-stdin-echo.svg"])
    for line in (
        "| basics/hello_world | 1,000 | policy | 3/3 | 44% to 100% | 3/3 | 200 | 150 to 250 | 3.2 |",
        "| basics/hello_world | 1,000 | a\\|b | 2/3 | 21% to 94% | 0/3 | 250 | 250 to ≥ 625 | 3.2 |",
        "| stdin/echo | 1,000 | a\\|b | 0/1 | 0% to 79% | 0/1 | ≥ 1,000 | ≥ 1,000 to ≥ 1,000 | 3.2 |",
        "| **all** |  | policy | 4/4 | 51% to 100% | 4/4 |  |  | 3.2 |",
        "| policy | a\\|b | 4 | 4 | 0 | 0 | 0 |",
        "| a\\|b | `random;x.y=1` |",
        "![fraction solved against programs run](demo.svg)",
    ):
        assert f"\n{line}\n" in page, line
    assert "**not all of the same code**" in page
    assert "altlas 0.1.0 at `0123456789ab`" in page
    assert "ga_archive" not in page


@pytest.mark.parametrize(
    ("policy", "control", "ratio"),
    [
        ([100, 200, 400], [50, 80, 600], "2.50"),
        ([10, 30], [100, 200], "0.13"),
        ([100, None, None], [50, 80, 600], "≥ 12.50"),
        ([100, 200, 400], [None, None, 5], "≤ 0.20"),
        ([None, 100], [None, 100], ""),
        ([100], [], ""),
    ],
)
def test_a_median_is_compared_with_the_controls(
    policy: list[int | None], control: list[int | None], ratio: str
) -> None:
    rows = [
        (unsolved if needed is None else make_row)(
            seed=seed, algorithm=label, settings=label, programs_to_solve=needed, verified=False
        )
        for label, runs in (("policy", policy), ("ga_archive", control))
        for seed, needed in enumerate(runs)
    ]
    elsewhere = make_row(task="stdin/echo", algorithm="ga_archive", settings="ga_archive", programs_to_solve=7)
    page = render(Comparison((*rows, elsewhere)), name="demo", plots=[])
    header, line = (
        [cell.strip() for cell in next(line for line in page.splitlines() if line.startswith(start)).split("|")]
        for start in ("| task |", "| basics/hello_world | 1,000 | policy |")
    )
    assert dict(zip(header, line, strict=True))["of ga_archive"] == ratio
    assert "| 7 | 7 to 7 | 3.2 | 1.00 |" in page
    assert "*Of ga_archive* is" in page


def test_plots_are_equal_for_equal_rows_and_one_a_task(tmp_path: Path) -> None:
    names = draw(COMPARISON, tmp_path, name="demo")
    assert names == ["demo.svg", "demo-basics-hello_world.svg", "demo-stdin-echo.svg"]
    first = {name: (tmp_path / name).read_bytes() for name in names}
    assert draw(Comparison(tuple(COMPARISON.rows)), tmp_path, name="demo") == names
    assert {name: (tmp_path / name).read_bytes() for name in names} == first
    for content in first.values():
        assert ElementTree.fromstring(content).tag.endswith("svg")
        assert b"<dc:date>" not in content


def test_a_task_with_two_budgets_has_two_plots(tmp_path: Path) -> None:
    names = draw(Comparison((make_row(), make_row(budget=2000))), tmp_path, name="two")
    assert names[1:] == ["two-basics-hello_world-1000.svg", "two-basics-hello_world-2000.svg"]


def test_without_matplotlib_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    with pytest.raises(ConfigError, match=r"pip install altlas\[report\]"):
        draw(COMPARISON, tmp_path, name="demo")
