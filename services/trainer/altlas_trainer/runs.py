"""The trainer's runs: each a learner, its checkpoint store and the answer to its last update.

Invariant: a run's state changes only in `learn`, once per update, whatever is repeated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from altlas.checkpoint.store import CheckpointStore, LoadedCheckpoint
from altlas.config.loader import config_digest, config_from_json
from altlas.core.curriculum import task_lengths
from altlas.core.device import DeviceChoice, choose_device
from altlas.core.grammar import build_constraint
from altlas.core.policy import tensors_to_bytes
from altlas.core.vocabulary import Vocabulary, parse_vocabulary
from altlas.errors import CheckpointError, ProtocolError, StaleRunError
from altlas.rpc.batches import scores_from_proto
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.tasks import parse_tasks, task_specs
from altlas.rpc.trainer.v1 import trainer_pb2
from altlas.rpc.trajectories import trajectories_from_proto
from altlas_trainer.learner import RunLearner, build_run_learner
from altlas_trainer.metrics import phase

if TYPE_CHECKING:
    from altlas_trainer.group import Group
    from altlas_trainer.replicas import Leader

_STATE_FILE = "trainer.safetensors"
_META_FILE = "trainer.json"
_COORDINATOR_FILE = "coordinator.bin"


@dataclass
class TrainerRun:
    """One run in the trainer's hands."""

    spec: common_pb2.RunSpec
    learner: RunLearner
    store: CheckpointStore
    device: DeviceChoice
    vocabulary: Vocabulary
    fence: int = 0
    coordinator_state: bytes = b""
    loaded: LoadedCheckpoint | None = None
    last_response: trainer_pb2.LearnResponse | None = None
    snapshots: dict[tuple[int, int], bytes] = field(default_factory=dict)  # by version and task
    versions_kept: int = 1
    is_async: bool = False

    @property
    def policy_version(self) -> int:
        """The number of updates done."""
        return self.learner.updates

    def policy_snapshot(self, task: int) -> bytes:
        """Return what a task's programs are proposed from as a safetensors file; made once per version.

        Raises:
            ProtocolError: the run has no such task.
        """
        self._check_task(task)
        key = (self.policy_version, task)
        if key not in self.snapshots:
            self._keep(key, tensors_to_bytes(self.learner.snapshot(task)))
        return self.snapshots[key]

    @phase("publish")
    def publish(self) -> None:
        """Make the policy's snapshots of every task now, so that whoever fetches one need not wait for an update."""
        for task in range(len(task_specs(self.spec))):
            self.policy_snapshot(task)

    def _keep(self, key: tuple[int, int], content: bytes) -> None:
        # Replaced and not changed: another thread reads it.
        oldest = self.policy_version - self.versions_kept + 1
        recent = {held: snapshot for held, snapshot in self.snapshots.items() if held[0] >= oldest}
        self.snapshots = recent | {key: content}

    def _check_task(self, task: int) -> None:
        tasks = len(task_specs(self.spec))
        if task >= tasks:
            raise ProtocolError(f"run {self.spec.run_id}: task {task} asked for, it has {tasks}, counted from 0")

    def learn(self, request: trainer_pb2.LearnRequest) -> trainer_pb2.LearnResponse:
        """Do update `request.update`, or answer as before when it was the last one done.

        Raises:
            StaleRunError: another update is due.
            ProtocolError: trajectories and scores do not match, or there is no such task.
            LearningError: the loss is not finite; the batch is saved and nothing has changed.
        """
        if request.update + 1 == self.policy_version and self.last_response is not None:
            return self.last_response
        if request.update != self.policy_version:
            raise StaleRunError(
                f"update {request.update} of run {self.spec.run_id} came while {self.policy_version} is due: "
                "the run has to go back to its newest checkpoint"
            )
        self._check_task(request.task)
        with phase("read"):
            batch = trajectories_from_proto(
                request.trajectories,
                policy_version=request.behaviour_version,
                pad_id=self.vocabulary.pad_id,
                vocabulary_size=len(self.vocabulary),
            )
            scores = scores_from_proto(request.scores)
        with phase("step"):
            report = self.learner.learn(
                batch, scores, update=request.update, reinitialise=request.reinitialise, task=request.task
            )
        self.last_response = trainer_pb2.LearnResponse(policy_version=report.policy_version, metrics=report.metrics)
        if self.is_async:
            self.publish()
        return self.last_response

    def save_checkpoint(self, request: trainer_pb2.SaveCheckpointRequest) -> trainer_pb2.SaveCheckpointResponse:
        """Write a checkpoint of the present update.

        Raises:
            StaleRunError: the caller believes the run to be at another update.
            CheckpointError: the directory cannot be written.
        """
        if request.update != self.policy_version:
            raise StaleRunError(f"checkpoint of update {request.update} asked for at update {self.policy_version}")
        tensors, meta = self.learner.state_dict()
        last = self.last_response.SerializeToString().hex() if self.last_response else ""
        files = {
            _STATE_FILE: save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}),
            _META_FILE: json.dumps({"trainer": meta, "last_response": last}, sort_keys=True).encode(),
            _COORDINATOR_FILE: request.coordinator_state,
        }
        path = self.store.save(
            request.update, files, self._manifest(), mean_reward=request.mean_reward, fence=self.fence
        )
        self.coordinator_state = request.coordinator_state
        return trainer_pb2.SaveCheckpointResponse(
            path=str(path),
            policy_sha256=self.learner.sha256(),
            size_bytes=sum(len(content) for content in files.values()),
        )

    def resume(self) -> None:
        """Load the newest valid checkpoint.

        Raises:
            CheckpointError: there is none, or it belongs to another run, task or vocabulary.
        """
        self.loaded = self.store.load_newest()
        found, due = self.loaded.manifest.get("extra", {}), self._manifest()
        if found.get("run_id") != due["run_id"]:
            raise CheckpointError(
                f"{self.loaded.path} is of run {found.get('run_id')}, not of {due['run_id']}: "
                "name another directory, or resume that run"
            )
        for key, absent in (("task_digest", None), ("further_task_digests", []), ("vocabulary_digest", None)):
            if found.get(key, absent) != due[key]:
                raise CheckpointError(
                    f"{self.loaded.path}: its {key} is {found.get(key)}, this run's is {due[key]}: "
                    "resume with the tasks, reward settings and vocabulary it was started with"
                )
        meta = json.loads(self.loaded.files[_META_FILE])
        self.learner.load_state(load_tensors(self.loaded.files[_STATE_FILE]), meta["trainer"])
        if meta["last_response"]:
            self.last_response = trainer_pb2.LearnResponse.FromString(bytes.fromhex(meta["last_response"]))
        self.coordinator_state = self.loaded.files[_COORDINATOR_FILE]

    def _manifest(self) -> dict[str, Any]:
        config = config_from_json(self.spec.config_json)
        return {
            "run_id": self.spec.run_id,
            "task": self.spec.task_name,
            "task_digest": self.spec.task_digest,
            "further_task_digests": [task.digest for task in self.spec.further_tasks],
            "vocabulary_digest": self.vocabulary.digest,
            "config_digest": config_digest(config),
            "config": json.loads(self.spec.config_json),
        }


@dataclass(frozen=True, slots=True)
class MadeLearner:
    """A run's learner at its beginning, and what it was made with."""

    learner: RunLearner
    device: DeviceChoice
    vocabulary: Vocabulary


def make_learner(
    spec: common_pb2.RunSpec, *, inspection_dir: Path | None = None, group: Group | None = None
) -> MadeLearner:
    """Build a run's learner from its spec, with fresh weights; in a group, this process's.

    Raises:
        AltlasError: configuration, task, vocabulary or device is wrong.
    """
    config = config_from_json(spec.config_json)
    tasks = parse_tasks(spec)
    task = tasks[0]
    vocabulary = parse_vocabulary(spec.vocabulary_json, name=task.vocabulary, where="the run's vocabulary")
    device = choose_device(config.model.device)
    if group is not None:
        device = group.place(device)
    learner = build_run_learner(
        config,
        max_tokens=task_lengths(config, tasks),
        vocabulary=vocabulary,
        constraint=build_constraint(
            vocabulary, language=task.language, grammar=config.sampling.grammar, length=config.sampling.length
        ),
        device=device.device,
        seed=config.run.seed,
        inspection_dir=inspection_dir,
        group=group,
    )
    return MadeLearner(learner, device, vocabulary)


def open_run(spec: common_pb2.RunSpec, *, resume: bool, fence: int = 0, leader: Leader | None = None) -> TrainerRun:
    """Build a run's learner from its spec: from the newest valid checkpoint, or with fresh weights where none is.

    With `resume` there has to be one. With a `leader` the learner is one in each of its processes.

    Raises:
        AltlasError: configuration, task, vocabulary, device or checkpoint is wrong.
    """
    config = config_from_json(spec.config_json)
    run_dir = Path(spec.run_dir)
    make = make_learner if leader is None else leader.make_learner
    made = make(spec, inspection_dir=run_dir)
    run = TrainerRun(
        spec=spec,
        learner=made.learner,
        store=CheckpointStore(
            run_dir / "checkpoints",
            keep_last=config.run.keep_last,
            keep_best=config.run.keep_best,
            keep_every=config.run.keep_every,
        ),
        device=made.device,
        vocabulary=made.vocabulary,
        fence=fence,
        # A generator asks for the version it was told of, while the next update may have been learned.
        versions_kept=config.run.max_lag + 2 if config.run.mode == "async" else 1,
        is_async=config.run.mode == "async",
    )
    if resume or run.store.list():
        run.resume()
    return run
