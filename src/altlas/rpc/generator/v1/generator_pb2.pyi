from altlas.rpc.common.v1 import common_pb2 as _common_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SampleRequest(_message.Message):
    __slots__ = ("run_id", "policy_version", "update", "first_index", "count", "task", "fence")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    policy_version: int
    update: int
    first_index: int
    count: int
    task: int
    fence: int
    def __init__(self, run_id: _Optional[str] = ..., policy_version: _Optional[int] = ..., update: _Optional[int] = ..., first_index: _Optional[int] = ..., count: _Optional[int] = ..., task: _Optional[int] = ..., fence: _Optional[int] = ...) -> None: ...

class SampleResponse(_message.Message):
    __slots__ = ("trajectories",)
    TRAJECTORIES_FIELD_NUMBER: _ClassVar[int]
    trajectories: _common_pb2.TrajectoryBatch
    def __init__(self, trajectories: _Optional[_Union[_common_pb2.TrajectoryBatch, _Mapping]] = ...) -> None: ...
