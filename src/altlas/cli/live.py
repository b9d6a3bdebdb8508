"""What a person sees while a run goes on: a live panel on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from altlas.cli.train import LocalRun
from altlas.rpc.coordinator.v1 import coordinator_pb2

_LINE_EVERY_S = 2.0


class RunView:
    """A context manager; `show` after every update. With --json it writes to stderr, with --quiet only notes."""

    def __init__(self, headline: str, *, is_quiet: bool, is_json: bool) -> None:
        self._headline = headline
        self._console = Console(stderr=is_json, quiet=is_quiet)
        is_live = self._console.is_terminal and not is_quiet
        self._live = Live(console=self._console, refresh_per_second=4, transient=True) if is_live else None
        self._last_line = 0.0
        self._note = ""
        self._progress = coordinator_pb2.Progress()

    def __enter__(self) -> Self:
        self._console.print(self._headline, highlight=False, soft_wrap=True)
        if self._live is not None:
            self._live.start()
            self._refresh(self._live)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, note: str) -> None:
        """Show a note: under the panel until another comes, or as a line of its own."""
        self._note = note
        if self._live is None:
            print(note, file=sys.stderr, flush=True)
        else:
            self._refresh(self._live)

    def show(self, progress: coordinator_pb2.Progress) -> None:
        """Show where the run stands."""
        if not progress.update:
            return
        self._progress = progress
        if self._live is not None:
            self._refresh(self._live)
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._console.print(
                f"{progress.programs:>8,} programs  {_of_task(progress)}reward mean {progress.mean_reward:.3f} best "
                f"{progress.best_reward:.3f}  entropy {progress.metrics['entropy']:.2f}  {_speed(progress):.0f} per s",
                highlight=False,
            )

    def _refresh(self, live: Live) -> None:
        waiting = Text(self._note or "waiting for the first update", style="yellow")
        live.update(self._panel(self._progress) if self._progress.update else waiting)

    def _panel(self, progress: coordinator_pb2.Progress) -> Group:
        budget = Table.grid(padding=(0, 2))
        budget.add_row(
            ProgressBar(total=progress.budget, completed=progress.programs, width=40),
            f"{progress.programs:,} of {progress.budget:,} programs",
            f"{progress.seconds:.0f} s",
            f"{_speed(progress):,.0f} per s",
        )
        batch = sum(progress.statuses.values())
        table = Table.grid(padding=(0, 2))
        if len(progress.tasks) > 1:
            table.add_row("task", progress.tasks[progress.task].name, _verified(progress))
        table.add_row("reward", f"mean {progress.mean_reward:.3f}", f"best {progress.best_reward:.3f}")
        table.add_row("entropy", f"{progress.metrics['entropy']:.2f} nats per token", "")
        duplicates = 1 - progress.unique_programs / progress.programs
        table.add_row("duplicates", f"{duplicates:.0%} of all", f"{progress.unique_programs:,} unique")
        stages = [f"{stage} {batch / seconds:,.0f}" for stage, seconds in progress.stage_s.items() if seconds]
        table.add_row("programs per s", *stages)
        statuses = sorted(progress.statuses.items(), key=lambda item: -item[1])
        table.add_row("last batch", ", ".join(f"{name} {count}" for name, count in statuses))
        best = Syntax(progress.best_program, "python", background_color="default")
        parts: list[RenderableType] = [budget, table, Text("best program so far", style="bold"), best]
        return Group(*parts, Text(self._note, style="yellow")) if self._note else Group(*parts)


class LiveView(RunView):
    """The view of a local run."""

    def __init__(self, run: LocalRun, *, is_quiet: bool, is_json: bool) -> None:
        verb = "resuming" if run.resume else "training on"
        headline = f"{verb} {run.task_name}, seed {run.config.run.seed}, in {run.run_dir}"
        super().__init__(headline, is_quiet=is_quiet, is_json=is_json)


def _of_task(progress: coordinator_pb2.Progress) -> str:
    """Return what a line says of tasks: nothing where there is only one."""
    return f"{progress.tasks[progress.task].name} ({_verified(progress)})  " if len(progress.tasks) > 1 else ""


def _verified(progress: coordinator_pb2.Progress) -> str:
    return f"{sum(task.verified for task in progress.tasks)} of {len(progress.tasks)} verified"


def _speed(progress: coordinator_pb2.Progress) -> float:
    return progress.programs / progress.seconds if progress.seconds else 0.0
