"""The chart of deploy/kubernetes as helm renders it: valid for Kubernetes, with the walls that docs/kubernetes.md
names, and wired to what the roles really take. No cluster has run it.
"""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
from helm_chart import (
    CHART,
    NAMESPACE,
    Chart,
    Object,
    containers,
    environment,
    named,
    pod_specs,
    require_helm,
    selects,
    values_arguments,
)
from pod_security import violations

from altlas.cli.main import serve_app
from altlas.config.fields import section_types
from altlas.config.loader import load_config
from altlas.transport.keys import GROUP, RunKeys

KUBERNETES = "1.33"
ROLES = ("coordinator", "trainer", "generator", "evaluator")
RUN = "hello-1"
# Every object that the chart can make.
EVERYTHING = (
    "evaluator.autoscaling.enabled=true",
    f"evaluator.autoscaling.runs={{{RUN}}}",
    "evaluator.autoscaling.prometheusAddress=http://prometheus.monitoring:9090",
    "metrics.serviceMonitor.enabled=true",
    "metrics.prometheusRule.enabled=true",
    "coordinator.tokenSecret=token",
    "coordinator.maxUnavailable=0",
    "generator.replicas=2",
    "trainer.gpus=2",
    "run.task=basics/hello_world",
    "networkPolicy.evaluatorClients[0].podSelector.matchLabels.app=client",
    "evaluator.runtimeClassName=gvisor",
    "evaluator.allowUnsafe=true",
    "tls.enabled=true",
    *(f"tls.secrets.{role}=tls-{role}" for role in ROLES),
)
SETS: Mapping[str, tuple[str, Sequence[str]]] = {
    "default": ("", ()),
    "gpu": ("values-gpu.yaml", ()),
    "external-redis": ("values-external-redis.yaml", ()),
    "everything": ("", EVERYTHING),
}
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"}


@pytest.fixture(scope="module")
def chart() -> Chart:
    return require_helm()


@pytest.fixture(scope="module")
def rendered(chart: Chart) -> Mapping[str, list[Object]]:
    return {name: chart.render(*arguments) for name, arguments in SETS.items()}


@pytest.fixture(scope="module")
def everything(rendered: Mapping[str, list[Object]]) -> list[Object]:
    return rendered["everything"]


def role_of(labels: Mapping[str, str]) -> str:
    return labels["app.kubernetes.io/component"]


@functools.cache
def checked(text: str) -> str:
    """The version against which the object was found valid; the same object is checked once."""
    return kubernetes_validate.validate(json.loads(text), KUBERNETES, strict=True)


@pytest.mark.parametrize("name", SETS)
def test_lint_and_schemas_find_nothing(chart: Chart, rendered: Mapping[str, list[Object]], name: str) -> None:
    lint = chart.run("lint", "--strict", *values_arguments(*SETS[name]))
    assert lint.returncode == 0, lint.stdout + lint.stderr
    for item in rendered[name]:
        if item["kind"] not in CUSTOM:
            assert checked(json.dumps(item, sort_keys=True)) == KUBERNETES
    names = [(item["kind"], item["metadata"]["name"]) for item in rendered[name]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["evaluator.replica=3"], "additional properties 'replica' not allowed"),
        (["config.sandbox.allow_unsafe=true"], "additional properties 'allow_unsafe' not allowed"),
        (["redis.external.url=redis://evaluator:word@redis.example.com/0"], "does not match pattern"),
        (["redis.external.url=redis://redis.example.com/0"], "name the Secret that holds this user's password"),
        (["evaluator.allowUnsafe=true"], "name the RuntimeClass that is one"),
        (["evaluator.autoscaling.enabled=true"], "name the runs to look at"),
        (["tls.enabled=true"], "name the Secret with the role's ca.crt, tls.crt and tls.key"),
        (["trainer.gpus=one"], "got string, want integer"),
    ],
)
def test_a_mistake_in_the_values_is_refused(chart: Chart, values: list[str], words: str) -> None:
    done = chart.run("template", *values_arguments("", values))
    assert done.returncode != 0
    assert words in done.stderr


def test_the_schema_knows_the_settings_of_the_roles() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    for section, keys in schema["properties"]["config"]["properties"].items():
        left_out = {
            "sandbox": {"allow_unsafe"},  # evaluator.allowUnsafe, which asks for a RuntimeClass
            "transport": {"redis_url", "redis_password_file"},  # made of redis.external and the Secrets
            "logging": {"attempts_sample"},  # comes with a run
        }.get(section, set())
        assert set(keys["properties"]) == set(section_types()[section].model_fields) - left_out


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text())["project"]
    assert f'appVersion: "{project["version"]}"' in (CHART / "Chart.yaml").read_text()


@pytest.mark.parametrize("name", SETS)
def test_every_pod_is_restricted_and_bounded(rendered: Mapping[str, list[Object]], name: str) -> None:
    pods = list(pod_specs(rendered[name]))
    assert {role_of(labels) for _, labels, _ in pods} >= set(ROLES)
    for workload, _, pod in pods:
        assert violations(pod) == [], workload
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
        for container in pod["containers"]:
            assert {"livenessProbe", "readinessProbe"} <= set(container), workload


def test_the_check_of_pods_finds_what_restricted_forbids() -> None:
    bare: Object = {"hostPID": True, "volumes": [{"name": "v", "hostPath": {}}], "containers": [{"name": "a"}]}
    assert violations(bare) == [
        "hostPID",
        "volume of kind hostPath",
        "a: allowPrivilegeEscalation",
        "a: root",
        "a: no seccomp profile",
        "a: capabilities",
    ]


def secrets_of(part: Any) -> set[str]:
    """The names of all Secrets that a pod, or a part of one, can read."""
    if isinstance(part, list):
        return {name for item in part for name in secrets_of(item)}
    if not isinstance(part, dict):
        return set()
    assert not {"envFrom", "secretRef"} & set(part)
    found = {name for key, item in part.items() if key not in ("secretKeyRef", "secret") for name in secrets_of(item)}
    own = [part[key] for key in ("secretKeyRef", "secret") if key in part]
    return found | {item.get("secretName") or item["name"] for item in own}


def test_a_role_has_its_own_secrets_and_no_other(everything: list[Object]) -> None:
    found = {role_of(labels): secrets_of(pod) for _, labels, pod in pod_specs(everything)}
    assert found == {
        "coordinator": {"altlas-redis-coordinator", "token", "tls-coordinator"},
        "trainer": {"tls-trainer"},
        "generator": {"tls-generator"},
        "evaluator": {"altlas-redis-evaluator", "tls-evaluator"},
        "redis": {f"altlas-redis-{user}" for user in ("coordinator", "evaluator", "exporter", "keda")},
    }


def test_passwords_are_long_and_no_two_alike(rendered: Mapping[str, list[Object]]) -> None:
    secrets = [item["data"]["password"] for name in SETS for item in rendered[name] if item["kind"] == "Secret"]
    assert len(secrets) == 3 + 3 + 0 + 4
    assert len(set(secrets)) == len(secrets)
    assert all(len(password) > 50 for password in secrets)


def policies_of(objects: Sequence[Object], labels: Mapping[str, str]) -> list[Object]:
    found = [item["spec"] for item in objects if item["kind"] == "NetworkPolicy"]
    found = [policy for policy in found if selects(policy["podSelector"], labels)]
    assert all(policy["policyTypes"] == ["Ingress", "Egress"] for policy in found)
    return found


def let_through(rules: Sequence[Object], side: str, labels: Mapping[str, str], port: int) -> bool:
    """Whether rules let a pod of the same namespace through."""
    return any(
        set(peer) == {"podSelector"} and selects(peer["podSelector"], labels)
        for rule in rules
        if {"protocol": "TCP", "port": port} in rule["ports"]
        for peer in rule[side]
    )


def reachable(objects: Sequence[Object]) -> set[tuple[str, str, int]]:
    pods = {role_of(labels): (labels, pod) for _, labels, pod in pod_specs(objects)}
    ports = {
        (role, port["containerPort"])
        for role, (_, pod) in pods.items()
        for container in pod["containers"]
        for port in container["ports"]
    }
    found = set()
    for caller, (caller_labels, _) in pods.items():
        out = [rule for policy in policies_of(objects, caller_labels) for rule in policy.get("egress", ())]
        for role, port in ports:
            labels = pods[role][0]
            into = [rule for policy in policies_of(objects, labels) for rule in policy.get("ingress", ())]
            if let_through(out, "to", labels, port) and let_through(into, "from", caller_labels, port):
                found.add((caller, role, port))
    return found


CALLS = {("coordinator", "trainer", 50053), ("coordinator", "generator", 50052), ("generator", "trainer", 50053)}
JOBS = {("coordinator", "redis", 6379), ("evaluator", "redis", 6379)}


@pytest.mark.parametrize(
    ("name", "expected"), [("default", CALLS | JOBS), ("external-redis", CALLS), ("everything", CALLS | JOBS)]
)
def test_roles_reach_whom_they_call_and_nobody_else(
    rendered: Mapping[str, list[Object]], name: str, expected: set[tuple[str, str, int]]
) -> None:
    assert reachable(rendered[name]) == expected


PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
DNS = {
    "to": [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ],
    "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
}
REDIS_POD = {"app.kubernetes.io/name": "altlas", "app.kubernetes.io/instance": "altlas"} | {
    "app.kubernetes.io/component": "redis"
}
TO_REDIS = {"to": [{"podSelector": {"matchLabels": REDIS_POD}}], "ports": [{"protocol": "TCP", "port": 6379}]}


def evaluators_rules(objects: Sequence[Object]) -> tuple[list[Object], list[Object]]:
    (labels,) = (labels for _, labels, _ in pod_specs(objects) if role_of(labels) == "evaluator")
    policies = policies_of(objects, labels)
    return (
        [rule for policy in policies for rule in policy.get("ingress", ())],
        [rule for policy in policies for rule in policy.get("egress", ())],
    )


def test_evaluators_get_redis_and_nothing_else(chart: Chart, rendered: Mapping[str, list[Object]]) -> None:
    scraped = [{"from": [PROMETHEUS], "ports": [{"protocol": "TCP", "port": 9100}]}]
    assert evaluators_rules(rendered["default"]) == (scraped, [TO_REDIS, DNS])
    outside = {"to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}], "ports": [{"protocol": "TCP", "port": 6380}]}
    assert evaluators_rules(rendered["external-redis"]) == (scraped, [outside, DNS])
    by_address = chart.render("", ["redis.clusterIP=10.96.0.77"])
    assert evaluators_rules(by_address) == (scraped, [TO_REDIS])
    (pod,) = (pod for _, labels, pod in pod_specs(by_address) if role_of(labels) == "evaluator")
    assert environment(pod["containers"][0])["ALTLAS_TRANSPORT__REDIS_URL"].endswith("@10.96.0.77:6379/0")


def rendered_with(chart: Chart, values: Object, directory: Path) -> list[Object]:
    """The objects with a values file of one's own, which --set is not in every way."""
    (directory / "values.yaml").write_text(json.dumps(values))
    return chart.render(str(directory / "values.yaml"))


def test_an_empty_list_of_peers_is_nobody(chart: Chart, tmp_path: Path) -> None:
    nobody: Object = {peers: [] for peers in ("prometheus", "dns", "coordinatorClients")}
    objects = rendered_with(chart, {"networkPolicy": nobody}, tmp_path)
    policies = [item for item in objects if item["kind"] == "NetworkPolicy"]
    assert len(policies) == 6
    for policy in policies:
        checked(json.dumps(policy, sort_keys=True))
        spec = policy["spec"]
        # To Kubernetes a rule without peers lets everybody through.
        assert all(rule["from"] for rule in spec.get("ingress", ()))
        assert all(rule["to"] for rule in spec.get("egress", ()))
    assert evaluators_rules(objects) == ([], [TO_REDIS])
    assert reachable(objects) == CALLS | JOBS


def test_large_numbers_of_a_values_file_stay_numbers(chart: Chart, tmp_path: Path) -> None:
    memory_bytes, budget, uid = 256 << 20, 5_000_000, 1_000_680_000
    values = {
        "run": {"task": "basics/hello_world", "seed": 12_345_678, "budget": budget},
        "config": {"sandbox": {"memory_bytes": memory_bytes, "cpu_s": 0.5}},
        "redis": {"uid": uid, "gid": uid},
        "trainer": {"env": {"OPTION": 3_000_000}},
    }
    pods = {role_of(labels): pod for _, labels, pod in pod_specs(rendered_with(chart, values, tmp_path))}
    arguments = pods["coordinator"]["containers"][0]["args"]
    assert {"--run-seed=12345678", f"--run-budget={budget}"} <= set(arguments)
    own = environment(pods["evaluator"]["containers"][0])
    settings = (own["ALTLAS_SANDBOX__MEMORY_BYTES"], own["ALTLAS_SANDBOX__CPU_S"])
    assert settings == (str(memory_bytes), "0.5")
    assert environment(pods["trainer"]["containers"][0])["OPTION"] == "3000000"
    assert pods["redis"]["securityContext"]["runAsUser"] == uid


@pytest.mark.parametrize("name", SETS)
def test_the_roles_take_their_arguments_and_environment(rendered: Mapping[str, list[Object]], name: str) -> None:
    roles = typer.main.get_command(serve_app).commands
    services = {item["metadata"]["name"]: item["spec"] for item in rendered[name] if item["kind"] == "Service"}
    pods = {workload: (labels, pod) for workload, labels, pod in pod_specs(rendered[name])}
    for labels, pod in pods.values():
        if (role := role_of(labels)) not in ROLES:
            continue
        (container,) = pod["containers"]
        given = roles[role].make_context(role, list(container["args"])).params
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert given["listen"] == (f"0.0.0.0:{ports['grpc']}" if "grpc" in ports else "127.0.0.1:50054")
        assert given["metrics_port"] == ports["metrics"] == 9100
        own = {key: value or "1" for key, value in environment(container).items()}
        load_config(config_file=None, environ=own, overrides=[])
        for address in [given.get("trainer"), *(given.get("generator") or [])]:
            if address:
                host, _, port = address.partition(":")
                targets = [
                    other for other, _ in pods.values() if selects({"matchLabels": services[host]["selector"]}, other)
                ]
                assert len(targets) == 1
                assert int(port) in [item["port"] for item in services[host]["ports"]]


def test_a_new_coordinator_goes_on_with_the_runs_of_the_last(everything: list[Object]) -> None:
    for role in ("coordinator", "trainer"):
        deployment = named(everything, "Deployment", f"altlas-{role}")["spec"]
        assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
        pod = deployment["template"]["spec"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if volume["name"] == "runs"]
        assert (mounts["runs"], claims) == ("/var/lib/altlas/runs", ["altlas-runs"])
    assert (
        "--name=altlas"
        in named(everything, "Deployment", "altlas-coordinator")["spec"]["template"]["spec"]["containers"][0]["args"]
    )
    claim = named(everything, "PersistentVolumeClaim", "altlas-runs")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_a_shared_volume_of_one_node_keeps_both_on_it(chart: Chart, rendered: Mapping[str, list[Object]]) -> None:
    pods = {role_of(labels): (labels, pod) for _, labels, pod in pod_specs(rendered["gpu"])}
    (term,) = pods["coordinator"][1]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert selects(term["labelSelector"], pods["trainer"][0])
    assert pods["coordinator"][1]["tolerations"] == pods["trainer"][1]["tolerations"]
    many = chart.render("", ["runs.accessMode=ReadWriteMany"])
    assert not [workload for workload, _, pod in pod_specs(many) if "affinity" in pod]


def test_gpus_and_runtime_classes_reach_the_pods(rendered: Mapping[str, list[Object]]) -> None:
    gpus = {role_of(labels): pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
            for _, labels, pod in pod_specs(rendered["gpu"])}  # fmt: skip
    assert gpus == {"trainer": "1", "generator": "1", "coordinator": None, "evaluator": None, "redis": None}
    sandboxed = {role_of(labels): pod.get("runtimeClassName") for _, labels, pod in pod_specs(rendered["everything"])}
    assert sandboxed == dict.fromkeys((*ROLES, "redis")) | {"evaluator": "gvisor"}


def test_disruptions_take_a_part_of_the_evaluators(everything: list[Object]) -> None:
    budgets = {item["metadata"]["name"]: item["spec"] for item in everything if item["kind"] == "PodDisruptionBudget"}
    assert {name: budget["maxUnavailable"] for name, budget in budgets.items()} == {
        "altlas-evaluator": "25%",
        "altlas-generator": 1,
        "altlas-coordinator": 0,
    }
    labels = [labels for _, labels, _ in pod_specs(everything)]
    pods = {name: sum(selects(budget["selector"], item) for item in labels) for name, budget in budgets.items()}
    assert pods == {"altlas-evaluator": 1, "altlas-generator": 2, "altlas-coordinator": 1}


def test_prometheus_finds_every_role_under_its_name(everything: list[Object]) -> None:
    monitor = named(everything, "ServiceMonitor", "altlas")["spec"]
    jobs: dict[str, set[str]] = {}
    for item in everything:
        if item["kind"] == "Service" and selects(monitor["selector"], item["metadata"]["labels"]):
            (port,) = (port for port in item["spec"]["ports"] if port["name"] == monitor["endpoints"][0]["port"])
            jobs.setdefault(item["metadata"]["labels"][monitor["jobLabel"]], set()).add(port["port"])
    assert jobs == {role: {9100} for role in ROLES} | {"redis": {9121}}
    rules = [item["spec"] for item in everything if item["kind"] == "PrometheusRule"]
    shipped = (CHART.parent / "prometheus" / "rules").glob("*.yml")
    assert len(rules) == len(list(shipped)) > 0
    assert all(rule["expr"] for spec in rules for group in spec["groups"] for rule in group["rules"])


def test_keda_looks_at_the_jobs_stream_of_each_run(everything: list[Object]) -> None:
    scaled = named(everything, "ScaledObject", "altlas-evaluator")["spec"]
    assert scaled["scaleTargetRef"] == {"name": "altlas-evaluator"}
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (0, 16)
    assert "replicas" not in named(everything, "Deployment", "altlas-evaluator")["spec"]
    lag, length, queue = scaled["triggers"]
    stream = {
        "address": f"altlas-redis.{NAMESPACE}.svc:6379",
        "username": "keda",
        "stream": RunKeys(RUN).jobs,
        "activationLagCount": "0",
    }
    assert lag["metadata"] == {**stream, "consumerGroup": GROUP, "lagCount": "8"}
    assert length["metadata"] == {**stream, "streamLength": "1000000000"}
    assert lag["authenticationRef"] == length["authenticationRef"]
    (password,) = named(everything, "TriggerAuthentication", lag["authenticationRef"]["name"])["spec"][
        "secretTargetRef"
    ]
    assert password == {"parameter": "password", "name": "altlas-redis-keda", "key": "password"}
    assert queue["metadata"]["query"] == "sum(altlas_queue_depth_jobs)"
