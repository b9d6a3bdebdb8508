from altlas.rpc.common.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATE_UNSPECIFIED: _ClassVar[RunState]
    RUN_STATE_RUNNING: _ClassVar[RunState]
    RUN_STATE_PAUSED: _ClassVar[RunState]
    RUN_STATE_FINISHED: _ClassVar[RunState]
    RUN_STATE_FAILED: _ClassVar[RunState]

class StopReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_REASON_UNSPECIFIED: _ClassVar[StopReason]
    STOP_REASON_SOLVED: _ClassVar[StopReason]
    STOP_REASON_BUDGET: _ClassVar[StopReason]
    STOP_REASON_WALL_CLOCK: _ClassVar[StopReason]
    STOP_REASON_STUCK: _ClassVar[StopReason]
    STOP_REASON_REQUESTED: _ClassVar[StopReason]
RUN_STATE_UNSPECIFIED: RunState
RUN_STATE_RUNNING: RunState
RUN_STATE_PAUSED: RunState
RUN_STATE_FINISHED: RunState
RUN_STATE_FAILED: RunState
STOP_REASON_UNSPECIFIED: StopReason
STOP_REASON_SOLVED: StopReason
STOP_REASON_BUDGET: StopReason
STOP_REASON_WALL_CLOCK: StopReason
STOP_REASON_STUCK: StopReason
STOP_REASON_REQUESTED: StopReason

class Run(_message.Message):
    __slots__ = ("spec", "state", "stop_reason", "error", "progress", "policy_sha256", "checkpoint")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    POLICY_SHA256_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    spec: _common_pb2.RunSpec
    state: RunState
    stop_reason: StopReason
    error: str
    progress: Progress
    policy_sha256: str
    checkpoint: str
    def __init__(self, spec: _Optional[_Union[_common_pb2.RunSpec, _Mapping]] = ..., state: _Optional[_Union[RunState, str]] = ..., stop_reason: _Optional[_Union[StopReason, str]] = ..., error: _Optional[str] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., policy_sha256: _Optional[str] = ..., checkpoint: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("update", "programs", "budget", "unique_programs", "evaluated_programs", "best_reward", "best_program", "solved", "verified", "mean_reward", "max_reward", "seconds", "stage_s", "metrics", "statuses", "task", "tasks", "lag")
    class StageSEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class StatusesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    PROGRAMS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    UNIQUE_PROGRAMS_FIELD_NUMBER: _ClassVar[int]
    EVALUATED_PROGRAMS_FIELD_NUMBER: _ClassVar[int]
    BEST_REWARD_FIELD_NUMBER: _ClassVar[int]
    BEST_PROGRAM_FIELD_NUMBER: _ClassVar[int]
    SOLVED_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    MEAN_REWARD_FIELD_NUMBER: _ClassVar[int]
    MAX_REWARD_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    STAGE_S_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    update: int
    programs: int
    budget: int
    unique_programs: int
    evaluated_programs: int
    best_reward: float
    best_program: str
    solved: bool
    verified: bool
    mean_reward: float
    max_reward: float
    seconds: float
    stage_s: _containers.ScalarMap[str, float]
    metrics: _containers.ScalarMap[str, float]
    statuses: _containers.ScalarMap[str, int]
    task: int
    tasks: _containers.RepeatedCompositeFieldContainer[TaskProgress]
    lag: int
    def __init__(self, update: _Optional[int] = ..., programs: _Optional[int] = ..., budget: _Optional[int] = ..., unique_programs: _Optional[int] = ..., evaluated_programs: _Optional[int] = ..., best_reward: _Optional[float] = ..., best_program: _Optional[str] = ..., solved: _Optional[bool] = ..., verified: _Optional[bool] = ..., mean_reward: _Optional[float] = ..., max_reward: _Optional[float] = ..., seconds: _Optional[float] = ..., stage_s: _Optional[_Mapping[str, float]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., statuses: _Optional[_Mapping[str, int]] = ..., task: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[TaskProgress, _Mapping]]] = ..., lag: _Optional[int] = ...) -> None: ...

class TaskProgress(_message.Message):
    __slots__ = ("name", "updates", "programs", "solved", "verified", "best_reward", "best_program", "programs_to_solve", "programs_to_verify", "restarts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    PROGRAMS_FIELD_NUMBER: _ClassVar[int]
    SOLVED_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    BEST_REWARD_FIELD_NUMBER: _ClassVar[int]
    BEST_PROGRAM_FIELD_NUMBER: _ClassVar[int]
    PROGRAMS_TO_SOLVE_FIELD_NUMBER: _ClassVar[int]
    PROGRAMS_TO_VERIFY_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    updates: int
    programs: int
    solved: bool
    verified: bool
    best_reward: float
    best_program: str
    programs_to_solve: int
    programs_to_verify: int
    restarts: int
    def __init__(self, name: _Optional[str] = ..., updates: _Optional[int] = ..., programs: _Optional[int] = ..., solved: _Optional[bool] = ..., verified: _Optional[bool] = ..., best_reward: _Optional[float] = ..., best_program: _Optional[str] = ..., programs_to_solve: _Optional[int] = ..., programs_to_verify: _Optional[int] = ..., restarts: _Optional[int] = ...) -> None: ...

class RunEvent(_message.Message):
    __slots__ = ("sequence", "state", "progress", "message")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    state: RunState
    progress: Progress
    message: str
    def __init__(self, sequence: _Optional[int] = ..., state: _Optional[_Union[RunState, str]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., message: _Optional[str] = ...) -> None: ...

class CreateRunRequest(_message.Message):
    __slots__ = ("request_id", "spec", "resume")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    spec: _common_pb2.RunSpec
    resume: bool
    def __init__(self, request_id: _Optional[str] = ..., spec: _Optional[_Union[_common_pb2.RunSpec, _Mapping]] = ..., resume: _Optional[bool] = ...) -> None: ...

class CreateRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("run_id", "after_sequence")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    after_sequence: int
    def __init__(self, run_id: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class WatchRunResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: RunEvent
    def __init__(self, event: _Optional[_Union[RunEvent, _Mapping]] = ...) -> None: ...

class PauseRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class PauseRunResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class ResumeRunResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class StopRunResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListWorkersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("name", "run_id", "jobs_pending", "idle_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    JOBS_PENDING_FIELD_NUMBER: _ClassVar[int]
    IDLE_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    run_id: str
    jobs_pending: int
    idle_s: float
    def __init__(self, name: _Optional[str] = ..., run_id: _Optional[str] = ..., jobs_pending: _Optional[int] = ..., idle_s: _Optional[float] = ...) -> None: ...

class RunRecord(_message.Message):
    __slots__ = ("request", "run", "coordinator")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    request: CreateRunRequest
    run: Run
    coordinator: str
    def __init__(self, request: _Optional[_Union[CreateRunRequest, _Mapping]] = ..., run: _Optional[_Union[Run, _Mapping]] = ..., coordinator: _Optional[str] = ...) -> None: ...
