"""Says whether the evaluator can do its work, by doing it: a canary program every few seconds through the executor."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from altlas.core.program import Execution
from altlas.errors import SandboxError
from altlas_evaluator.engine import Executor
from altlas_evaluator.sandbox.probe import CANARY, CANARY_OUTPUT

LOGGER = logging.getLogger(__name__)
EVERY_S = 5.0
# A canary waits in the queue like any program, so a full one must not read as a dead one.
SILENCE_S = 60.0


class Canary:
    """Runs the canary from a thread of its own until stopped.

    Attributes:
        on_change: called from that thread with whether the evaluator is ready, each time that changes.
    """

    def __init__(self, executor: Executor, *, every_s: float = EVERY_S) -> None:
        self.on_change: Callable[[bool], None] = lambda is_ready: None
        self._executor = executor
        self._every_s = every_s
        self._reason = "the canary has not come back yet"
        self._answered_at = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="canary", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; before the executor is closed."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def not_ready(self) -> str:
        """Return why the evaluator cannot do its work, or an empty text when it can."""
        silent_s = time.monotonic() - self._answered_at
        return self._reason or (f"no canary came back for {silent_s:.0f} s" if silent_s > SILENCE_S else "")

    def _run(self) -> None:
        while True:
            reason = self._try()
            self._answered_at = time.monotonic()
            if bool(reason) != bool(self._reason):
                LOGGER.log(logging.ERROR if reason else logging.INFO, "canary: %s", reason or "comes back right")
                self._reason = reason
                self.on_change(not reason)
            self._reason = reason
            if self._stopping.wait(self._every_s):
                return

    def _try(self) -> str:
        limits = self._executor.ceiling
        try:
            execution: Execution = self._executor.submit(CANARY, limits).result()
        except SandboxError as error:
            return str(error)
        if execution.stdout == CANARY_OUTPUT:
            return ""
        return f"the canary came back {execution.status.value}: {(execution.stdout + execution.stderr)[-300:]!r}"
