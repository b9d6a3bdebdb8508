"""What Kubernetes' PodSecurity level `restricted` asks of a pod, as its documentation lists it (Pod Security Standards,
Kubernetes 1.33, Linux), literally.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helm_chart import Object, containers

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(pod: Object) -> list[str]:
    """Return what the level refuses, empty where it lets the pod in."""
    return [
        *_of_pod(pod),
        *(f"{item['name']}: {what}" for item in containers(pod) for what in _of_container(pod, item)),
    ]


def _of_pod(pod: Object) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes", ()):
        if kinds := set(volume) - {"name"} - _VOLUMES:
            yield f"volume of kind {kinds.pop()}"
    if pod.get("securityContext", {}).get("sysctls"):
        yield "sysctls"


def _of_container(pod: Object, container: Object) -> Iterator[str]:
    own: dict[str, Any] = container.get("securityContext", {})
    effective = {**pod.get("securityContext", {}), **own}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if effective.get("runAsNonRoot") is not True or effective.get("runAsUser") == 0:
        yield "root"
    if effective.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "no seccomp profile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    for name in ("procMount", "seLinuxOptions", "appArmorProfile", "windowsOptions"):
        if name in effective:
            yield name
    if any("hostPort" in port for port in container.get("ports", ())):
        yield "host port"
