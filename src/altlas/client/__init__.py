"""Run and score programs on an AltLAS evaluator from your own code.

`Evaluator` blocks and may be shared by threads; `AsyncEvaluator` has the same methods to await. docs/client.md shows
both. Neither torch nor numpy is loaded.
"""

from altlas.client.asynchronous import AsyncEvaluator
from altlas.client.batches import RefusedProgramError
from altlas.client.blocking import Evaluator
from altlas.client.messages import Capabilities
from altlas.core.program import Execution, Limits, Program, ProgramStatus
from altlas.core.score import Score
from altlas.core.task import Task

__all__ = [
    "AsyncEvaluator",
    "Capabilities",
    "Evaluator",
    "Execution",
    "Limits",
    "Program",
    "ProgramStatus",
    "RefusedProgramError",
    "Score",
    "Task",
]
