"""docker-compose.yml and its overlays as `docker compose config` reads them, without an engine."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from altlas import __version__
from altlas.config.sections import Config

ROOT = Path(__file__).parents[2]
BASE, GPU, NAMESPACES = "docker-compose.yml", "deploy/compose/gpu.yml", "deploy/compose/namespaces.yml"
PROFILES = ("monitoring", "gpu", "debug")
ROLES = ("coordinator", "evaluator", "generator", "trainer")
SECRETS = {"coordinator": "coordinator", "evaluator": "evaluator", "exporter": "redis-exporter", "grafana": "grafana"}
# They end by themselves: nobody waits for their health, and nothing starts them again.
ONE_SHOT = {"secrets", "gpu-check"}


def compose(*arguments: str, files: Iterable[str] = (BASE,), **environment: str) -> subprocess.CompletedProcess[str]:
    """Run compose with nothing of our own environment but what is given."""
    command = Path(sys.executable).with_name("docker-compose")
    if not command.exists():
        if os.environ.get("CI"):
            raise FileNotFoundError(command)
        pytest.skip("docker-compose is not installed: make setup")
    options = [word for file in files for word in ("--file", file)]
    environ = {"PATH": os.environ["PATH"], "HOME": "/nowhere", **environment}
    return subprocess.run(
        [command, *options, *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )


@functools.cache
def model(files: tuple[str, ...] = (BASE,), profiles: tuple[str, ...] = PROFILES, **environment: str) -> Any:
    """The whole resolved model, by default with every profile."""
    options = [word for profile in profiles for word in ("--profile", profile)]
    done = compose(*options, "config", "--format", "json", files=files, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def services() -> Mapping[str, Any]:
    found: Mapping[str, Any] = model((BASE, GPU))["services"]
    return found


def test_every_combination_of_files_and_profiles_is_valid() -> None:
    files = [(BASE, *some) for count in range(3) for some in itertools.combinations((GPU, NAMESPACES), count)]
    profiles = [some for count in range(4) for some in itertools.combinations(PROFILES, count)]

    def problem(case: tuple[tuple[str, ...], tuple[str, ...]]) -> str:
        done = compose("config", "--quiet", files=case[0], COMPOSE_PROFILES=",".join(case[1]))
        return f"{case}: {done.stderr}" if done.returncode or done.stderr else ""

    with ThreadPoolExecutor(2) as pool:
        problems = list(pool.map(problem, itertools.product(files, profiles)))
    assert len(problems) == 32
    assert [line for line in problems if line] == []


def test_a_mistake_is_found() -> None:
    done = compose("config", "--quiet", EVALUATOR_CPUS="many")
    assert done.returncode != 0
    assert "cpus" in done.stderr


def test_profiles_decide_what_starts() -> None:
    roles = {"secrets", "redis", "trainer", "generator", "evaluator", "coordinator"}
    monitoring = {"redis-exporter", "prometheus", "grafana"}
    assert set(model(profiles=())["services"]) == roles | monitoring, "without a word said, by .env"
    assert set(model(profiles=(), COMPOSE_PROFILES="debug")["services"]) == roles | {"toolbox"}
    assert set(model((BASE, GPU), ("gpu",), COMPOSE_PROFILES="")["services"]) == roles | {"gpu-check"}


def test_every_container_is_confined(services: Mapping[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"], name
        assert service["init"], name
        assert service["pids_limit"] > 0, name
        lost = {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode", "container_name"} & service.keys()
        assert not lost, name
        assert service.get("network_mode", "none") == "none", name
        assert all("docker.sock" not in mount["source"] for mount in service.get("volumes", [])), name
        assert all("noexec" in mount and "size=" in mount for mount in service.get("tmpfs", [])), name
        bound = [mount for mount in service.get("volumes", []) if mount["type"] == "bind"]
        assert all(mount["read_only"] for mount in bound), name


def test_logs_are_rotated_and_what_dies_comes_back(services: Mapping[str, Any]) -> None:
    for name, service in services.items():
        assert {"max-size", "max-file"} <= service["logging"]["options"].keys(), name
        assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped"), name


def test_nobody_is_root_but_who_makes_the_secrets(services: Mapping[str, Any]) -> None:
    for name, service in services.items():
        if "altlas-" in service["image"]:
            assert "user" not in service, name
        else:
            assert (service["user"] == "0:0") == (name == "secrets"), name
    assert services["secrets"]["network_mode"] == "none"


def test_images_have_exact_versions(services: Mapping[str, Any]) -> None:
    for name, service in services.items():
        if "altlas-" not in service["image"]:
            assert re.search(r":v?\d+\.\d+\.\d+(-alpine)?$", service["image"]), name
        if "build" in service:
            assert re.search(r"^python:\d+\.\d+\.\d+-", service["build"]["args"]["BASE_IMAGE"]), name


def test_images_may_be_pinned_by_digest() -> None:
    pinned = "redis:7.4.11-alpine@sha256:" + "0" * 64
    services = model(REDIS_IMAGE=pinned, BASE_IMAGE=f"python@sha256:{'1' * 64}")["services"]
    assert services["redis"]["image"] == services["secrets"]["image"] == pinned
    assert {services[role]["build"]["args"]["BASE_IMAGE"] for role in ROLES} == {f"python@sha256:{'1' * 64}"}


def test_everything_waits_for_what_it_needs(services: Mapping[str, Any]) -> None:
    conditions = {"service_healthy", "service_completed_successfully"}
    for name, service in services.items():
        if name in ONE_SHOT:
            continue
        needed = service["depends_on"]
        assert {each["condition"] for each in needed.values()} <= conditions, name
        assert service["healthcheck"]["interval"] == "5s", name
        completed = {other for other, each in needed.items() if each["condition"] != "service_healthy"}
        assert completed <= {"secrets"}, name
        # Our own images bring their check; compose only asks more often.
        assert ("test" in service["healthcheck"]) == (name not in ROLES), name


def test_a_stop_leaves_time_to_drain(services: Mapping[str, Any]) -> None:
    seconds = {
        name: int(service["stop_grace_period"].removesuffix("s"))
        for name, service in services.items()
        if name not in ONE_SHOT
    }
    # Evaluators drain within 5 s, gRPC servers within 10, and the coordinator after its runs' 10.
    least = {"evaluator": 6, "generator": 11, "trainer": 11, "coordinator": 21, "redis": 10}
    assert {name: wanted for name, wanted in least.items() if seconds[name] < wanted} == {}


def test_ports_are_this_machines_alone_until_told_otherwise(services: Mapping[str, Any]) -> None:
    published = {
        name: [(port["host_ip"], port["published"]) for port in service["ports"]]
        for name, service in services.items()
        if service.get("ports")
    }
    assert published == {
        "coordinator": [("127.0.0.1", "50051")],
        "prometheus": [("127.0.0.1", "9090")],
        "grafana": [("127.0.0.1", "3000")],
    }
    other = model(PUBLISH_ADDRESS="10.1.2.3", GRAFANA_PORT="8000")["services"]["grafana"]["ports"][0]
    assert (other["host_ip"], other["published"]) == ("10.1.2.3", "8000")


def test_the_evaluator_reaches_redis_and_nothing_else(services: Mapping[str, Any]) -> None:
    evaluator = services["evaluator"]
    assert set(evaluator["networks"]) == {"evaluation"}
    assert {name for name, service in services.items() if "evaluation" in service.get("networks", {})} == {
        "evaluator",
        "redis",
        "prometheus",
    }
    networks = model()["networks"]
    assert networks["evaluation"]["internal"]
    assert networks["evaluation"]["driver_opts"] == {"com.docker.network.bridge.inhibit_ipv4": "true"}
    assert evaluator["dns"] == ["127.0.0.1"]
    # Prometheus listens on an address that its name has in one network only.
    (listens,) = [word for word in services["prometheus"]["command"] if word.startswith("--web.listen-address=")]
    alias = listens.partition("=")[2].partition(":")[0]
    having = [name for name, at in services["prometheus"]["networks"].items() if alias in (at or {}).get("aliases", [])]
    assert having == ["dashboards"]
    assert alias in services["prometheus"]["healthcheck"]["test"][-1]
    # A neighbour finds no gRPC there.
    assert "--listen=127.0.0.1:50054" in evaluator["command"]


def test_the_evaluator_has_limits_and_scratch_that_nothing_is_run_from(services: Mapping[str, Any]) -> None:
    evaluator = services["evaluator"]
    assert evaluator["pids_limit"] == 256
    assert evaluator["cpus"] == 1
    assert int(evaluator["mem_limit"]) == int(evaluator["memswap_limit"]) == 1 << 30
    assert evaluator["tmpfs"] == ["/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777"]
    more = model(EVALUATOR_CPUS="2.5", EVALUATOR_MEMORY="3g", EVALUATOR_PIDS="9", EVALUATOR_SLOTS="7")
    other = more["services"]["evaluator"]
    assert (other["cpus"], int(other["mem_limit"]), other["pids_limit"]) == (2.5, 3 << 30, 9)
    assert other["environment"]["ALTLAS_SANDBOX__SLOTS"] == "7"


def test_each_role_sees_its_own_secrets(services: Mapping[str, Any]) -> None:
    mounts = {
        volume: {
            name
            for name, service in services.items()
            for mount in service.get("volumes", [])
            if mount["source"] == f"secrets-{volume}"
        }
        for volume in (*SECRETS, "redis")
    }
    assert mounts.pop("coordinator") == {"secrets", "coordinator", "toolbox"}
    assert mounts.pop("redis") == {"secrets", "redis"}
    assert mounts == {volume: {"secrets", SECRETS[volume]} for volume in mounts}
    assert [mount["source"] for mount in services["evaluator"]["volumes"]] == ["secrets-evaluator"]
    for name, service in services.items():
        written = [mount for mount in service.get("volumes", []) if mount["source"].startswith("secrets-")]
        assert name == "secrets" or all(mount["read_only"] for mount in written), name


def test_no_container_is_told_a_password(services: Mapping[str, Any]) -> None:
    for name, service in services.items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN", key):
                assert value.startswith("/run/secrets/"), f"{name}: {key}"
            assert not re.search(r"//[^/@]*:[^/@]*@", str(value)), f"{name}: {key}"


def test_scaled_services_have_no_name_and_no_port(services: Mapping[str, Any]) -> None:
    for name in ("evaluator", "generator"):
        assert not {"container_name", "ports", "hostname"} & services[name].keys()


def test_run_directories_lie_on_the_volume_that_coordinator_and_trainer_share(services: Mapping[str, Any]) -> None:
    for role in ("coordinator", "trainer"):
        (workdir,) = re.findall(r"^WORKDIR (/var\S*)$", dockerfile(role), re.MULTILINE)
        (mount,) = [each for each in services[role]["volumes"] if each["source"] == "runs"]
        assert mount["target"] == f"{workdir}/{Config().paths.runs}"


def test_the_run_of_the_settings_starts_by_itself() -> None:
    command = model(RUN_TASK="stdin/echo", RUN_SEED="7", RUN_BUDGET="1000")["services"]["coordinator"]["command"]
    assert command[-4:] == ["--name=coordinator", "--run=stdin/echo", "--run-seed=7", "--run-budget=1000"]
    assert "--run=basics/hello_world" in model()["services"]["coordinator"]["command"]
    assert "--run=" in model(RUN_TASK="")["services"]["coordinator"]["command"], "empty: none"


def test_a_gpu_is_asked_for_by_the_overlay_alone(services: Mapping[str, Any]) -> None:
    assert [name for name, service in model()["services"].items() if "deploy" in service] == []
    asking = {
        name: service["deploy"]["resources"]["reservations"]["devices"]
        for name, service in services.items()
        if service.get("deploy", {}).get("resources")
    }
    device = {"capabilities": ["gpu"], "driver": "nvidia", "count": 1}
    assert asking == {name: [device] for name in ("trainer", "generator", "gpu-check")}


def test_the_stronger_tier_changes_the_evaluator_alone() -> None:
    usual, stronger = model()["services"], model((BASE, NAMESPACES))["services"]
    assert {name for name in usual if usual[name] != stronger[name]} == {"evaluator"}
    options = stronger["evaluator"]["security_opt"]
    assert "no-new-privileges:true" in options
    (profile,) = [option.partition(":")[2] for option in options if option.startswith("seccomp:")]
    rules = json.loads((ROOT / profile).read_text())
    allowed, guarded = (
        {
            name
            for rule in rules["syscalls"]
            if rule["action"] == "SCMP_ACT_ALLOW" and ("args" in rule) == has_arguments
            for name in rule["names"]
        }
        for has_arguments in (False, True)
    )
    assert rules["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {"unshare", "mount", "umount2", "pivot_root"} <= allowed
    assert not {"bpf", "ptrace", "keyctl", "io_uring_setup", "setns", "kexec_load", "init_module", "clone3"} & (
        allowed | guarded
    )
    # Namespaces by unshare alone, and no sockets of a virtual machine's host, as in Docker's own profile.
    assert guarded == {"clone", "socket", "personality"}
    assert not guarded & allowed


def test_the_example_lists_every_setting_with_its_default() -> None:
    text = (ROOT / ".env.example").read_text()
    listed = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", text, re.MULTILINE))
    files = tuple(listed.pop("COMPOSE_FILE").split(":"))
    assert files == (BASE, GPU)
    assert listed.pop("COMPOSE_PROFILES") == "monitoring"
    used = {
        name for file in (BASE, GPU, NAMESPACES) for name in re.findall(r"\$\{([A-Z_]+)", (ROOT / file).read_text())
    }
    assert listed.keys() == used
    assert model((*files, NAMESPACES), **listed) == model((*files, NAMESPACES))


def dockerfile(role: str) -> str:
    return (ROOT / "services" / role / "Dockerfile").read_text()


@pytest.mark.parametrize("role", ROLES)
def test_an_image_is_small_and_confined(role: str) -> None:
    text = dockerfile(role)
    build, final = text.split("\nFROM ${BASE_IMAGE}\n")
    assert "ARG BASE_IMAGE=" in build
    assert ("TORCH_INDEX_URL" in build) == (role in ("trainer", "generator"))
    assert ("dependencies learn" in build) == (role in ("trainer", "generator"))
    assert "# syntax" not in text
    assert "apt-get" not in final
    assert "\nUSER 10001:10001\n" in final
    (port,) = re.findall(r"^EXPOSE (\d+) 9100$", final, re.MULTILINE)
    assert f'CMD ["altlas", "health", "127.0.0.1:{port}"]' in final
    assert f'org.opencontainers.image.title="altlas-{role}"' in final
    assert f"ARG VERSION={__version__}\n" in final
    for script in re.findall(r"^COPY (services/\S+) /usr/local/bin/", final, re.MULTILINE):
        assert os.access(ROOT / script, os.X_OK), script


def test_the_dockerfiles_are_clean() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None and not os.environ.get("CI"):
        pytest.skip("hadolint is not installed: make setup")
    assert hadolint is not None
    files = [str(ROOT / "services" / role / "Dockerfile") for role in ROLES]
    done = subprocess.run([hadolint, "--no-color", *files], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)
