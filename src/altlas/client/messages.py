"""What callers of the client give and get, and the messages that it travels in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from altlas.core.program import Execution, Limits, Program
from altlas.errors import ConfigError
from altlas.rpc.convert import limits_from_proto, status_from_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2

Source: TypeAlias = str | bytes
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an evaluator can do.

    `tier` names how programs are confined ("namespaces", "landlock", or "unsafe"), `layers` lists by what. `slots` is
    the number of programs run at once, `ceiling` the most that one may ask for.
    """

    tier: str
    layers: tuple[str, ...]
    languages: tuple[str, ...]
    slots: int
    ceiling: Limits


def capabilities_from_proto(message: evaluator_pb2.GetCapabilitiesResponse) -> Capabilities:
    """Return capabilities from a message."""
    return Capabilities(
        tier=message.tier,
        layers=tuple(message.layers),
        languages=tuple(message.languages),
        slots=message.slots,
        ceiling=limits_from_proto(message.ceiling, Limits()),
    )


def execution_from_proto(message: evaluator_pb2.Execution) -> Execution:
    """Return an execution from a message; whether the input was read does not travel.

    Raises:
        ProtocolError: a status that is not one of ours.
    """
    return Execution(
        status=status_from_proto(message.status),
        stdout=message.stdout,
        stderr=message.stderr,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        cpu_s=message.cpu_s,
        wall_s=message.wall_s,
        peak_memory_bytes=message.peak_memory_bytes,
    )


def encode_sources(sources: Sequence[Source]) -> list[bytes]:
    """Return every source as UTF-8.

    Raises:
        ConfigError: not a sequence of texts or bytes.
    """
    return [_encode(source, f"program {index}") for index, source in _enumerate(sources)]


def make_programs(sources: Sequence[Source | Program], *, language: str, stdin: Source) -> list[Program]:
    """Return programs: a Program as it is, a source with `language` and `stdin`.

    Raises:
        ConfigError: not a sequence of texts, bytes or Programs.
    """
    same_stdin = _encode(stdin, "stdin")
    programs = [
        source
        if isinstance(source, Program)
        else Program(source=_encode(source, f"program {index}"), language=language, stdin=same_stdin)
        for index, source in _enumerate(sources)
    ]
    for index, program in enumerate(programs):
        if not (isinstance(program.source, bytes) and isinstance(program.stdin, bytes)):
            raise ConfigError(f"program {index}: source and stdin of a Program are bytes")
    return programs


def _enumerate(sources: Sequence[T]) -> Iterable[tuple[int, T]]:
    # To Python a text is a sequence of texts: of programs of one character.
    if isinstance(sources, str | bytes | Program):
        raise ConfigError("sources is one program: pass a list of programs")
    return enumerate(sources)


def _encode(text: Source, what: str) -> bytes:
    """Return text as UTF-8. Half a character, as a tokenizer may leave it, stays wrong: a program's syntax error."""
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    raise ConfigError(f"{what} is {type(text).__name__}: pass text or bytes")
