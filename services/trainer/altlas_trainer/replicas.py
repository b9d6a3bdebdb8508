"""A run's learner in every process of a trainer: rank 0 is asked, tells the others, and all do the same.

Invariants: between two commands every process's learner is in the same state. An error that a command causes is raised
in all of them, before or after which nothing differs; one that only some have ends every process.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from torch import Tensor

from altlas.core.policy import tensors_from_bytes, tensors_sha256, tensors_to_bytes
from altlas.core.score_batch import ScoreBatch
from altlas.core.trajectory import TrajectoryBatch
from altlas.errors import AltlasError
from altlas.rpc.batches import scores_from_proto, scores_to_proto
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.trainer.v1 import trainer_pb2
from altlas.rpc.trajectories import trajectories_from_proto, trajectories_to_proto
from altlas_trainer.group import Group, end_process
from altlas_trainer.learner import LearnReport, RunLearner
from altlas_trainer.runs import MadeLearner, make_learner

T = TypeVar("T")


class Kind(StrEnum):
    """What the processes can be told to do."""

    MAKE = "make"
    LEARN = "learn"
    LOAD = "load"
    COMPARE = "compare"
    WAIT = "wait"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What all do next.

    learner: number of the learner concerned. live: of all that are still used (make). meta: see `load_state`.
    body: a RunSpec (make), a LearnRequest (learn), tensors as a safetensors file (load).
    """

    kind: Kind
    learner: int = -1
    live: tuple[int, ...] = ()
    meta: Any = None
    body: bytes = b""

    def to_bytes(self) -> bytes:
        """Return one line of JSON, and the body."""
        header = {"kind": self.kind, "learner": self.learner, "live": self.live, "meta": self.meta}
        return json.dumps(header).encode() + b"\n" + self.body

    @classmethod
    def from_bytes(cls, content: bytes) -> Command:
        """Return what `to_bytes` was called on."""
        line, _, body = content.partition(b"\n")
        header = json.loads(line)
        return cls(
            kind=Kind(header["kind"]),
            learner=header["learner"],
            live=tuple(header["live"]),
            meta=header["meta"],
            body=body,
        )


class Leader:
    """Rank 0's end: makes learners, and tells the others what to do. To be used from one thread.

    Attributes:
        patience_s: for how long the others wait without a word.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self.patience_s = group.timeout_s
        self._numbers = itertools.count()
        self._learners: WeakValueDictionary[int, ReplicatedLearner] = WeakValueDictionary()

    def make_learner(self, spec: common_pb2.RunSpec, *, inspection_dir: Path | None = None) -> MadeLearner:
        """See `altlas_trainer.runs.make_learner`; the learner is one in each process."""
        number = next(self._numbers)
        live = (*sorted(self._learners), number)
        command = Command(kind=Kind.MAKE, learner=number, live=live, body=spec.SerializeToString())
        made = self.do(command, lambda: make_learner(spec, inspection_dir=inspection_dir, group=self._group))
        self._learners[number] = learner = ReplicatedLearner(self, number, made.learner)
        return replace(made, learner=learner)

    def do(self, command: Command, action: Callable[[], T]) -> T:
        """Have the others obey a command, do the same here, and return what that returned.

        Raises:
            AltlasError: of the action, in every process.
        """
        try:
            self._group.send(command.to_bytes())
            return _in_step(self._group, action)
        except AltlasError:
            raise
        except Exception:
            end_process(f"process 0 of the trainer cannot go on with {command.kind}: all of them end")

    def compare(self, number: int, learner: RunLearner) -> None:
        """End every process unless the learner is the same to the last bit in each."""
        self.do(Command(kind=Kind.COMPARE, learner=number), lambda: _compare(self._group, learner))

    def wait(self) -> None:
        """Tell the others that there is nothing to do, before they take this process for gone."""
        self.do(Command(kind=Kind.WAIT), lambda: None)

    def end(self) -> None:
        """Let the others end."""
        self.do(Command(kind=Kind.END), lambda: None)
        self._group.leave()


class ReplicatedLearner:
    """See RunLearner; whatever changes it happens in every process."""

    def __init__(self, leader: Leader, number: int, own: RunLearner) -> None:
        self._leader = leader
        self._number = number
        self._own = own
        self.updates = own.updates

    @property
    def parameters(self) -> int:
        """See RunLearner."""
        return self._own.parameters

    def learn(
        self, batch: TrajectoryBatch, scores: ScoreBatch, *, update: int, reinitialise: bool = False, task: int = 0
    ) -> LearnReport:
        """See RunLearner."""
        request = trainer_pb2.LearnRequest(
            update=update,
            behaviour_version=batch.policy_version,
            trajectories=[trajectories_to_proto(batch, [b""] * len(batch))],
            scores=scores_to_proto(scores),
            reinitialise=reinitialise,
            task=task,
        )
        report = self._leader.do(
            Command(kind=Kind.LEARN, learner=self._number, body=request.SerializeToString()),
            lambda: self._own.learn(batch, scores, update=update, reinitialise=reinitialise, task=task),
        )
        self.updates = self._own.updates
        return report

    def snapshot(self, task: int = 0) -> dict[str, Tensor]:
        """See RunLearner."""
        return self._own.snapshot(task)

    def sha256(self) -> str:
        """See RunLearner."""
        return self._own.sha256()

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See RunLearner. What differs between the processes is never returned: they end."""
        self._leader.compare(self._number, self._own)
        return self._own.state_dict()

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """See RunLearner."""
        self._leader.do(
            Command(kind=Kind.LOAD, learner=self._number, meta=meta, body=tensors_to_bytes(tensors)),
            lambda: self._own.load_state(tensors, meta),
        )
        self.updates = self._own.updates


def follow(group: Group) -> None:
    """Do what rank 0 says until it says to end. A process that cannot go on ends here."""
    made: dict[int, MadeLearner] = {}
    while True:
        kind = "what comes next"
        try:
            command = Command.from_bytes(group.receive())
            kind = command.kind
            if command.kind == Kind.END:
                _in_step(group, lambda: None)
                group.leave()
                return
            _in_step(group, lambda command=command: _obey(command, made, group))  # type: ignore[misc]
        except AltlasError:
            continue  # rank 0 has the same, and answers with it
        except Exception:
            end_process(f"process {group.rank} of the trainer cannot go on with {kind}: all of them end")


def _obey(command: Command, made: dict[int, MadeLearner], group: Group) -> None:
    match command.kind:
        case Kind.MAKE:
            for number in made.keys() - set(command.live):
                del made[number]
            made[command.learner] = make_learner(common_pb2.RunSpec.FromString(command.body), group=group)
        case Kind.LEARN:
            _learn(made[command.learner], trainer_pb2.LearnRequest.FromString(command.body))
        case Kind.LOAD:
            made[command.learner].learner.load_state(tensors_from_bytes(command.body), command.meta)
        case Kind.COMPARE:
            _compare(group, made[command.learner].learner)


def _learn(made: MadeLearner, request: trainer_pb2.LearnRequest) -> None:
    batch = trajectories_from_proto(
        request.trajectories,
        policy_version=request.behaviour_version,
        pad_id=made.vocabulary.pad_id,
        vocabulary_size=len(made.vocabulary),
    )
    made.learner.learn(
        batch,
        scores_from_proto(request.scores),
        update=request.update,
        reinitialise=request.reinitialise,
        task=request.task,
    )


def _in_step(group: Group, action: Callable[[], T]) -> T:
    """Do what all do, and return when all have; raise its error only when all have one."""
    try:
        outcome = action()
    except AltlasError as error:
        if group.count(is_so=True) != group.size:
            raise RuntimeError("only some of the trainer's processes have an error that all should have") from error
        raise
    if group.count(is_so=False):
        raise RuntimeError("another of the trainer's processes has an error, which its log tells")
    return outcome


def _compare(group: Group, learner: RunLearner) -> None:
    tensors, meta = learner.state_dict()
    digest = hashlib.sha256(f"{tensors_sha256(tensors)}{json.dumps(meta, sort_keys=True)}".encode())
    if not group.is_alike(digest.digest()):
        raise RuntimeError(
            f"the trainer's processes have come to differ by update {learner.updates}: nothing is written of it; run "
            "them on GPUs or processors of one kind, or set trainer.processes to 1"
        )
