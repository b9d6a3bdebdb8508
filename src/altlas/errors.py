"""Every error that AltLAS raises on purpose.

AltlasError
 +- ConfigError       a key, a value or a command-line argument is wrong
 +- TaskError         a task file is wrong, or no such task
 +- VocabularyError   the vocabulary is missing, corrupt or holds a token twice
 +- CheckpointError   a checkpoint or a run directory is missing, corrupt or in the way
 +- SandboxError      the sandbox (never the program in it) failed
 +- ProtocolError     a peer sent what the contract forbids
 |   +- UnknownRunError    there is no such run
 +- AccessError       the caller may not do this: no or a wrong certificate, token or password
 +- FencedError       another coordinator leads the run by now
 +- StaleRunError     a role has lost its memory of the run, or is at another update: back to the newest checkpoint
 +- TransientError    may work when tried again: a peer or Redis is away
 |   +- OverloadedError    the peer has too much to do: try again later
 +- LearningError     the update cannot go on (a loss that is not finite)

A message says what was wrong, where, and what to do about it.
"""


class AltlasError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(AltlasError):
    """A configuration key, value or argument is wrong."""


class TaskError(AltlasError):
    """A task file is wrong, or there is no such task."""


class VocabularyError(AltlasError):
    """The vocabulary is missing, corrupt or holds a token twice."""


class CheckpointError(AltlasError):
    """A checkpoint or run directory is missing, corrupt or in the way."""


class SandboxError(AltlasError):
    """The sandbox failed; the program it was to run has no result."""


class ProtocolError(AltlasError):
    """A peer sent what the contract forbids."""


class UnknownRunError(ProtocolError):
    """There is no such run at this coordinator."""


class AccessError(AltlasError):
    """The caller may not do this."""


class FencedError(AltlasError):
    """The run is led by a later coordinator: whoever gets this has to stop touching it."""


class StaleRunError(AltlasError):
    """A role does not hold the run as its caller believes: the run has to go back to its newest checkpoint."""


class TransientError(AltlasError):
    """A peer or Redis is away for now; the operation may be repeated."""


class OverloadedError(TransientError):
    """The peer has as much waiting as it takes; nothing of the request was begun.

    Attributes:
        retry_after_s: when it is worth another try, in seconds, by the peer's own estimate.
    """

    def __init__(self, message: str = "", *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LearningError(AltlasError):
    """The update cannot go on, for example because its loss is not finite."""
