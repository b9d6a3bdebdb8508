"""The generator's runs: a sampler and the weights it holds. Everything comes from the trainer, so a generator that was
restarted knows after one call what the dead one knew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from altlas.config.loader import config_from_json
from altlas.config.sections import Config
from altlas.core.device import choose_device
from altlas.core.grammar import TokenConstraint, build_constraint
from altlas.core.policy import policy_from_bytes
from altlas.core.sampling import Sampler
from altlas.core.task import parse_task
from altlas.core.tokenizer import Tokenizer
from altlas.core.vocabulary import Vocabulary, parse_vocabulary
from altlas.errors import ProtocolError
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.trainer.v1 import trainer_pb2
from altlas.rpc.trajectories import trajectories_to_proto


@dataclass
class GeneratorRun:
    """One run's sampler, at one policy version."""

    config: Config
    vocabulary: Vocabulary
    constraint: TokenConstraint
    device: torch.device
    sampler: Sampler | None = None
    policy_version: int = -1

    def load(self, header: trainer_pb2.PolicyHeader, content: bytes) -> None:
        """Take over weights from the trainer.

        Raises:
            ProtocolError: the bytes are not what the header promised.
        """
        if len(content) != header.size_bytes or hashlib.sha256(content).digest() != header.sha256:
            raise ProtocolError(f"policy version {header.policy_version} arrived damaged: size or SHA-256 differ")
        self.sampler = Sampler(
            policy_from_bytes(content, self.config.model, len(self.vocabulary)),
            constraint=self.constraint,
            vocabulary=self.vocabulary,
            sampling=self.config.sampling,
            device=self.device,
        )
        self.policy_version = header.policy_version

    def sample(self, *, update: int, first_index: int, count: int) -> list[common_pb2.Trajectory]:
        """Draw programs `first_index` .. `first_index + count - 1` of an update.

        Raises:
            ProtocolError: no weights have been loaded.
        """
        if self.sampler is None:
            raise ProtocolError("no policy has been loaded")
        batch = self.sampler.sample(
            seed=self.config.run.seed,
            update=update,
            first_index=first_index,
            count=count,
            policy_version=self.policy_version,
        )
        tokenizer = Tokenizer(self.vocabulary)
        sources = [
            tokenizer.decode(row[:length])
            for row, length in zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)
        ]
        return trajectories_to_proto(batch, sources)


def open_run(spec: common_pb2.RunSpec) -> GeneratorRun:
    """Build a run's sampler from its spec; its weights come with `load`.

    Raises:
        AltlasError: configuration, task, vocabulary or device is wrong.
    """
    config = config_from_json(spec.config_json)
    task = parse_task(spec.task_toml, where=spec.task_name)
    vocabulary = parse_vocabulary(spec.vocabulary_json, name=task.vocabulary, where="the run's vocabulary")
    torch.set_num_threads(config.model.threads)
    return GeneratorRun(
        config=config,
        vocabulary=vocabulary,
        constraint=build_constraint(vocabulary, language=task.language, grammar=config.sampling.grammar),
        device=choose_device(config.model.device).device,
    )
