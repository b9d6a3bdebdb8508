"""The run that a coordinator starts by itself: for containers, where nobody is there to submit one.

The same task, seed and budget make the same request and the same name, so that a coordinator that starts again goes on
with the run, finds that it has ended, or, where Redis was lost, resumes it from its checkpoints.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from altlas.rpc.coordinator.v1 import coordinator_pb2


@dataclass(frozen=True, slots=True)
class FirstRun:
    """What was asked for. `budget`: programs at most, 0 for the task's own."""

    task: str
    seed: int
    budget: int


def first_request(first: FirstRun) -> coordinator_pb2.CreateRunRequest:
    """Resolve it as `altlas submit` does, with this process's environment.

    Raises:
        ConfigError: the configuration is wrong.
        TaskError: no such task, or it is wrong.
    """
    from altlas.cli.submit import SubmitRequest, resolve_remote
    from altlas.cli.train import load_named, run_label
    from altlas.cli.watch import make_spec
    from altlas.rpc.coordinator.v1 import coordinator_pb2

    asked = json.dumps([first.task, first.seed, first.budget])
    digest = hashlib.sha256(asked.encode()).hexdigest()[:12]
    run = resolve_remote(
        SubmitRequest(
            task=first.task,
            coordinator="",
            preset=None,
            config_file=None,
            overrides=(f"run.seed={first.seed}", f"run.budget={first.budget}"),
            name=f"{run_label(load_named(first.task, languages=None))}-{digest[:8]}",
            run_dir=None,
            request_id=None,
            is_watched=False,
            as_json=False,
        )
    )
    return coordinator_pb2.CreateRunRequest(request_id=f"first-{digest}", spec=make_spec(run))
