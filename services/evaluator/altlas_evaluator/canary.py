"""Says whether the evaluator can do its work, by doing it: a canary program every few seconds through the executor.

Invariant: `not_ready` and `on_change` agree. A canary waits in the queue like any program, so one that is late is held
against the evaluator only when nothing else came back either.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from altlas.core.program import ProgramStatus
from altlas.errors import OverloadedError, SandboxError
from altlas_evaluator.engine import Executor
from altlas_evaluator.sandbox.probe import CANARY, CANARY_OUTPUT
from altlas_evaluator.submission import Submission

LOGGER = logging.getLogger(__name__)
EVERY_S = 5.0
SILENCE_S = 60.0
_TICK_S = 0.25


class Canary:
    """Runs the canary from a thread of its own until stopped.

    Attributes:
        on_change: called from that thread with whether the evaluator is ready, each time that changes.
    """

    def __init__(self, executor: Executor, *, every_s: float = EVERY_S, silence_s: float = SILENCE_S) -> None:
        self.on_change: Callable[[bool], None] = lambda is_ready: None
        self._executor = executor
        self._every_s = every_s
        self._silence_s = silence_s
        self._reason = "the canary has not come back yet"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="canary", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, at once; before the executor is closed."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def not_ready(self) -> str:
        """Return why the evaluator cannot do its work, or an empty text when it can."""
        return self._reason

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._try()
            self._stopping.wait(self._every_s)

    def _try(self) -> None:
        """Run the canary once and tell what came of it, or that nothing did."""
        submission: Submission | None = None
        progress, progress_at = -1, time.monotonic()
        while not self._stopping.is_set():
            try:
                submission = submission or self._submit()
                if submission is not None:
                    self._tell(self._judge(submission))
                    return
            except TimeoutError:
                pass
            except SandboxError as error:
                self._tell(str(error))
                return
            now_done = self._count_done()
            if now_done != progress:
                progress, progress_at = now_done, time.monotonic()
            silent_s = time.monotonic() - progress_at
            if silent_s > self._silence_s:
                self._tell(f"neither the canary nor any other program came back for {silent_s:.0f} s")
        if submission is not None:
            self._executor.cancel([submission])

    def _submit(self) -> Submission | None:
        try:
            return self._executor.submit_now([CANARY], self._executor.ceiling)[0]
        except OverloadedError:
            self._stopping.wait(_TICK_S)
            return None

    def _judge(self, submission: Submission) -> str:
        """Return what is wrong with the canary's end; raises TimeoutError while it has none."""
        execution = submission.result(_TICK_S)
        if execution.stdout == CANARY_OUTPUT:
            return ""
        return f"the canary came back {execution.status.value}: {(execution.stdout + execution.stderr)[-300:]!r}"

    def _count_done(self) -> int:
        programs = self._executor.counters().programs
        return sum(count for (status, _), count in programs.items() if status is not ProgramStatus.SANDBOX_ERROR)

    def _tell(self, reason: str) -> None:
        has_changed = bool(reason) != bool(self._reason)
        self._reason = reason
        if has_changed:
            LOGGER.log(logging.ERROR if reason else logging.INFO, "canary: %s", reason or "comes back right")
            self.on_change(not reason)
