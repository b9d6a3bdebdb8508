"""What a batch is made of: programs drawn whole, elites mutated, elites of which the policy drew a part anew.

A proposer is a pure function of (snapshot, seed, update, index): each index takes its kind, its parents and its edits
from numbers of its own, so any split of an update over processes gives the same programs. Snapshots are what a learner
publishes: tensors by name, `policy.*`, `archive.*` or `population.*`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from altlas.config.sections import Config
from altlas.core.archive import Elites
from altlas.core.genetic import ELITES, breed, uniforms_per_child
from altlas.core.grammar import Unconstrained
from altlas.core.infill import CUT_UNIFORMS, Infill, draw_cuts
from altlas.core.mutation import UNIFORMS, Children, mutate
from altlas.core.philox import uniform_rows
from altlas.core.phrases import UNIFORMS as PHRASE_UNIFORMS
from altlas.core.phrases import RuleCounts, phrases_of
from altlas.core.policy import AltlasRNN, policy_from_tensors
from altlas.core.rng import uniform
from altlas.core.sampling import Sampler
from altlas.core.trajectory import BoolArray, FloatArray, IntArray, TrajectoryBatch

if TYPE_CHECKING:
    from altlas.core.grammar import TokenConstraint
    from altlas.core.vocabulary import Vocabulary

_ATTEMPTS = 8
_DRAWS = 3  # of Elites.draw


class Origin(enum.IntEnum):
    """How a program was proposed."""

    SAMPLED = 0
    MUTATED = 1
    INFILLED = 2
    BRED = 3


class Proposer(Protocol):
    """Makes the programs of an update."""

    def propose(self, *, seed: int, update: int, first_index: int, count: int, policy_version: int) -> TrajectoryBatch:
        """Return programs first_index .. first_index + count - 1 of the update."""


def build_proposer(
    snapshot: Mapping[str, Tensor],
    config: Config,
    *,
    vocabulary: Vocabulary,
    constraint: TokenConstraint,
    device: torch.device,
) -> Proposer:
    """Return the proposer of the configured algorithm with what a learner published.

    Raises:
        CheckpointError: the snapshot's weights do not fit the configuration.
    """
    policy = None
    if config.algorithm.name == "policy":
        policy = policy_from_tensors(_under("policy.", snapshot), config.model, len(vocabulary))
    sampler = Sampler(policy, constraint=constraint, vocabulary=vocabulary, sampling=config.sampling, device=device)
    if config.algorithm.name == "ga":
        return Breeder(sampler, _under("population.", snapshot), config, vocabulary=vocabulary)
    infill_policy = policy if config.proposals.infill else None
    return Mixture(
        sampler,
        elites_from_tensors(_under("archive.", snapshot)),
        config,
        vocabulary=vocabulary,
        constraint=constraint,
        device=device,
        policy=infill_policy,
    )


def elites_to_tensors(elites: Elites) -> dict[str, Tensor]:
    """Return elites as the tensors of a snapshot."""
    names = ("tokens", "lengths", "best", "by_case")
    return {f"archive.{name}": torch.from_numpy(getattr(elites, name).copy()) for name in names}


def elites_from_tensors(tensors: Mapping[str, Tensor]) -> Elites:
    """Return the elites of a snapshot, `archive.` taken off; none where it has none."""
    if not tensors:
        nothing = np.zeros((0, 0), dtype=np.int64)
        return Elites(nothing, nothing[:, 0:0].reshape(-1), np.zeros(0, dtype=np.int64), nothing)
    return Elites(**{name: tensor.numpy() for name, tensor in tensors.items()})


class Mixture:
    """Draws a share of programs whole, and varies elites for the rest; all are drawn whole while there are none."""

    def __init__(
        self,
        sampler: Sampler,
        elites: Elites,
        config: Config,
        *,
        vocabulary: Vocabulary,
        constraint: TokenConstraint,
        device: torch.device,
        policy: AltlasRNN | None,
    ) -> None:
        self._sampler = sampler
        self._elites = elites
        self._section = config.proposals
        self._mutated = 1.0 if config.algorithm.name == "ga_archive" else config.proposals.mutation
        if config.algorithm.name == "random":
            self._mutated = 0.0
        self._infilled = 0.0 if policy is None else config.proposals.infill
        self._infill_temperature = config.sampling.temperature * config.proposals.infill_temperature
        self._vocabulary = vocabulary
        self._constraint = constraint
        self._max_tokens = config.sampling.max_tokens
        self._has_eos = config.sampling.length == "free"
        self._alphabet = alphabet(vocabulary)
        self._programs = self._without_eos(elites)
        self._phrases = phrases_of(constraint, vocabulary) if self._section.edits == "phrases" else None
        self._rules: RuleCounts = {}
        if self._phrases is not None and self._mutated and len(elites):
            self._rules = self._phrases.count_rules(self._programs)
        self._infill = None
        if self._infilled and policy is not None and len(elites):
            self._infill = Infill(
                policy,
                self._programs,
                constraint=constraint,
                vocabulary=vocabulary,
                sampling=config.sampling.model_copy(update={"temperature": self._infill_temperature}),
                longest=self._longest,
                device=device,
            )

    @property
    def _longest(self) -> int:
        return self._max_tokens - self._has_eos

    def propose(self, *, seed: int, update: int, first_index: int, count: int, policy_version: int) -> TrajectoryBatch:
        """See Proposer."""
        origins = np.zeros(count, dtype=np.uint8)
        if len(self._elites):
            kind = uniform(seed, "kind", update=update, first_index=first_index, count=count, per_index=1)[:, 0]
            origins[kind < self._mutated + self._infilled] = Origin.INFILLED
            origins[kind < self._mutated] = Origin.MUTATED
        varied, origins = self._vary(origins, seed=seed, update=update, first_index=first_index)
        batch = self._sampler.sample(
            seed=seed,
            update=update,
            first_index=first_index,
            count=count,
            policy_version=policy_version,
            only=np.flatnonzero(origins == Origin.SAMPLED) if origins.any() else None,
        )
        return replace(self._put(batch, varied, origins), origins=origins) if origins.any() else batch

    def _vary(self, origins: np.ndarray, *, seed: int, update: int, first_index: int) -> tuple[Children, np.ndarray]:
        """Return children [B] for the rows to be varied; one that the grammar refuses often is sampled instead."""
        count = len(origins)
        tokens = np.zeros((count, self._longest), dtype=np.int64)
        lengths = np.zeros(count, dtype=np.int64)
        todo = np.flatnonzero(origins != Origin.SAMPLED)
        for attempt in range(_ATTEMPTS):
            for origin, make in ((Origin.MUTATED, self._mutate), (Origin.INFILLED, self._draw_parts)):
                rows = todo[origins[todo] == origin]
                if len(rows):
                    children = make(f"vary{attempt}", seed, update, rows + first_index)
                    tokens[rows, : children.tokens.shape[1]] = children.tokens
                    lengths[rows] = children.lengths
            todo = todo[~self._is_accepted(tokens[todo], lengths[todo])]
            if not len(todo):
                break
        origins = origins.copy()
        origins[todo] = Origin.SAMPLED
        return Children(tokens, lengths), origins

    def _mutate(self, purpose: str, seed: int, update: int, indices: IntArray) -> Children:
        draws = _rows(seed, purpose, update, indices, 2 * _DRAWS + UNIFORMS)
        parents = self._elites.draw(draws[:, :_DRAWS], case_share=self._section.case_share)
        partners = self._elites.draw(draws[:, _DRAWS : 2 * _DRAWS], case_share=self._section.case_share)
        couple = _select(self._programs, parents), _select(self._programs, partners)
        section = self._section
        if self._phrases is not None:
            return self._phrases.vary(
                *couple,
                draws[:, 2 * _DRAWS : 2 * _DRAWS + PHRASE_UNIFORMS],
                longest=self._longest,
                crossover=section.crossover,
                mean_edits=section.mean_edits,
                counts=self._rules,
                learned=section.learned_rules,
            )
        return mutate(
            *couple,
            draws[:, 2 * _DRAWS :],
            alphabet=self._alphabet,
            longest=self._longest,
            crossover=section.crossover,
            mean_edits=section.mean_edits,
        )

    def _draw_parts(self, purpose: str, seed: int, update: int, indices: IntArray) -> Children:
        assert self._infill is not None
        draws = _rows(seed, f"{purpose}/cut", update, indices, _DRAWS + CUT_UNIFORMS)
        parents = self._elites.draw(draws[:, :_DRAWS], case_share=self._section.case_share)
        lengths = self._programs.lengths[parents]
        cuts = draw_cuts(lengths, draws[:, _DRAWS:], longest=self._longest, section=self._section)
        return self._infill.draw(parents, cuts, seed=seed, purpose=f"{purpose}/infill", update=update, indices=indices)

    def _is_accepted(self, tokens: IntArray, lengths: IntArray) -> BoolArray:
        """Return which programs the constraint lets be written and end where they do, bool [B]."""
        if isinstance(self._constraint, Unconstrained) or not len(lengths):
            return np.ones(len(lengths), dtype=np.bool_)
        alive = np.ones(len(lengths), dtype=np.bool_)
        closed = np.pad(tokens, ((0, 0), (0, 1)))
        closed[np.arange(len(lengths)), lengths] = self._vocabulary.eos_id if self._has_eos else self._vocabulary.pad_id
        nodes = np.full(len(lengths), self._constraint.start, dtype=np.int64)
        for step in range(int(lengths.max()) + 1):
            rows = np.flatnonzero(alive & (lengths >= step))
            if not len(rows):
                break
            legal = self._constraint.legal(nodes[rows], remaining=self._max_tokens - step)
            alive[rows] = legal[np.arange(len(rows)), closed[rows, step]]
            goes_on = rows[alive[rows] & (lengths[rows] > step)]
            nodes[goes_on] = self._constraint.advance(nodes[goes_on], closed[goes_on, step])
        return alive

    def _put(self, batch: TrajectoryBatch, varied: Children, origins: np.ndarray) -> TrajectoryBatch:
        """Return the sampled batch with the varied programs in their rows, <EOS> after each."""
        count, drawn = batch.tokens.shape
        rows = np.flatnonzero(origins != Origin.SAMPLED)
        lengths = batch.lengths.copy()
        lengths[rows] = varied.lengths[rows] + self._has_eos
        width = int(lengths.max())
        tokens = np.full((count, width), self._vocabulary.pad_id, dtype=np.int64)
        tokens[:, : min(drawn, width)] = batch.tokens[:, :width]
        source = varied.tokens[rows, : min(width, varied.tokens.shape[1])]
        tokens[rows, : source.shape[1]] = np.where(
            np.arange(source.shape[1]) < varied.lengths[rows, None], source, self._vocabulary.pad_id
        )
        if self._has_eos:
            tokens[rows, varied.lengths[rows]] = self._vocabulary.eos_id
        log_probs, entropies = (np.zeros((count, width), dtype=np.float32) for _ in range(2))
        log_probs[:, : min(drawn, width)] = batch.log_probs[:, :width]
        entropies[:, : min(drawn, width)] = batch.entropies[:, :width]
        return replace(batch, tokens=tokens, lengths=lengths, log_probs=log_probs, entropies=entropies)

    def _without_eos(self, elites: Elites) -> Children:
        if not self._has_eos or not len(elites):
            return Children(elites.tokens, elites.lengths)
        lengths = elites.lengths - 1
        inside = np.arange(elites.tokens.shape[1]) < lengths[:, None]
        return Children(np.where(inside, elites.tokens, 0)[:, : int(lengths.max())], lengths)


class Breeder:
    """Breeds the next generation of the published genetic algorithm; the first is drawn uniformly."""

    def __init__(
        self, sampler: Sampler, population: Mapping[str, Tensor], config: Config, *, vocabulary: Vocabulary
    ) -> None:
        self._sampler = sampler
        self._section = config.ga
        self._alphabet = alphabet(vocabulary)
        self._children: Children | None = None
        if population:
            tokens = population["tokens"].numpy()
            self._children = Children(tokens, np.full(len(tokens), tokens.shape[1], dtype=np.int64))
            self._rewards = population["rewards"].numpy()

    def propose(self, *, seed: int, update: int, first_index: int, count: int, policy_version: int) -> TrajectoryBatch:
        """See Proposer."""
        if self._children is None:
            return self._sampler.sample(
                seed=seed, update=update, first_index=first_index, count=count, policy_version=policy_version
            )
        length = self._children.tokens.shape[1]
        # Whole couples are bred, whatever part of them was asked for: a child depends on who its partner is.
        before, after = first_index % 2, (first_index + count) % 2
        couples = np.arange(first_index - before, first_index + count + after, dtype=np.int64)
        indices = couples[before : before + count]
        children = breed(
            self._children,
            self._rewards,
            _rows(seed, "breed", update, couples, uniforms_per_child(length)),
            alphabet=self._alphabet,
            crossover=self._section.crossover,
            rate=self._section.mutation,
        )
        nothing = np.zeros((count, length), dtype=np.float32)
        return TrajectoryBatch(
            indices=indices,
            tokens=children.tokens[before : before + count],
            lengths=children.lengths[before : before + count],
            log_probs=nothing,
            entropies=nothing,
            policy_version=policy_version,
            origins=np.full(count, Origin.BRED, dtype=np.uint8),
        )


def alphabet(vocabulary: Vocabulary) -> IntArray:
    """Return the ids of all tokens but the special ones, int64."""
    return np.array([i for i, kind in enumerate(vocabulary.kinds) if kind != "special"], dtype=np.int64)


def next_population(
    tokens: IntArray, rewards: np.ndarray, elites: IntArray, elite_rewards: np.ndarray
) -> tuple[IntArray, np.ndarray, IntArray, np.ndarray]:
    """Return the population and the ELITES after a generation of children.

    The population is the children and the best programs so far, unique by tokens, which it does not lose.
    """
    pool, pool_rewards = np.concatenate([elites, tokens]), np.concatenate([elite_rewards, rewards])
    _, first = np.unique(pool, axis=0, return_index=True)
    first = np.sort(first)
    best = first[np.argsort(-pool_rewards[first], kind="stable")[:ELITES]]
    kept, kept_rewards = pool[best], pool_rewards[best]
    return np.concatenate([tokens, kept]), np.concatenate([rewards, kept_rewards]), kept, kept_rewards


def _rows(seed: int, purpose: str, update: int, indices: IntArray, per_index: int) -> FloatArray:
    """Return uniform numbers for ascending indices, [n, per_index]."""
    return uniform_rows(seed, purpose, update=update, indices=indices, per_index=per_index)


def _select(programs: Children, rows: IntArray) -> Children:
    return Children(programs.tokens[rows], programs.lengths[rows])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
