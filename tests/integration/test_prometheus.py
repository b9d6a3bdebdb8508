"""deploy/prometheus: what promtool says of it, what its rules name, and a real Prometheus that runs it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from evaluator_process import EvaluatorProcess, free_port
from prometheus import Prometheus, Tools, require_tools

from altlas.cli.metrics_reference import render_reference
from altlas.obs.metrics import CATALOGUE

ROOT = Path(__file__).parents[2]
DEPLOYED = ROOT / "deploy/prometheus"
CONFIG = DEPLOYED / "prometheus.yml"
RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
UNIT_TESTS = sorted((DEPLOYED / "tests").glob("*.yml"))
# Of Prometheus, of prometheus_client in every process, and of redis_exporter.
FOREIGN = {"up", "process_start_time_seconds"}
FOREIGN |= {"redis_up", "redis_aof_last_write_status", "redis_aof_last_bgrewrite_status"}
FOREIGN |= {"redis_memory_used_bytes", "redis_memory_max_bytes"}
TARGET_LABELS = {"job", "instance"}


def _rules() -> list[dict[str, Any]]:
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((DEPLOYED / "rules").glob("*.yml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


RULES = _rules()
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}


@pytest.fixture(scope="module")
def tools() -> Tools:
    return require_tools()


def test_promtool_finds_no_fault_in_the_configuration_and_its_rules(tools: Tools) -> None:
    checked = tools.promtool("check", "config", CONFIG)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert sum(map(int, re.findall(r"(\d+) rules found", checked.stdout))) == len(RULES)


def test_the_rules_unit_tests_pass(tools: Tools) -> None:
    tested = tools.promtool("test", "rules", *UNIT_TESTS)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_alert_is_seen_to_fire_and_not_to_fire() -> None:
    fires: dict[bool, set[str]] = {True: set(), False: set()}
    for path in UNIT_TESTS:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for case in group.get("alert_rule_test", ()):
                fires[bool(case["exp_alerts"])].add(case["alertname"])
    assert fires[True] == set(ALERTS)
    assert fires[False] == set(ALERTS)


def test_the_unit_tests_evaluate_every_group_in_the_same_order() -> None:
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((DEPLOYED / "rules").glob("*.yml"))]
    names = sorted(group["name"] for file in files for group in file["groups"])
    for path in UNIT_TESTS:
        assert sorted(yaml.safe_load(path.read_text(encoding="utf-8"))["group_eval_order"]) == names, path


def test_each_recording_rule_is_tested() -> None:
    tested = "\n".join(path.read_text(encoding="utf-8") for path in UNIT_TESTS)
    assert [name for name in sorted(RECORDED) if name not in tested] == []


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    sections = re.findall(r"^### (Altlas\w+)$(.*?)(?=^##|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert sorted(name for name, _ in sections) == sorted(ALERTS)
    for name, text in sections:
        said = re.findall(r"^\*\*(Means|Look at|Do)\*\*:? +\S", text, re.MULTILINE)
        assert said == ["Means", "Look at", "Do"], name


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_wrong_with_whom_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    description = rule["annotations"]["description"]
    assert "$value" in description or "$labels.instance" in description


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_names_only_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    render_reference()  # imports what declares metrics
    labels = {name: set(metric.labels) for name, metric in CATALOGUE.items() if metric.kind != "histogram"}
    for name, metric in CATALOGUE.items():
        if metric.kind == "histogram":
            labels |= {f"{name}_{part}": set(metric.labels) for part in ("sum", "count")}
    labels |= {name: set() for name in RECORDED | FOREIGN}
    selectors = selectors_of(rule["expr"])
    assert selectors
    assert {name for name, _ in selectors} <= set(labels)
    for name, selected_by in selectors:
        assert selected_by <= TARGET_LABELS | labels[name], name
        # Others have these as well, in a Prometheus that scrapes more than AltLAS.
        assert "job" in selected_by or name not in FOREIGN, name


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('sum by (job) (rate(up{job!="a b", x=~"c"}[5m])) > 3', [("up", {"job", "x"})]),
        (
            "a:b:c / on () group_left (d) (e_total > 0) and f offset 5m",
            [("a:b:c", set()), ("e_total", set()), ("f", set())],
        ),
        ("time() - clamp_min(1e3 * g, 0.5) unless h == 0", [("g", set()), ("h", set())]),
    ],
)
def test_the_selectors_of_an_expression_are_found(expression: str, expected: list[tuple[str, set[str]]]) -> None:
    assert selectors_of(expression) == expected


def selectors_of(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics of an expression in order, each with the labels that it is selected by."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    text = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", text)
    text = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    text = re.sub(r"(?<![\w:])(?:and|or|unless|bool|sum|min|max|count)(?![\w:])", " ", text)
    found = re.findall(r"(?<![\w.:])([a-zA-Z_][\w:]*)(?!\s*\(|[\w:])\s*(\{[^}]*\})?", text)
    return [(name, set(re.findall(r"(\w+)\s*(?:!=|=~|!~|=)", matchers))) for name, matchers in found]


def test_the_jobs_of_the_configuration_are_those_that_the_rules_name() -> None:
    jobs = {job["job_name"] for job in yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["scrape_configs"]}
    assert jobs == {"coordinator", "trainer", "generator", "evaluator", "redis", "prometheus"}
    matched = re.findall(r'job(?:=~|!=|=)"([^"]+)"', "\n".join(rule["expr"] for rule in RULES))
    assert {job for names in matched for job in names.split("|")} <= jobs


def test_a_prometheus_runs_it_and_sees_who_is_there_and_who_is_not(tools: Tools, tmp_path: Path) -> None:
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    shutil.copytree(DEPLOYED / "rules", tmp_path / "rules")
    with EvaluatorProcess(tmp_path) as evaluator:
        there, gone = f"127.0.0.1:{evaluator.metrics_port}", f"127.0.0.1:{free_port()}"
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        for job in config["scrape_configs"]:
            job.pop("dns_sd_configs", None)
            job["static_configs"] = [{"targets": [there, gone] if job["job_name"] == "evaluator" else []}]
        path = tmp_path / "prometheus.yml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        with Prometheus(path, tmp_path, tools=tools) as server:
            evaluator.wait_until_ready()
            server.wait_for(f'up{{job="evaluator", instance="{there}"}} == 1')
            server.wait_for(f'ALERTS{{alertname="AltlasTargetDown", instance="{gone}", alertstate="pending"}}')
            server.wait_for('job:targets_up:sum{job="evaluator"} == 1')
            # One that is up may have been missed before its first scrape.
            missing = 'ALERTS{alertname="AltlasRoleMissing", job%s"evaluator"}'
            server.wait_for(f"count({missing % '!='}) == 3 unless on () {missing % '='}")
            groups = server.get("/api/v1/rules")["groups"]
            faults = [rule["lastError"] for group in groups for rule in group["rules"] if "lastError" in rule]
            assert faults == []
            assert sum(len(group["rules"]) for group in groups) == len(RULES)
