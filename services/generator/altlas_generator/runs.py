"""The generator's runs: a proposer, made from what the trainer publishes. Everything comes from there, so a generator
that was restarted knows after one call what the dead one knew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from altlas.config.loader import config_from_json
from altlas.config.sections import Config
from altlas.core.curriculum import task_lengths, with_max_tokens
from altlas.core.device import choose_device
from altlas.core.grammar import TokenConstraint, build_constraint
from altlas.core.policy import tensors_from_bytes
from altlas.core.proposals import Proposer, build_proposer
from altlas.core.vocabulary import Vocabulary, parse_vocabulary
from altlas.errors import ProtocolError
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.generator.v1 import generator_pb2
from altlas.rpc.tasks import parse_tasks
from altlas.rpc.trainer.v1 import trainer_pb2
from altlas.rpc.trajectories import trajectories_to_proto
from altlas_generator.decoding import DecodeBatch, build_decoder

PART = 4096


@dataclass
class GeneratorRun:
    """One run's proposer, at one policy version and for one task. `max_tokens`: of each task, by position."""

    spec: common_pb2.RunSpec
    config: Config
    max_tokens: Sequence[int]
    vocabulary: Vocabulary
    constraint: TokenConstraint
    device: torch.device
    decode_batch: DecodeBatch
    proposer: Proposer | None = None
    policy_version: int = -1
    task: int = 0
    fence: int = 0

    def load(self, header: trainer_pb2.PolicyHeader, content: bytes, *, task: int = 0) -> None:
        """Take over weights and a task's elites from the trainer.

        Raises:
            ProtocolError: the bytes are not what the header promised, or the run has no such task.
        """
        if task >= len(self.max_tokens):
            raise ProtocolError(f"task {task} asked for, the run has {len(self.max_tokens)}, counted from 0")
        if len(content) != header.size_bytes or hashlib.sha256(content).digest() != header.sha256:
            raise ProtocolError(f"policy version {header.policy_version} arrived damaged: size or SHA-256 differ")
        self.proposer = build_proposer(
            tensors_from_bytes(content),
            with_max_tokens(self.config, self.max_tokens[task]),
            vocabulary=self.vocabulary,
            constraint=self.constraint,
            device=self.device,
        )
        self.policy_version, self.task, self.fence = header.policy_version, task, header.fence

    def holds(self, request: generator_pb2.SampleRequest) -> bool:
        """Whether the policy that a request asks for is loaded."""
        wanted = (request.fence, request.policy_version, request.task)
        return (self.fence, self.policy_version, self.task) == wanted

    def sample(self, *, update: int, first_index: int, count: int) -> list[common_pb2.TrajectoryBatch]:
        """Draw programs `first_index` .. `first_index + count - 1` of an update, in parts of at most PART.

        Raises:
            ProtocolError: no weights have been loaded.
        """
        if self.proposer is None:
            raise ProtocolError("no policy has been loaded")
        batch = self.proposer.propose(
            seed=self.config.run.seed,
            update=update,
            first_index=first_index,
            count=count,
            policy_version=self.policy_version,
        )
        parts = [batch.part(start, start + PART) for start in range(0, count, PART)]
        return [trajectories_to_proto(part, self.decode_batch(part.tokens, part.lengths)) for part in parts]


def open_run(spec: common_pb2.RunSpec) -> GeneratorRun:
    """Build a run's proposer from its spec; its weights come with `load`.

    Raises:
        AltlasError: configuration, task, vocabulary or device is wrong.
    """
    config = config_from_json(spec.config_json)
    tasks = parse_tasks(spec)
    task = tasks[0]
    vocabulary = parse_vocabulary(spec.vocabulary_json, name=task.vocabulary, where="the run's vocabulary")
    torch.set_num_threads(config.model.threads)
    return GeneratorRun(
        spec=spec,
        config=config,
        max_tokens=task_lengths(config, tasks),
        vocabulary=vocabulary,
        constraint=build_constraint(
            vocabulary, language=task.language, grammar=config.sampling.grammar, length=config.sampling.length
        ),
        device=choose_device(config.model.device).device,
        decode_batch=build_decoder(vocabulary, language=task.language),
    )
