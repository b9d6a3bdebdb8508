from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ProgramStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROGRAM_STATUS_UNSPECIFIED: _ClassVar[ProgramStatus]
    PROGRAM_STATUS_OK: _ClassVar[ProgramStatus]
    PROGRAM_STATUS_SYNTAX_ERROR: _ClassVar[ProgramStatus]
    PROGRAM_STATUS_RUNTIME_ERROR: _ClassVar[ProgramStatus]
    PROGRAM_STATUS_TIMEOUT: _ClassVar[ProgramStatus]
    PROGRAM_STATUS_MEMORY_LIMIT: _ClassVar[ProgramStatus]
    PROGRAM_STATUS_OUTPUT_LIMIT: _ClassVar[ProgramStatus]
    PROGRAM_STATUS_FORBIDDEN: _ClassVar[ProgramStatus]
    PROGRAM_STATUS_SANDBOX_ERROR: _ClassVar[ProgramStatus]
PROGRAM_STATUS_UNSPECIFIED: ProgramStatus
PROGRAM_STATUS_OK: ProgramStatus
PROGRAM_STATUS_SYNTAX_ERROR: ProgramStatus
PROGRAM_STATUS_RUNTIME_ERROR: ProgramStatus
PROGRAM_STATUS_TIMEOUT: ProgramStatus
PROGRAM_STATUS_MEMORY_LIMIT: ProgramStatus
PROGRAM_STATUS_OUTPUT_LIMIT: ProgramStatus
PROGRAM_STATUS_FORBIDDEN: ProgramStatus
PROGRAM_STATUS_SANDBOX_ERROR: ProgramStatus

class Limits(_message.Message):
    __slots__ = ("cpu_s", "wall_s", "memory_bytes", "output_bytes", "open_files", "processes", "file_bytes")
    CPU_S_FIELD_NUMBER: _ClassVar[int]
    WALL_S_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPEN_FILES_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    cpu_s: float
    wall_s: float
    memory_bytes: int
    output_bytes: int
    open_files: int
    processes: int
    file_bytes: int
    def __init__(self, cpu_s: _Optional[float] = ..., wall_s: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ..., open_files: _Optional[int] = ..., processes: _Optional[int] = ..., file_bytes: _Optional[int] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("status", "reward", "components", "cases_passed", "cases", "solved", "verified", "behaviour", "error", "case_rewards")
    class ComponentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    CASES_PASSED_FIELD_NUMBER: _ClassVar[int]
    CASES_FIELD_NUMBER: _ClassVar[int]
    SOLVED_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOUR_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CASE_REWARDS_FIELD_NUMBER: _ClassVar[int]
    status: ProgramStatus
    reward: float
    components: _containers.ScalarMap[str, float]
    cases_passed: int
    cases: int
    solved: bool
    verified: bool
    behaviour: bytes
    error: str
    case_rewards: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, status: _Optional[_Union[ProgramStatus, str]] = ..., reward: _Optional[float] = ..., components: _Optional[_Mapping[str, float]] = ..., cases_passed: _Optional[int] = ..., cases: _Optional[int] = ..., solved: _Optional[bool] = ..., verified: _Optional[bool] = ..., behaviour: _Optional[bytes] = ..., error: _Optional[str] = ..., case_rewards: _Optional[_Iterable[float]] = ...) -> None: ...

class ScoreBatch(_message.Message):
    __slots__ = ("count", "cases", "statuses", "rewards", "flags", "cases_passed", "behaviours", "case_rewards", "component_names", "components", "errors")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    CASES_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    CASES_PASSED_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOURS_FIELD_NUMBER: _ClassVar[int]
    CASE_REWARDS_FIELD_NUMBER: _ClassVar[int]
    COMPONENT_NAMES_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    count: int
    cases: int
    statuses: bytes
    rewards: bytes
    flags: bytes
    cases_passed: bytes
    behaviours: bytes
    case_rewards: bytes
    component_names: _containers.RepeatedScalarFieldContainer[str]
    components: bytes
    errors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, count: _Optional[int] = ..., cases: _Optional[int] = ..., statuses: _Optional[bytes] = ..., rewards: _Optional[bytes] = ..., flags: _Optional[bytes] = ..., cases_passed: _Optional[bytes] = ..., behaviours: _Optional[bytes] = ..., case_rewards: _Optional[bytes] = ..., component_names: _Optional[_Iterable[str]] = ..., components: _Optional[bytes] = ..., errors: _Optional[_Iterable[str]] = ...) -> None: ...

class TrajectoryBatch(_message.Message):
    __slots__ = ("first_index", "policy_version", "lengths", "tokens", "log_probs", "entropies", "origins", "sources")
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBS_FIELD_NUMBER: _ClassVar[int]
    ENTROPIES_FIELD_NUMBER: _ClassVar[int]
    ORIGINS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    first_index: int
    policy_version: int
    lengths: bytes
    tokens: bytes
    log_probs: bytes
    entropies: bytes
    origins: bytes
    sources: SourceBatch
    def __init__(self, first_index: _Optional[int] = ..., policy_version: _Optional[int] = ..., lengths: _Optional[bytes] = ..., tokens: _Optional[bytes] = ..., log_probs: _Optional[bytes] = ..., entropies: _Optional[bytes] = ..., origins: _Optional[bytes] = ..., sources: _Optional[_Union[SourceBatch, _Mapping]] = ...) -> None: ...

class SourceBatch(_message.Message):
    __slots__ = ("sizes", "text")
    SIZES_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    sizes: bytes
    text: bytes
    def __init__(self, sizes: _Optional[bytes] = ..., text: _Optional[bytes] = ...) -> None: ...

class RunSpec(_message.Message):
    __slots__ = ("run_id", "task_toml", "task_digest", "task_name", "vocabulary_json", "config_json", "run_dir", "further_tasks")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_TOML_FIELD_NUMBER: _ClassVar[int]
    TASK_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TASK_NAME_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_JSON_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    RUN_DIR_FIELD_NUMBER: _ClassVar[int]
    FURTHER_TASKS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task_toml: str
    task_digest: str
    task_name: str
    vocabulary_json: str
    config_json: str
    run_dir: str
    further_tasks: _containers.RepeatedCompositeFieldContainer[TaskSpec]
    def __init__(self, run_id: _Optional[str] = ..., task_toml: _Optional[str] = ..., task_digest: _Optional[str] = ..., task_name: _Optional[str] = ..., vocabulary_json: _Optional[str] = ..., config_json: _Optional[str] = ..., run_dir: _Optional[str] = ..., further_tasks: _Optional[_Iterable[_Union[TaskSpec, _Mapping]]] = ...) -> None: ...

class TaskSpec(_message.Message):
    __slots__ = ("name", "toml", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOML_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    toml: str
    digest: str
    def __init__(self, name: _Optional[str] = ..., toml: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...
