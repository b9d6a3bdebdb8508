"""What the tasks of a run share, what they keep to themselves, and what goes over from one to the next."""

import hashlib
import json

import numpy as np
import pytest
import torch
from scored import scores_of, toy_vocabulary

from altlas.config.sections import (
    AlgorithmSection,
    ArchiveSection,
    Config,
    CurriculumSection,
    ModelSection,
    ObjectiveSection,
    ProposalsSection,
    SamplingSection,
)
from altlas.core.curriculum import with_max_tokens
from altlas.core.grammar import build_constraint
from altlas.core.policy import tensors_from_bytes, tensors_to_bytes
from altlas.core.proposals import build_proposer
from altlas.errors import CheckpointError
from altlas_trainer.learner import build_learner, build_run_learner

VOCABULARY = toy_vocabulary("abcdef")
CONSTRAINT = build_constraint(VOCABULARY, language="python", grammar="none", length="free")
CPU = torch.device("cpu")
LENGTHS = (9, 6)
MIXED = (0, 1, 0, 0, 1, 1, 0, 1)


def make_config(name="policy", carry="policy_and_archive"):
    return Config(
        curriculum=CurriculumSection(carry=carry),
        algorithm=AlgorithmSection(name=name),
        model=ModelSection(embedding=6, hidden=10),
        sampling=SamplingSection(batch_size=32, grammar="none"),
        archive=ArchiveSection(size=6, per_case=2),
        proposals=ProposalsSection(mutation=0.4, infill=0.4),
        objective=ObjectiveSection(baseline="ema", entropy_target=1.0, novelty_weight=0.1),
    )


def make_run(config, lengths=LENGTHS):
    return build_run_learner(
        config, max_tokens=lengths, vocabulary=VOCABULARY, constraint=CONSTRAINT, device=CPU, seed=4
    )


def make_alone(config, length):
    return build_learner(
        with_max_tokens(config, length), vocabulary=VOCABULARY, constraint=CONSTRAINT, device=CPU, seed=4
    )


def propose(snapshot, config, length, *, update):
    published = tensors_from_bytes(tensors_to_bytes(snapshot))
    proposer = build_proposer(
        published, with_max_tokens(config, length), vocabulary=VOCABULARY, constraint=CONSTRAINT, device=CPU
    )
    return proposer.propose(seed=4, update=update, first_index=0, count=32, policy_version=update)


def judge(batch, task):
    """Task 0 wants a's, task 1 b's; both have two cases."""
    cases, behaviours = [], []
    for row, length in zip(batch.tokens, batch.lengths.tolist(), strict=True):
        program = row[:length]
        cases.append([float((program == 4 + task).mean()), 1.0 - length / 16])
        behaviours.append(int.from_bytes(hashlib.sha256(program.tobytes()).digest()[:12], "big"))
    return scores_of([sum(by_case) / 2 for by_case in cases], behaviours, cases)


def go_on(run, config, tasks, *, reinitialise=(), lengths=LENGTHS):
    """Make the run's next updates, of these tasks."""
    for task in tasks:
        update = run.updates
        batch = propose(run.snapshot(task), config, lengths[task], update=update)
        run.learn(batch, judge(batch, task), update=update, task=task, reinitialise=update in reinitialise)


def elite_tokens(snapshot):
    """Return the elites of a snapshot, each without its padding."""
    if "archive.tokens" not in snapshot:
        return set()
    rows = zip(snapshot["archive.tokens"].tolist(), snapshot["archive.lengths"].tolist(), strict=True)
    return {tuple(row[:length]) for row, length in rows}


@pytest.mark.parametrize("carry", ["policy_and_archive", "policy", "nothing"])
@pytest.mark.parametrize("name", ["policy", "ga_archive"])
def test_a_new_learner_with_the_state_goes_on_bit_for_bit(name, carry):
    config = make_config(name, carry)
    straight, first, second = (make_run(config) for _ in range(3))
    go_on(straight, config, MIXED)
    go_on(first, config, MIXED[:5])
    tensors, meta = first.state_dict()
    second.load_state(tensors_from_bytes(tensors_to_bytes(tensors)), json.loads(json.dumps(meta)))
    go_on(second, config, MIXED[5:])
    assert (second.updates, second.sha256()) == (straight.updates, straight.sha256())
    assert second.state_dict()[1] == straight.state_dict()[1]
    for tensor_name, tensor in straight.state_dict()[0].items():
        assert torch.equal(second.state_dict()[0][tensor_name], tensor), tensor_name


@pytest.mark.parametrize("name", ["policy", "ga_archive"])
def test_with_nothing_carried_each_task_learns_as_in_a_run_of_its_own(name):
    config = make_config(name, "nothing")
    run, done = make_run(config), [0, 0]
    alone = [make_alone(config, length) for length in LENGTHS]
    for update, task in enumerate(MIXED):
        batches = [
            propose(snapshot, config, LENGTHS[task], update=done[task])
            for snapshot in (run.snapshot(task), alone[task].snapshot())
        ]
        assert batches[0].tokens.tobytes() == batches[1].tokens.tobytes()
        restarts = update == 5
        run.learn(batches[0], judge(batches[0], task), update=update, task=task, reinitialise=restarts)
        alone[task].learn(batches[1], judge(batches[1], task), update=done[task], reinitialise=restarts)
        done[task] += 1
    tensors, _ = run.state_dict()
    for task, learner in enumerate(alone):
        for tensor_name, tensor in learner.state_dict()[0].items():
            assert torch.equal(tensors[f"task1.{tensor_name}" if task else tensor_name], tensor), tensor_name


@pytest.mark.parametrize("name", ["policy", "ga_archive"])
def test_a_run_of_one_task_is_that_tasks_learner(name):
    config = make_config(name)
    run, alone = make_run(config, LENGTHS[:1]), make_alone(config, LENGTHS[0])
    go_on(run, config, [0, 0, 0], reinitialise={1})
    for update in range(3):
        batch = propose(alone.snapshot(), config, LENGTHS[0], update=update)
        alone.learn(batch, judge(batch, 0), update=update, reinitialise=update == 1)
    assert run.sha256() == alone.sha256()
    assert run.state_dict()[1] == alone.state_dict()[1]
    assert run.state_dict()[0].keys() == alone.state_dict()[0].keys()


@pytest.mark.parametrize("name", ["policy", "ga_archive"])
def test_elites_go_over_to_a_task_without_and_its_own_replace_them(name):
    config, lengths = make_config(name), (9, 3)
    run = make_run(config, lengths)
    go_on(run, config, [0, 0])
    before = elite_tokens(run.snapshot(0))
    carried = elite_tokens(run.snapshot(1))
    assert {len(program) > 3 for program in before} == {True, False}
    assert carried
    assert carried <= {program for program in before if len(program) <= 3}
    go_on(run, config, [1], lengths=lengths)
    assert elite_tokens(run.snapshot(1)) != carried
    assert elite_tokens(run.snapshot(0)) == before


@pytest.mark.parametrize("name", ["policy", "ga_archive"])
@pytest.mark.parametrize("carry", ["policy", "nothing"])
def test_elites_stay_where_archives_are_not_carried(name, carry):
    config = make_config(name, carry)
    run = make_run(config)
    go_on(run, config, [0, 0])
    assert elite_tokens(run.snapshot(0))
    assert not elite_tokens(run.snapshot(1))


def test_of_several_archives_the_newest_goes_over():
    config = make_config()
    run = make_run(config, (9, 9, 9))
    go_on(run, config, [1, 0], lengths=(9, 9, 9))
    assert elite_tokens(run.snapshot(2)) == elite_tokens(run.snapshot(0)) != elite_tokens(run.snapshot(1))


def test_tasks_share_weights_but_neither_queue_nor_baseline():
    config = make_config(carry="policy")
    run = make_run(config)
    go_on(run, config, [0, 0])
    tensors, meta = run.state_dict()
    assert len(tensors["queue.rewards"])
    assert not len(tensors["task1.queue.rewards"])
    assert meta["baseline"] is not None
    weights = run.sha256()
    go_on(run, config, [1])
    after, meta_after = run.state_dict()
    assert run.sha256() != weights
    assert len(after["task1.queue.rewards"])
    assert torch.equal(after["queue.rewards"], tensors["queue.rewards"])
    assert meta_after["baseline"] == meta["baseline"] != meta_after["further_tasks"][0]["baseline"]


def test_a_stuck_task_starts_anew_without_the_weights_of_the_others():
    config = make_config(carry="policy")
    run = make_run(config)
    go_on(run, config, [0, 1, 0, 1])
    weights, tensors = run.sha256(), run.state_dict()[0]
    go_on(run, config, [1], reinitialise={4})
    after = run.state_dict()[0]
    assert (run.updates, run.sha256()) == (5, weights)
    assert not len(after["task1.queue.rewards"])
    assert not len(after["task1.archive.rewards"])
    assert torch.equal(after["task1.novelty.counts"], tensors["task1.novelty.counts"])
    for name in ("queue.rewards", "archive.rewards"):
        assert torch.equal(after[name], tensors[name])
        assert len(after[name])


@pytest.mark.parametrize("name", ["policy", "ga_archive"])
def test_the_state_of_another_count_of_tasks_is_refused(name):
    tensors, meta = make_run(make_config(name)).state_dict()
    with pytest.raises(CheckpointError, match="trainer state has 2 tasks, the run 3"):
        make_run(make_config(name), (9, 9, 9)).load_state(tensors, meta)


def test_programs_that_are_all_too_long_are_not_carried():
    config = make_config("ga_archive")
    run = make_run(config, (9, 2))
    batch = propose(run.snapshot(0), config, 9, update=0)
    long = np.flatnonzero(batch.lengths > 2)
    run.learn(batch.take(long), judge(batch.take(long), 0), update=0)
    assert run.snapshot(1) == {}
