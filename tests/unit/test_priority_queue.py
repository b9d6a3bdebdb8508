"""The queue of best programs against a literal reading of its rules, and the counts of behaviours."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altlas.core.novelty import BehaviourCounts
from altlas.core.priority_queue import PriorityQueue
from altlas.core.trajectory import TrajectoryBatch


def batch_of(programs):
    lengths = np.array([len(program) for program in programs])
    tokens = np.zeros((len(programs), lengths.max()), dtype=np.int64)
    for row, program in enumerate(programs):
        tokens[row, : len(program)] = program
    zeros = np.zeros(tokens.shape, dtype=np.float32)
    return TrajectoryBatch(
        indices=np.arange(len(programs)),
        tokens=tokens,
        lengths=lengths,
        log_probs=zeros,
        entropies=zeros,
        policy_version=0,
    )


def behaviours_of(*numbers):
    return np.repeat(np.array(numbers, dtype=np.uint8)[:, None], 16, axis=1)


def offer(queue, *offers):
    """Offer (reward, behaviour, tokens) together."""
    rewards, behaviours, programs = zip(*offers, strict=True)
    queue.add(batch_of(programs), np.array(rewards), behaviours_of(*behaviours))


def test_queue_keeps_the_best_unique_by_behaviour_the_shorter_of_equals():
    queue = PriorityQueue(3)
    offer(queue, (0.5, 1, [5, 6, 7, 2]), (0.1, 2, [8, 2]), (0.9, 3, [9, 9, 2]), (0.3, 4, [4, 2]))
    assert [item.reward for item in queue.items] == [0.9, 0.5, 0.3]
    offer(queue, (0.5, 1, [5, 2]), (0.9, 3, [3, 3, 3, 2]), (0.4, 5, [6, 2]))
    assert [(item.reward, item.tokens) for item in queue.items] == [(0.9, (9, 9, 2)), (0.5, (5, 2)), (0.4, (6, 2))]
    assert queue.best_reward == 0.9


def add_literally(items, size, offers):
    """Offer one program after the other; items are [rank, tokens, behaviour], oldest behaviour first among equals."""
    entries = [list(item) for item in items]
    for reward, behaviour, tokens in offers:
        rank = (-reward, len(tokens))
        held = next((entry for entry in entries if entry[2] == behaviour), None)
        if held is None:
            entries.append([rank, tuple(tokens), behaviour])
        elif rank < held[0]:
            held[:2] = [rank, tuple(tokens)]
    return sorted(entries, key=lambda entry: entry[0])[:size]


# Few values, so that equal rewards, lengths and behaviours are common; rewards may lie below 0.
OFFERS = st.lists(
    st.tuples(
        st.sampled_from([-30.0, -0.5, 0.0, 0.25, 1.0]),
        st.integers(0, 6),
        st.lists(st.integers(4, 9), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=12,
)


@given(batches=st.lists(OFFERS, min_size=1, max_size=5), size=st.integers(1, 4))
def test_queue_equals_the_literal_one(batches, size):
    queue, literal = PriorityQueue(size), []
    for offers in batches:
        offer(queue, *offers)
        literal = add_literally(literal, size, offers)
        assert [[item.rank, item.tokens, item.behaviour[0]] for item in queue.items] == literal


def test_queue_survives_its_tensors():
    queue = PriorityQueue(5)
    offer(queue, (-70.5, 1, [5, 6, 7, 2]), (0.7, 255, [8, 2]))
    restored = PriorityQueue(5)
    restored.load(queue.tensors())
    assert restored.items == queue.items
    restored.load(PriorityQueue(5).tensors())
    assert restored.items == []
    assert restored.best_reward == -math.inf


def test_novelty_bonus_falls_with_the_square_root_of_sightings():
    counts = BehaviourCounts()
    assert counts.bonuses(behaviours_of(7, 7, 9), 0.5) == pytest.approx([0.5, 0.5 / math.sqrt(2), 0.5])
    restored = BehaviourCounts()
    restored.load(counts.tensors())
    assert restored.bonuses(behaviours_of(7, 9), 1.0) == pytest.approx([1 / math.sqrt(3), 1 / math.sqrt(2)])
