"""docs/metrics.md is what the roles declare, and what they declare can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from altlas.cli.metrics_reference import declared_metrics, is_outdated, render_reference
from altlas.obs.metrics import CATALOGUE, counter, gauge

ROOT = Path(__file__).parents[2]
PAGE = render_reference()
METRICS = list(declared_metrics().values())


def test_the_page_of_the_checkout_is_up_to_date() -> None:
    assert not is_outdated(ROOT), "run `python -m altlas.cli.metrics_reference --write`"


def test_an_edited_or_missing_page_is_found(tmp_path: Path) -> None:
    assert is_outdated(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "metrics.md").write_text(PAGE + "\n", encoding="utf-8")
    assert is_outdated(tmp_path)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_on_the_page_once_with_what_it_is_and_how_to_read_it(metric) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{metric.name}` |")]
    _, _, kind, labels, what, reading, _ = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)]
    assert (kind, re.findall(r"`(\w+)`", labels)) == (metric.kind, list(metric.labels))
    assert what.endswith(".")
    assert reading.endswith(".")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_no_label_holds_what_there_is_no_end_of(metric) -> None:
    allowed = {"role", "version", "method", "code", "status", "stage", "task", "cause", "peer", "state", "outcome"}
    allowed |= {"language", "tier", "name", "phase", "device", "kind"}
    assert set(metric.labels) <= allowed


def test_a_name_that_is_taken_or_says_the_wrong_type_is_refused() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        gauge("altlas_build_info", "What.", "How.")
    with pytest.raises(ValueError, match="counters, and nothing else, end in _total"):
        counter("altlas_test_things", "What.", "How.")
    assert "altlas_test_things" not in CATALOGUE
