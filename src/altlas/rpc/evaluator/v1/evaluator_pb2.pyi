from altlas.rpc.common.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EvaluateRequest(_message.Message):
    __slots__ = ("task_toml", "sources")
    TASK_TOML_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    task_toml: str
    sources: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, task_toml: _Optional[str] = ..., sources: _Optional[_Iterable[bytes]] = ...) -> None: ...

class EvaluateResponse(_message.Message):
    __slots__ = ("scores", "tier")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[_common_pb2.Score]
    tier: str
    def __init__(self, scores: _Optional[_Iterable[_Union[_common_pb2.Score, _Mapping]]] = ..., tier: _Optional[str] = ...) -> None: ...

class ExecuteRequest(_message.Message):
    __slots__ = ("programs", "limits")
    PROGRAMS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    programs: _containers.RepeatedCompositeFieldContainer[ExecuteProgram]
    limits: _common_pb2.Limits
    def __init__(self, programs: _Optional[_Iterable[_Union[ExecuteProgram, _Mapping]]] = ..., limits: _Optional[_Union[_common_pb2.Limits, _Mapping]] = ...) -> None: ...

class ExecuteProgram(_message.Message):
    __slots__ = ("source", "language", "stdin")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    source: bytes
    language: str
    stdin: bytes
    def __init__(self, source: _Optional[bytes] = ..., language: _Optional[str] = ..., stdin: _Optional[bytes] = ...) -> None: ...

class ExecuteResponse(_message.Message):
    __slots__ = ("executions", "tier")
    EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    executions: _containers.RepeatedCompositeFieldContainer[Execution]
    tier: str
    def __init__(self, executions: _Optional[_Iterable[_Union[Execution, _Mapping]]] = ..., tier: _Optional[str] = ...) -> None: ...

class ExecuteStreamRequest(_message.Message):
    __slots__ = ("index", "program", "limits")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    index: int
    program: ExecuteProgram
    limits: _common_pb2.Limits
    def __init__(self, index: _Optional[int] = ..., program: _Optional[_Union[ExecuteProgram, _Mapping]] = ..., limits: _Optional[_Union[_common_pb2.Limits, _Mapping]] = ...) -> None: ...

class ExecuteStreamResponse(_message.Message):
    __slots__ = ("index", "tier", "execution", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    tier: str
    execution: Execution
    error: str
    def __init__(self, index: _Optional[int] = ..., tier: _Optional[str] = ..., execution: _Optional[_Union[Execution, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class EvaluateStreamRequest(_message.Message):
    __slots__ = ("task_toml", "index", "source")
    TASK_TOML_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    task_toml: str
    index: int
    source: bytes
    def __init__(self, task_toml: _Optional[str] = ..., index: _Optional[int] = ..., source: _Optional[bytes] = ...) -> None: ...

class EvaluateStreamResponse(_message.Message):
    __slots__ = ("index", "tier", "score", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    tier: str
    score: _common_pb2.Score
    error: str
    def __init__(self, index: _Optional[int] = ..., tier: _Optional[str] = ..., score: _Optional[_Union[_common_pb2.Score, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class Execution(_message.Message):
    __slots__ = ("status", "stdout", "stderr", "exit_code", "cpu_s", "wall_s", "peak_memory_bytes")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    CPU_S_FIELD_NUMBER: _ClassVar[int]
    WALL_S_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    status: _common_pb2.ProgramStatus
    stdout: bytes
    stderr: bytes
    exit_code: int
    cpu_s: float
    wall_s: float
    peak_memory_bytes: int
    def __init__(self, status: _Optional[_Union[_common_pb2.ProgramStatus, str]] = ..., stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ..., exit_code: _Optional[int] = ..., cpu_s: _Optional[float] = ..., wall_s: _Optional[float] = ..., peak_memory_bytes: _Optional[int] = ...) -> None: ...

class GetCapabilitiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCapabilitiesResponse(_message.Message):
    __slots__ = ("tier", "layers", "languages", "slots", "ceiling")
    TIER_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    CEILING_FIELD_NUMBER: _ClassVar[int]
    tier: str
    layers: _containers.RepeatedScalarFieldContainer[str]
    languages: _containers.RepeatedScalarFieldContainer[str]
    slots: int
    ceiling: _common_pb2.Limits
    def __init__(self, tier: _Optional[str] = ..., layers: _Optional[_Iterable[str]] = ..., languages: _Optional[_Iterable[str]] = ..., slots: _Optional[int] = ..., ceiling: _Optional[_Union[_common_pb2.Limits, _Mapping]] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_id", "run_id", "update", "task_digest", "sources", "fingerprints")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    TASK_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINTS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    run_id: str
    update: int
    task_digest: str
    sources: _common_pb2.SourceBatch
    fingerprints: bytes
    def __init__(self, job_id: _Optional[str] = ..., run_id: _Optional[str] = ..., update: _Optional[int] = ..., task_digest: _Optional[str] = ..., sources: _Optional[_Union[_common_pb2.SourceBatch, _Mapping]] = ..., fingerprints: _Optional[bytes] = ...) -> None: ...

class JobResult(_message.Message):
    __slots__ = ("job_id", "worker", "scores", "seconds", "tier")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    worker: str
    scores: _common_pb2.ScoreBatch
    seconds: float
    tier: str
    def __init__(self, job_id: _Optional[str] = ..., worker: _Optional[str] = ..., scores: _Optional[_Union[_common_pb2.ScoreBatch, _Mapping]] = ..., seconds: _Optional[float] = ..., tier: _Optional[str] = ...) -> None: ...
