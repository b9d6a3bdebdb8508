"""Watching a local run over gRPC until it ends, while looking after its processes and after Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from altlas.cli.live import LiveView
from altlas.cli.local_stack import LocalStack
from altlas.cli.train import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_SOLVED, EXIT_UNSOLVED, LocalRun
from altlas.config.loader import config_to_json
from altlas.core.curriculum import task_budgets
from altlas.errors import AltlasError, TransientError, UnknownRunError
from altlas.report.controls import Records, read_controls, standings_on
from altlas.rpc.channel import call, connect, stream, wait_until_serving
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.coordinator.v1 import coordinator_pb2, coordinator_pb2_grpc
from altlas.rpc.security import load_security

_START_S = 120.0
_CALL_S = 30.0
_WATCH_S = 600.0
_CHECK_EVERY_S = 0.1
T = TypeVar("T")
NOT_SHRUNK: dict[str, Any] = {
    "shrunk_program": None,
    "shrink_programs": 0,
    "shrunk_is_minimal": False,
    "shrink_error": "",
}
"""What --json says of a program that has not been shrunk (yet)."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: the object that --json prints, and the exit code."""

    summary: dict[str, Any]
    exit_code: int


def watch_run(run: LocalRun, stack: LocalStack, *, is_quiet: bool, is_json: bool) -> RunResult:
    """Create the run on the local coordinator, watch it to its end.

    Raises:
        AltlasError: a role died, or did not come up.
    """
    return asyncio.run(_Watch(run, stack, LiveView(run, is_quiet=is_quiet, is_json=is_json)).to_the_end())


class _Watch:
    def __init__(self, run: LocalRun, stack: LocalStack, view: LiveView) -> None:
        self._run = run
        self._stack = stack
        self._view = view
        self._is_interrupted = False

    async def to_the_end(self) -> RunResult:
        loop = asyncio.get_running_loop()
        watching = asyncio.create_task(self._watch())
        loop.add_signal_handler(signal.SIGINT, self._interrupt, watching)
        loop.add_signal_handler(signal.SIGTERM, self._interrupt, watching)
        with self._view:
            while not watching.done():
                await asyncio.wait([watching], timeout=_CHECK_EVERY_S)
                if not watching.done():
                    try:
                        self._stack.check()
                    except AltlasError:
                        watching.cancel()
                        raise
        try:
            return await watching
        except TransientError:
            self._stack.check()  # A role that died tells more than the call which it left unanswered.
            raise

    def _interrupt(self, watching: asyncio.Task[RunResult]) -> None:
        if self._is_interrupted:
            watching.cancel()
            return
        self._is_interrupted = True
        self._view.say("stopping after this update, with a checkpoint (once more ends at once)")

    async def _watch(self) -> RunResult:
        for name, address in self._stack.addresses.items():
            await wait_until_serving(address, role=name, timeout_s=_START_S)
        security = load_security(self._run.config.security)
        async with connect(self._stack.addresses["coordinator"], token=security.token) as channel:
            stub = coordinator_pb2_grpc.CoordinatorServiceStub(channel)
            request = coordinator_pb2.CreateRunRequest(
                request_id=uuid.uuid4().hex, spec=make_spec(self._run), resume=self._run.resume
            )
            await self._patiently(lambda: stub.CreateRun(request, timeout=_CALL_S))
            stopper = asyncio.create_task(self._stop_when_interrupted(stub))
            try:
                await self._follow(stub, request)
            finally:
                stopper.cancel()
            get = coordinator_pb2.GetRunRequest(run_id=self._run.run_id)
            return self._result((await self._patiently(lambda: stub.GetRun(get, timeout=_CALL_S))).run)

    async def _follow(
        self, stub: coordinator_pb2_grpc.CoordinatorServiceStub, created: coordinator_pb2.CreateRunRequest
    ) -> None:
        sequence = 0
        ended = (coordinator_pb2.RUN_STATE_FINISHED, coordinator_pb2.RUN_STATE_FAILED)
        while True:
            request = coordinator_pb2.WatchRunRequest(run_id=self._run.run_id, after_sequence=sequence)
            try:
                async for response in stream(stub.WatchRun(request, timeout=_WATCH_S), peer="coordinator"):
                    sequence = response.event.sequence
                    self._view.show(response.event.progress)
                    if response.event.state in ended:
                        return
                    if response.event.message:
                        self._view.say(response.event.message)  # that nothing moves, or of a return to a checkpoint
            except TransientError:
                # The stream's own deadline, or a coordinator that is being replaced: go on after the last event.
                await asyncio.sleep(_CHECK_EVERY_S)
            except UnknownRunError:
                # A new coordinator that found no record of the run: Redis has lost its data too. Checkpoints remain.
                await self._patiently(lambda: stub.CreateRun(created, timeout=_CALL_S))

    async def _patiently(self, make: Callable[[], Awaitable[T]]) -> T:
        """Make a call that may be repeated, again while its coordinator is being replaced."""
        deadline = time.monotonic() + _START_S
        while True:
            try:
                return await call(make(), peer="coordinator")
            except TransientError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_CHECK_EVERY_S)

    async def _stop_when_interrupted(self, stub: coordinator_pb2_grpc.CoordinatorServiceStub) -> None:
        while not self._is_interrupted:
            await asyncio.sleep(_CHECK_EVERY_S)
        request = coordinator_pb2.StopRunRequest(run_id=self._run.run_id)
        await self._patiently(lambda: stub.StopRun(request, timeout=_CALL_S))

    def _result(self, run: coordinator_pb2.Run) -> RunResult:
        progress = run.progress
        tasks = task_summaries(self._run, progress)
        has_failed = run.state == coordinator_pb2.RUN_STATE_FAILED
        reason = coordinator_pb2.StopReason.Name(run.stop_reason).removeprefix("STOP_REASON_").lower()
        summary: dict[str, Any] = {
            "task": self._run.task_name,
            "solved": progress.solved,
            "verified": progress.verified,
            "programs": progress.programs,
            "unique_programs": progress.unique_programs,
            "evaluated_programs": progress.evaluated_programs,
            "updates": progress.update,
            "seconds": round(progress.seconds, 3),
            "programs_per_second": round(progress.programs / progress.seconds, 1) if progress.seconds else 0.0,
            "best_reward": progress.best_reward if len(tasks) == 1 else None,
            "best_program": progress.best_program if len(tasks) == 1 else "",
            "policy_sha256": run.policy_sha256,
            "seed": self._run.config.run.seed,
            "run_dir": str(self._run.run_dir),
            "stop_reason": "failed" if has_failed else reason,
            "restarts": dict(self._stack.restarts),
            **_first_solutions(self._run),
            "controls": tasks[0]["controls"] if len(tasks) == 1 else {},
            **NOT_SHRUNK,
            "tasks": tasks,
        }
        if has_failed:
            return RunResult({**summary, "error": run.error}, EXIT_FAILURE)
        if run.stop_reason == coordinator_pb2.STOP_REASON_REQUESTED:
            return RunResult(summary, EXIT_INTERRUPTED)
        if progress.verified:
            return RunResult(summary, EXIT_SOLVED)
        return RunResult(summary, EXIT_UNSOLVED)


def task_summaries(run: LocalRun, progress: coordinator_pb2.Progress) -> list[dict[str, Any]]:
    """Return what --json says of each task; programs are counted among the task's own."""
    # Empty where the run failed before its first update.
    standings = list(progress.tasks) or [coordinator_pb2.TaskProgress(name=task.name) for task in run.tasks]
    return [
        {
            "task": task.name,
            "solved": task.solved,
            "verified": task.verified,
            "programs": task.programs,
            "programs_to_solve": task.programs_to_solve if task.HasField("programs_to_solve") else None,
            "programs_to_verify": task.programs_to_verify if task.HasField("programs_to_verify") else None,
            "restarts": task.restarts,
            "best_reward": task.best_reward if task.HasField("best_reward") else None,
            "best_program": task.best_program,
            "controls": controls,
            **NOT_SHRUNK,
        }
        for task, controls in zip(standings, task_controls(run, read_controls()), strict=True)
    ]


def task_controls(run: LocalRun, records: Records) -> list[dict[str, Any]]:
    """Return what --json says of the controls on each task, within the budget that the task has in this run.

    Of several tasks that is what in_order gives each at a time, whatever the route.
    """
    budgets = task_budgets(run.config, [task.task for task in run.tasks])
    return [
        {
            algorithm: standing.to_json()
            for algorithm, standing in standings_on(records, task.name, min(budget, run.config.run.budget)).items()
        }
        for task, budget in zip(run.tasks, budgets, strict=True)
    ]


def _first_solutions(run: LocalRun) -> dict[str, int | None]:
    """Return the positions in the run, from 1, by which a program had solved and one had verified every task.

    Every new solution is among the attempts that are kept.
    """
    path = run.run_dir / "attempts.sqlite"
    found: dict[str, int | None] = {"programs_to_solve": None, "programs_to_verify": None}
    if not path.exists():  # the run failed before its first update
        return found
    with closing(sqlite3.connect(path)) as attempts:
        for key, column in (("programs_to_solve", "solved"), ("programs_to_verify", "verified")):
            firsts = attempts.execute(f"SELECT MIN(program) + 1 FROM attempts WHERE {column} GROUP BY task").fetchall()
            if len(firsts) == len(run.tasks):
                found[key] = max(first for (first,) in firsts)
    return found


def make_spec(run: LocalRun) -> common_pb2.RunSpec:
    """Return what CreateRun is given of a run."""
    first, *further = run.tasks
    return common_pb2.RunSpec(
        run_id=run.run_id,
        task_toml=first.text,
        task_digest=first.digest,
        task_name=first.name,
        vocabulary_json=run.vocabulary_text,
        config_json=config_to_json(run.config),
        run_dir=str(run.run_dir),
        further_tasks=[common_pb2.TaskSpec(name=task.name, toml=task.text, digest=task.digest) for task in further],
    )
