"""What the stack must withstand: start, learn, be watched, be scaled, lose every container in turn, and go.

A run of a seed that is left alone is the reference. Whatever is done to a later run of the same seed, it must end with
the same weights after the same programs: nothing was lost, nothing was counted twice.
"""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

from stack import Container, Stack
from steps import DrillError, step, wait_for

_TASK = "stdin/reverse"
_RUN = ("--seed", "7", "--budget", "5120", "--set", "run.stop_on_solved=false", "--set", "run.checkpoint_every=5")
_EVALUATORS = 4
# Without these a run can go on: with one of two evaluators, and without whoever only looks.
_DISPENSABLE = ("evaluator", "prometheus", "grafana", "redis-exporter")
# Updates that a run has to go at least when something is done to it.
_ROOM = 8
_ENDED = ("finished", "stopped", "failed")
_START_S, _RUN_S, _RECOVERY_S, _PROGRESS_S = 600, 900, 300, 300


@dataclass(frozen=True)
class Ending:
    """What a run of a seed must end with, whatever happened on the way."""

    policy_sha256: str
    updates: int
    programs: int


class Repeated:
    """Runs of one seed, one after the other for as long as a drill takes: each must end as the reference did."""

    def __init__(self, stack: Stack, name: str, reference: Ending) -> None:
        """Start the first one."""
        self._stack, self._name, self._reference = stack, name, reference
        self.count = 0
        self._start()

    def make_room(self) -> None:
        """See to it that a run is under way whose end is some updates off."""
        standing = wait_for("the coordinator", lambda: self._stack.standing(self._current), timeout_s=_PROGRESS_S)
        if standing["state"] in _ENDED or standing["updates"] > self._reference.updates - _ROOM:
            self.finish()
            self._start()

    def advance(self) -> None:
        """Wait until the run has got on by two updates, or has ended as it should; then there is a next one."""
        target = 0

        def look() -> bool:
            nonlocal target
            standing = self._stack.standing(self._current)
            if standing is None:
                return False
            if standing["state"] in _ENDED:
                self._end(standing)
                self._start()
                return True
            target = target or standing["updates"] + 2
            # A trainer that was killed takes the run back to a checkpoint.
            target = min(target, standing["updates"] + 2)
            return bool(standing["updates"] >= target)

        wait_for(f"{self._current} to get on", look, timeout_s=_PROGRESS_S, interval_s=1)

    def finish(self) -> None:
        """Wait for the run to end, as it should."""
        self._end(_wait_for_end(self._stack, self._current))

    def _start(self) -> None:
        self.count += 1
        self._current = f"{self._name}-{self.count}"
        self._stack.submit(self._current, _TASK, *_RUN)

    def _end(self, standing: dict[str, Any]) -> None:
        ending = _ending(standing)
        if ending != self._reference:
            raise DrillError(f"{self._current} did not end as the reference did: {ending}, not {self._reference}")


def start(stack: Stack, evaluators: int) -> None:
    """Start the stack as a person does, and wait until all of it is healthy.

    Raises:
        DrillError: it is not, in time.
    """
    stack.compose("up", "--detach", "--wait", "--scale", f"evaluator={evaluators}", timeout_s=_START_S)
    if ill := _ill(stack):
        raise DrillError(f"not healthy after `docker compose up --wait`: {', '.join(ill)}")


def _ill(stack: Stack) -> list[str]:
    return [one.name for one in stack.containers() if one.service != "secrets" and one.health != "healthy"]


def run_drill(stack: Stack) -> None:
    """Do all of it, printing each step.

    Raises:
        DrillError: one of them is not as it must be.
    """
    before = stack.leftovers()
    with step(f"docker compose up --detach --wait --scale evaluator={_EVALUATORS}") as found:
        start(stack, _EVALUATORS)
        found.found = f"{len(stack.containers())} containers, all that stay healthy"
    with step("the run that starts by itself solves hello_world") as found:
        found.found = _first_run(stack)
    with step("Prometheus and Grafana") as found:
        _wait_for_targets(stack, _EVALUATORS)
        found.found = f"{_EVALUATORS} of {_EVALUATORS} evaluators up, no target down; {_grafana(stack)}"
    with step(f"reference: {_TASK} left alone") as found:
        stack.submit("reference", _TASK, *_RUN)
        reference = _ending(_wait_for_end(stack, "reference"))
        found.found = f"{reference.programs:,} programs, weights {reference.policy_sha256[:12]}"
    _scale(stack, reference)
    _kill(stack, reference)
    _print_counts(stack)
    _end(stack, before)


def _scale(stack: Stack, reference: Ending) -> None:
    repeated = Repeated(stack, "scaled", reference)
    for evaluators in (8, 2):
        repeated.make_room()
        with step(f"scaled to {evaluators} evaluators during a run") as found:
            start(stack, evaluators)
            _wait_for_targets(stack, evaluators)
            repeated.advance()
            found.found = f"Prometheus shows {evaluators} of {evaluators}, the run goes on"
    with step("the scaled run ends") as found:
        repeated.finish()
        found.found = "as the reference did: nothing lost"


def _kill(stack: Stack, reference: Ending) -> None:
    repeated = Repeated(stack, "killed", reference)
    containers = [one for one in stack.containers() if one.service != "secrets"]
    for container in containers:
        repeated.make_room()
        with step(f"crash of {container.name}") as found:
            _crash(stack, container)
            repeated.advance()
            found.found = "restarted by the engine, the run goes on"
    for container in containers:
        repeated.make_room()
        with step(f"docker kill {container.name}") as found:
            stack.engine.docker("kill", container.identity)
            if container.service in _DISPENSABLE:
                repeated.advance()
                found.found = "the run went on without it; "
            # Docker takes a kill for somebody's wish, and restarts nothing by itself.
            stack.engine.docker("start", container.identity)
            repeated.advance()
            found.found += "started again, the run goes on"
    with step("every container is back") as found:
        wait_for("all of them to be healthy", lambda: not _ill(stack), timeout_s=_RECOVERY_S, interval_s=1)
        found.found = f"{len(containers)} healthy"
    _check_redis(stack)
    with step("the runs under fire end") as found:
        repeated.finish()
        found.found = f"{repeated.count} of {repeated.count} as the reference did"


def _check_redis(stack: Stack) -> None:
    """Check that Redis refused nothing of its own file when it was started again.

    Raises:
        DrillError: it did, and what it had kept is lost.
    """
    said = stack.compose("logs", "--no-log-prefix", "redis")
    if refused := [line for line in said.splitlines() if "AOF-loading-client" in line]:
        raise DrillError(f"Redis left out {len(refused)} writes of its append-only file: {refused[0]}")


def _crash(stack: Stack, container: Container) -> None:
    """End a container's main process, and wait until the engine has restarted it."""
    killing = "kill -KILL $(cat /proc/1/task/1/children)"
    stack.engine.docker("exec", container.identity, "sh", "-c", killing)

    def is_back() -> bool:
        now = stack.container(container.identity)
        return now.restarts > container.restarts and now.state == "running"

    wait_for(f"{container.name} to come back by itself", is_back, timeout_s=_RECOVERY_S)


def _first_run(stack: Stack) -> str:
    def look() -> dict[str, Any] | None:
        runs = stack.altlas("runs", "list")["runs"]
        return next((run for run in runs if run["state"] in _ENDED), None)

    run = wait_for("the run that starts by itself", look, timeout_s=_RUN_S, interval_s=1)
    if not (run["verified"] and run["task"] == "basics/hello_world"):
        raise DrillError(f"the run that starts by itself did not solve hello_world: {json.dumps(run)}")
    return f"after {run['programs']:,} programs in {run['seconds']:.1f} s"


def _wait_for_targets(stack: Stack, evaluators: int) -> None:
    """Wait until Prometheus has as many evaluators as there are, and nothing is down."""

    def look() -> bool:
        up = stack.prometheus("up")
        found = [value for target, value in up if target["job"] == "evaluator"]
        is_redis_seen = [value for _, value in stack.prometheus("redis_up")] == [1]
        return len(found) == evaluators and all(value == 1 for _, value in up) and is_redis_seen

    wait_for(f"{evaluators} evaluators up in Prometheus, and nothing down", look, timeout_s=120, interval_s=1)


def _grafana(stack: Stack) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.ports['GRAFANA_PORT']}/api/health", timeout=10) as answer:
        return f"Grafana {json.load(answer)['version']} answers {answer.status}"


def _wait_for_end(stack: Stack, name: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        standing = stack.standing(name)
        return standing if standing is not None and standing["state"] in _ENDED else None

    return wait_for(f"the end of {name}", look, timeout_s=_RUN_S, interval_s=1)


def _ending(standing: dict[str, Any]) -> Ending:
    if standing["state"] != "finished":
        raise DrillError(f"{standing['run_id']} is {standing['state']}: {standing['error'] or standing['stop_reason']}")
    return Ending(standing["policy_sha256"], standing["updates"], standing["programs"])


def _print_counts(stack: Stack) -> None:
    """Print how often jobs were done twice or taken over.

    Raises:
        DrillError: a job was given up.
    """
    with step("jobs, by what Prometheus has seen") as found:
        counts = {}
        for name in ("committed", "duplicate", "reclaimed", "dead"):
            series = stack.prometheus(f"sum(increase(altlas_coordinator_jobs_{name}_total[1h]))")
            counts[name] = round(sum(value for _, value in series))
        found.found = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        if counts["dead"]:
            raise DrillError(f"{counts['dead']} jobs were given up")


def _end(stack: Stack, before: dict[str, list[str]]) -> None:
    """Take the stack down and compare what is left with what was there before.

    Raises:
        DrillError: something is left that is no named volume, or a named volume is gone.
    """
    config = stack.config()
    named = {volume["name"] for volume in config["volumes"].values()}
    with step("docker compose down") as found:
        stack.compose("down", timeout_s=180)
        after = stack.leftovers()
        new = {kind: set(after[kind]) - set(before[kind]) for kind in after}
        if new["containers"] or new["networks"] or new["volumes"] != named:
            raise DrillError(f"left by `docker compose down`: {new}; named volumes: {sorted(named)}")
        found.found = f"left are {len(named)} named volumes, and nothing else"
