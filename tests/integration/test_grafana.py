"""The Grafana dashboards: their form, and that a run gives every panel something to show."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from scraped_run import ScrapedRun, scraped_run

from altlas.cli.metrics_reference import render_reference
from altlas.obs.metrics import CATALOGUE

GRAFANA = Path(__file__).parents[2] / "deploy/grafana"
SCHEMA = json.loads((GRAFANA / "schema/dashboard.schema.json").read_text())
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}
# Only where there is a GPU.
DEVICE_METRICS = "altlas_device_"
VARIABLES = {"$__rate_interval": "5s", "$__range": "60s", "$task": ".*", "$instance": ".*"}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def references(node: Any) -> Iterator[dict[str, str]]:
    """Every reference to a datasource in a piece of a dashboard."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "datasource":
                yield value
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def reason(error: jsonschema.ValidationError) -> str:
    """What is wrong; of a panel, with the kind of panel that it comes nearest to."""
    while error.context:
        kinds = Counter(inner.schema_path[0] for inner in error.context)
        nearest = min(kinds, key=kinds.__getitem__)
        error = next(inner for inner in error.context if inner.schema_path[0] == nearest)
    return f"{error.json_path}: {error.message}"


def resolved(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    # $1 is what label_replace has found.
    assert not re.search(r"\$[^1]", expression), f"{expression}: a variable that nothing sets"
    return expression


@pytest.fixture(params=DASHBOARDS)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    return DASHBOARDS[request.param]


@pytest.fixture(scope="module")
def datasource() -> dict[str, Any]:
    """The one that is provisioned."""
    (found,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    return found


def test_the_four_dashboards_are_what_the_code_makes():
    assert set(DASHBOARDS) == {"evaluators", "health", "learning", "pipeline"}
    done = subprocess.run([sys.executable, GRAFANA / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_dashboard_fits_grafanas_schema(dashboard: dict[str, Any]):
    assert not [reason(error) for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(dashboard)]


def test_the_schema_refuses_what_grafana_does_not_know():
    wrong = json.loads(json.dumps(DASHBOARDS["learning"]))
    panels(wrong)[0]["options"]["colourMode"] = "value"
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(wrong)


def test_the_schema_is_that_of_the_grafana_that_is_started():
    compose = (GRAFANA.parents[1] / "docker-compose.yml").read_text()
    assert f"grafana/{SCHEMA['$id'].replace('-', ':')}" in compose, "docs/dashboards.md says how to make the schema"


def test_every_panel_asks_the_provisioned_datasource(dashboard: dict[str, Any], datasource: dict[str, Any]):
    expected = {"type": datasource["type"], "uid": datasource["uid"]}
    assert all(reference == expected for reference in references(dashboard))
    for panel in panels(dashboard):
        assert panel["datasource"] == expected, panel["title"]
        assert all(target["datasource"] == expected for target in panel["targets"]), panel["title"]


def test_the_rate_interval_follows_the_scrape_interval(datasource: dict[str, Any]):
    prometheus = yaml.safe_load((GRAFANA.parent / "prometheus/prometheus.yml").read_text())
    assert datasource["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]


def test_every_panel_says_what_it_shows(dashboard: dict[str, Any]):
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert all(titles)
    for panel in panels(dashboard):
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"].get("unit"), panel["title"]
        several = panel["type"] == "timeseries" and len(panel["targets"]) > 1
        assert not several or all(target["legendFormat"] != "__auto" for target in panel["targets"]), panel["title"]


def test_no_panel_lies_on_another(dashboard: dict[str, Any]):
    cells: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        columns, lines = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        for cell in itertools.product(columns, lines):
            assert cell not in cells, f"{panel['title']} lies on {cells[cell]}"
            cells[cell] = panel["title"]
    # Without holes either: each line is used from end to end.
    assert len(cells) % 24 == 0


def test_uids_and_titles_are_nobody_elses():
    assert len({board["uid"] for board in DASHBOARDS.values()}) == len(DASHBOARDS)
    assert len({board["title"] for board in DASHBOARDS.values()}) == len(DASHBOARDS)


def test_what_only_a_gpu_shows_is_published():
    render_reference()  # imports what declares metrics
    expressions = [
        target["expr"] for board in DASHBOARDS.values() for panel in panels(board) for target in panel["targets"]
    ]
    names = {name for expression in expressions for name in re.findall(rf"{DEVICE_METRICS}\w+", expression)}
    assert names
    assert names <= set(CATALOGUE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScrapedRun]:
    """A run under way that is scraped."""
    with scraped_run(tmp_path_factory.mktemp("scraped")) as run:
        yield run


def has_data(run: ScrapedRun, target: dict[str, Any], *, since: float) -> bool:
    """Whether the expression has given a number: now for a query of now, at any time for one over time."""
    query = resolved(target["expr"])
    if target["instant"]:
        return any(math.isfinite(sample.value) for sample in run.prometheus.query(query))
    data = run.prometheus.get("/api/v1/query_range", query=query, start=f"{since}", end=f"{time.time()}", step="1")
    return any(math.isfinite(float(value)) for series in data["result"] for _, value in series["values"])


def test_a_run_gives_every_panel_something_to_show(run: ScrapedRun):
    since = time.time() - 60
    empty = {
        (name, panel["title"], target["expr"]): target
        for name, board in DASHBOARDS.items()
        for panel in panels(board)
        for target in panel["targets"]
        if DEVICE_METRICS not in target["expr"]
    }
    assert len(empty) > 100
    deadline = time.monotonic() + 40
    while empty and time.monotonic() < deadline:
        empty = {key: target for key, target in empty.items() if not has_data(run, target, since=since)}
        time.sleep(0.5)
    assert not empty, "\n".join(map(str, empty))
    (bottleneck,) = run.prometheus.query(resolved(panels(DASHBOARDS["pipeline"])[0]["targets"][0]["expr"]))
    assert bottleneck.labels["stage"] in {"sample", "evaluate", "learn"}
    assert 1 / 3 <= bottleneck.value <= 1


def test_a_run_gives_every_variable_its_choices(run: ScrapedRun):
    for board in DASHBOARDS.values():
        for variable in board.get("templating", {}).get("list", []):
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert found, variable["query"]
            values = run.prometheus.get(f"/api/v1/label/{found[2]}/values", **{"match[]": found[1]})
            assert values, f"{board['title']}: nothing to choose for {variable['label']}"


def test_the_annotations_can_be_asked_for(run: ScrapedRun):
    for board in DASHBOARDS.values():
        for annotation in board["annotations"]["list"]:
            run.prometheus.query(annotation["expr"])
