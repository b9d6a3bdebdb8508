"""The tasks of a run, as a RunSpec holds them."""

from __future__ import annotations

from altlas.core.task import Task, parse_task
from altlas.rpc.common.v1 import common_pb2


def task_specs(spec: common_pb2.RunSpec) -> list[common_pb2.TaskSpec]:
    """Return every task of a run, by position."""
    first = common_pb2.TaskSpec(name=spec.task_name, toml=spec.task_toml, digest=spec.task_digest)
    return [first, *spec.further_tasks]


def parse_tasks(spec: common_pb2.RunSpec) -> list[Task]:
    """Return every task of a run, parsed, by position.

    Raises:
        TaskError: one of them is wrong.
    """
    return [parse_task(item.toml, where=item.name) for item in task_specs(spec)]
