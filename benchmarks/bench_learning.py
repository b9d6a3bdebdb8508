"""The generator's and the trainer's inner loops beside the way people write them first; medians of alternating runs.

Both sides of a comparison run in this process, in turn, on the same batch shape, policy and mask setting.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from altlas.config.sections import Config, ModelSection, SamplingSection
from altlas.core.distribution import entropy, masked_log_softmax
from altlas.core.grammar import TokenConstraint, Unconstrained, build_constraint
from altlas.core.policy import AltlasRNN, build_policy
from altlas.core.program import ProgramStatus, fingerprint
from altlas.core.sampling import Sampler
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.core.teacher_forcing import TeacherForcing
from altlas.core.tokenizer import Tokenizer
from altlas.core.trajectory import BoolArray, TrajectoryBatch
from altlas.core.vocabulary import Vocabulary, parse_vocabulary
from altlas.tasks import load_vocabulary_text
from altlas_trainer.trainer import Trainer

_BATCH = 256
_MAX_TOKENS = 40
_UPDATES = 120  # of the run whose programs the update is timed on: half the usual budget
_REFERENCE = "print('hello' if int(input()) > 5 else 'world')"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians of one measurement; `ratio` is how many times faster `ours` is."""

    name: str
    ours_s: float
    theirs_s: float
    programs: int
    note: str

    @property
    def ratio(self) -> float:
        return self.theirs_s / self.ours_s

    @property
    def programs_per_s(self) -> float:
        return self.programs / self.ours_s


def compare_samplers(*, repeats: int = 7, model: ModelSection | None = None) -> Comparison:
    """Time the gathered sampler against a per-step nn.LSTM loop with Categorical, no grammar for either."""
    model, vocabulary, sampling = (
        model or ModelSection(),
        load_vocabulary(),
        SamplingSection(grammar="none", max_tokens=_MAX_TOKENS),
    )
    policy = build_policy(model, len(vocabulary), seed=1)
    constraint = Unconstrained(vocabulary)
    sampler = Sampler(
        policy, constraint=constraint, vocabulary=vocabulary, sampling=sampling, device=torch.device("cpu")
    )
    special = torch.tensor([vocabulary.pad_id, vocabulary.sos_id, vocabulary.unk_id])
    updates = iter(range(repeats + 1))
    ours, theirs = alternate(
        lambda: sampler.sample(seed=1, update=next(updates), first_index=0, count=_BATCH, policy_version=0),
        lambda: sample_naively(policy, vocabulary, special, max_tokens=sampling.max_tokens),
        repeats=repeats,
    )
    return Comparison("sampling", ours, theirs, _BATCH, f"batch {_BATCH}, at most {sampling.max_tokens} tokens")


@torch.no_grad()
def sample_naively(policy: AltlasRNN, vocabulary: Vocabulary, special: Tensor, *, max_tokens: int) -> Tensor:
    """Sample as it is usually written: one call of the network per step, Categorical, all lanes to the end."""
    tokens = torch.full((_BATCH, 1), vocabulary.sos_id)
    finished = torch.zeros(_BATCH, dtype=torch.bool)
    state, drawn, log_probs, entropies = None, [], [], []
    for _ in range(max_tokens):
        logits, state = policy(tokens, state)
        last = logits[:, -1].index_fill(1, special, -torch.inf)
        choice = torch.distributions.Categorical(logits=last)
        token = choice.sample()  # type: ignore[no-untyped-call]
        log_probs.append(choice.log_prob(token).masked_fill(finished, 0.0))  # type: ignore[no-untyped-call]
        entropies.append(choice.entropy().masked_fill(finished, 0.0))  # type: ignore[no-untyped-call]
        drawn.append(token.masked_fill(finished, vocabulary.pad_id))
        finished |= token == vocabulary.eos_id
        if finished.all():
            break
        tokens = token[:, None]
    return torch.stack([torch.stack(drawn, 1).float(), torch.stack(log_probs, 1), torch.stack(entropies, 1)])


def compare_updates(*, repeats: int = 5, model: ModelSection | None = None) -> Comparison:
    """Time gradients over the prefix tree against padded ones, on every 20th batch of a learning run."""
    model, vocabulary = model or ModelSection(), load_vocabulary()
    sampling = SamplingSection(max_tokens=_MAX_TOKENS)
    constraint = build_constraint(vocabulary, language="python", grammar="language")
    config = Config(model=model, sampling=sampling)
    device = torch.device("cpu")
    trainer = Trainer(config, vocabulary=vocabulary, constraint=constraint, device=device, seed=1)
    batches = [
        batch for update, batch in enumerate(sample_run(trainer, config, vocabulary, constraint)) if update % 20 == 0
    ]
    policy = build_policy(model, len(vocabulary), seed=1)
    forcing = TeacherForcing(
        policy,
        constraint=constraint,
        vocabulary=vocabulary,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        device=device,
    )
    weights = torch.linspace(-1.0, 1.0, _BATCH)

    def on_tree() -> None:
        for batch in batches:
            policy.zero_grad()
            values = forcing.evaluate(batch.tokens, batch.lengths)
            (-(weights * values.log_probs).sum() - 1e-3 * values.entropies.sum()).backward()  # type: ignore[no-untyped-call]

    def padded() -> None:
        for batch in batches:
            policy.zero_grad()
            legal = constraint.replay(batch.tokens, batch.lengths, max_tokens=sampling.max_tokens)
            backward_padded(policy, vocabulary, batch, legal, max_tokens=sampling.max_tokens, weights=weights)

    ours, theirs = alternate(on_tree, padded, repeats=repeats)
    mean_length = float(np.mean([batch.lengths.mean() for batch in batches]))
    note = f"{len(batches)} batches of {_BATCH}, {mean_length:.1f} tokens each on the mean"
    return Comparison("update", ours, theirs, _BATCH * len(batches), note)


def sample_run(
    trainer: Trainer, config: Config, vocabulary: Vocabulary, constraint: TokenConstraint
) -> Iterator[TrajectoryBatch]:
    """Yield the batches of a short run whose reward is how close a program's text is to a reference's.

    Nothing is executed, so that this measures learning alone.
    """
    tokenizer = Tokenizer(vocabulary)
    sampler = Sampler(
        trainer.policy,
        constraint=constraint,
        vocabulary=vocabulary,
        sampling=config.sampling,
        device=torch.device("cpu"),
    )
    for update in range(_UPDATES):
        batch = sampler.sample(seed=1, update=update, first_index=0, count=_BATCH, policy_version=update)
        yield batch
        sources = [
            tokenizer.decode(row[:length].tolist()) for row, length in zip(batch.tokens, batch.lengths, strict=True)
        ]
        scores = [
            Score(
                status=ProgramStatus.OK,
                reward=Levenshtein.normalized_similarity(source, _REFERENCE),
                behaviour=fingerprint("bench", "python", source.encode()),
            )
            for source in sources
        ]
        trainer.learn(batch, batch_scores(scores), update=update)


def backward_padded(
    policy: AltlasRNN,
    vocabulary: Vocabulary,
    batch: TrajectoryBatch,
    legal: BoolArray,
    *,
    max_tokens: int,
    weights: Tensor,
) -> None:
    """Compute the gradients on one batch padded to `max_tokens`, everything in one pass."""
    missing = max_tokens - batch.tokens.shape[1]
    targets = torch.from_numpy(np.pad(batch.tokens, ((0, 0), (0, missing)), constant_values=vocabulary.pad_id))
    inside = torch.from_numpy(np.arange(max_tokens) < batch.lengths[:, None])
    masks = torch.from_numpy(np.pad(legal, ((0, 0), (0, missing), (0, 0)))) | ~inside[:, :, None]
    inputs = torch.nn.functional.pad(targets[:, :-1], (1, 0), value=vocabulary.sos_id)
    log_probs = masked_log_softmax(policy(inputs)[0], masks, 1.0)
    chosen = log_probs.gather(2, targets[:, :, None])[:, :, 0].masked_fill(~inside, 0.0)
    entropies = entropy(log_probs, masks).masked_fill(~inside, 0.0)
    (-(weights * chosen.sum(dim=1)).sum() - 1e-3 * entropies.sum()).backward()  # type: ignore[no-untyped-call]


def alternate(ours: Callable[[], object], theirs: Callable[[], object], *, repeats: int) -> tuple[float, float]:
    """Return the median seconds of each, run in turn after one warm-up each, on one torch thread."""
    torch.set_num_threads(1)
    seconds: tuple[list[float], list[float]] = ([], [])
    for round_index in range(repeats + 1):
        for run, kept in zip((ours, theirs), seconds, strict=True):
            start = time.perf_counter()
            run()
            if round_index:
                kept.append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def load_vocabulary() -> Vocabulary:
    """Return the vocabulary that ships with altlas."""
    return parse_vocabulary(load_vocabulary_text(""))


def main() -> None:
    """Print both comparisons."""
    print(f"{'stage':<10} {'ours ms':>8} {'naive ms':>9} {'ratio':>6} {'programs/s':>11}")
    for result in (compare_samplers(), compare_updates()):
        print(
            f"{result.name:<10} {result.ours_s * 1e3:8.1f} {result.theirs_s * 1e3:9.1f} {result.ratio:6.2f} "
            f"{result.programs_per_s:11.0f}  {result.note}"
        )


if __name__ == "__main__":
    main()
