from altlas.rpc.common.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OpenRunRequest(_message.Message):
    __slots__ = ("spec", "resume", "fence")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    spec: _common_pb2.RunSpec
    resume: bool
    fence: int
    def __init__(self, spec: _Optional[_Union[_common_pb2.RunSpec, _Mapping]] = ..., resume: _Optional[bool] = ..., fence: _Optional[int] = ...) -> None: ...

class OpenRunResponse(_message.Message):
    __slots__ = ("policy_version", "coordinator_state", "checkpoint", "warning", "device", "parameters", "policy_sha256", "checkpoint_fence")
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_STATE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    POLICY_SHA256_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FENCE_FIELD_NUMBER: _ClassVar[int]
    policy_version: int
    coordinator_state: bytes
    checkpoint: str
    warning: str
    device: str
    parameters: int
    policy_sha256: str
    checkpoint_fence: int
    def __init__(self, policy_version: _Optional[int] = ..., coordinator_state: _Optional[bytes] = ..., checkpoint: _Optional[str] = ..., warning: _Optional[str] = ..., device: _Optional[str] = ..., parameters: _Optional[int] = ..., policy_sha256: _Optional[str] = ..., checkpoint_fence: _Optional[int] = ...) -> None: ...

class LearnRequest(_message.Message):
    __slots__ = ("run_id", "update", "behaviour_version", "trajectories", "scores", "reinitialise", "task", "fence")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOUR_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORIES_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    REINITIALISE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    update: int
    behaviour_version: int
    trajectories: _containers.RepeatedCompositeFieldContainer[_common_pb2.TrajectoryBatch]
    scores: _common_pb2.ScoreBatch
    reinitialise: bool
    task: int
    fence: int
    def __init__(self, run_id: _Optional[str] = ..., update: _Optional[int] = ..., behaviour_version: _Optional[int] = ..., trajectories: _Optional[_Iterable[_Union[_common_pb2.TrajectoryBatch, _Mapping]]] = ..., scores: _Optional[_Union[_common_pb2.ScoreBatch, _Mapping]] = ..., reinitialise: _Optional[bool] = ..., task: _Optional[int] = ..., fence: _Optional[int] = ...) -> None: ...

class LearnResponse(_message.Message):
    __slots__ = ("policy_version", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    policy_version: int
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, policy_version: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ("run_id", "min_version", "task", "fence")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    min_version: int
    task: int
    fence: int
    def __init__(self, run_id: _Optional[str] = ..., min_version: _Optional[int] = ..., task: _Optional[int] = ..., fence: _Optional[int] = ...) -> None: ...

class GetPolicyResponse(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: PolicyHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[PolicyHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class PolicyHeader(_message.Message):
    __slots__ = ("spec", "policy_version", "size_bytes", "sha256", "fence")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    spec: _common_pb2.RunSpec
    policy_version: int
    size_bytes: int
    sha256: bytes
    fence: int
    def __init__(self, spec: _Optional[_Union[_common_pb2.RunSpec, _Mapping]] = ..., policy_version: _Optional[int] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ..., fence: _Optional[int] = ...) -> None: ...

class SaveCheckpointRequest(_message.Message):
    __slots__ = ("run_id", "update", "coordinator_state", "fence", "mean_reward", "is_last")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_STATE_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    MEAN_REWARD_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    update: int
    coordinator_state: bytes
    fence: int
    mean_reward: float
    is_last: bool
    def __init__(self, run_id: _Optional[str] = ..., update: _Optional[int] = ..., coordinator_state: _Optional[bytes] = ..., fence: _Optional[int] = ..., mean_reward: _Optional[float] = ..., is_last: _Optional[bool] = ...) -> None: ...

class SaveCheckpointResponse(_message.Message):
    __slots__ = ("path", "policy_sha256", "size_bytes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    POLICY_SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    policy_sha256: str
    size_bytes: int
    def __init__(self, path: _Optional[str] = ..., policy_sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[CheckpointInfo]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[CheckpointInfo, _Mapping]]] = ...) -> None: ...

class CheckpointInfo(_message.Message):
    __slots__ = ("path", "update", "valid", "problem")
    PATH_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    path: str
    update: int
    valid: bool
    problem: str
    def __init__(self, path: _Optional[str] = ..., update: _Optional[int] = ..., valid: _Optional[bool] = ..., problem: _Optional[str] = ...) -> None: ...
