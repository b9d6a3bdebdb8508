"""Evaluation joins results to programs, whatever the order, and runs no program twice."""

from __future__ import annotations

import asyncio
import math
import struct
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from altlas.config.sections import RewardSection, TransportSection
from altlas.core.grading import Grading, make_grading
from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.errors import ProtocolError
from altlas.rpc.batches import scores_from_proto, scores_to_proto, sources_from_proto
from altlas.rpc.convert import score_to_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2
from altlas.transport.memory import MemoryTransport
from altlas.transport.ports import Commit
from altlas_coordinator import metrics
from altlas_coordinator.evaluation import EvaluatedBatch, Evaluation
from altlas_coordinator.fingerprint_index import Keys

TASK = 'name = "t"\ndescription = "d"\nreference = "print(1)"\n[[cases]]\nexpected_stdout = "1"\n'
BRAINF_TASK = """
name = "t"
description = "d"
language = "brainf"
vocabulary = "brainf"
reference = "+."
[[cases]]
input = []
expected = [1]
"""
Answer = Callable[[evaluator_pb2.Job], evaluator_pb2.JobResult]


def grading(task: str = TASK) -> Grading:
    return make_grading(task, RewardSection(), where="t")


def score_of(source: bytes) -> Score:
    reward = len(source) / 100
    return Score(
        status=ProgramStatus.RUNTIME_ERROR,
        reward=reward,
        components={"syntax": 1.0, "runs": 0.5, "exact": 0.25},
        cases=1,
        behaviour=source[:1] * 16,
        error=f"error {source.decode()}",
        case_rewards=(0.5,),
    )


def honest(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
    scores = batch_scores([score_of(source) for source in sources_from_proto(job.sources)])
    return evaluator_pb2.JobResult(job_id=job.job_id, worker="w", scores=scores_to_proto(scores))


class Bench:
    """An evaluation with one worker thread behind it; remembers every source that was run."""

    def __init__(self, answer: Answer = honest, *, shard_size: int = 3, task: str = TASK) -> None:
        self.transport = MemoryTransport()
        self.queue = self.transport.queue("run")
        self.answer = answer
        self.ran: list[bytes] = []
        self.job_ids: list[str] = []
        self.stored = 0
        self._section = TransportSection(shard_size=shard_size)
        self._grading = grading(task)
        self.start()

    def start(self, seen: Keys | None = None) -> None:
        """Begin with a coordinator that has just started, of a resumed run where `seen` is given."""
        self.evaluation = Evaluation(self.queue, run_id="run", grading=self._grading, section=self._section, seen=seen)

    def evaluate(self, *updates: Sequence[bytes]) -> list[EvaluatedBatch]:
        stopping = threading.Event()

        def work() -> None:
            source = self.transport.source("w")
            while not stopping.is_set():
                for delivery in reversed(source.take(count=9, block_s=0.02)):
                    job = evaluator_pb2.Job.FromString(delivery.payload)
                    sources = sources_from_proto(job.sources)
                    self.ran += sources
                    self.job_ids.append(job.job_id)
                    scores = {
                        job.fingerprints[16 * row : 16 * (row + 1)]: score_to_proto(score_of(text)).SerializeToString()
                        for row, text in enumerate(sources)
                    }
                    payload = self.answer(job).SerializeToString()
                    source.commit(Commit(delivery=delivery, payload=payload, scores=scores))

        async def run() -> list[EvaluatedBatch]:
            await self.queue.open(task_digest="d", task_text="t")
            return [await self.evaluation.evaluate(number, sources) for number, sources in enumerate(updates)]

        worker = threading.Thread(target=work)
        worker.start()
        try:
            return asyncio.run(run())
        finally:
            stopping.set()
            worker.join()


def scores_in(batch: EvaluatedBatch) -> list[Score]:
    return [batch.scores.score(row) for row in range(len(batch.scores))]


def test_scores_come_in_the_order_of_the_programs() -> None:
    sources = [b"x" * (index % 7) + b"%d" % index for index in range(20)]
    (batch,) = Bench().evaluate(sources)
    assert scores_in(batch) == [score_of(source) for source in sources]
    assert batch.is_new.all()


def test_a_program_is_run_once_within_and_across_updates() -> None:
    bench = Bench()
    first, second = bench.evaluate([b"a", b"bb", b"a", b"a"], [b"bb", b"ccc", b"a"])
    assert sorted(bench.ran) == [b"a", b"bb", b"ccc"]
    assert (first.evaluated, second.evaluated) == (2, 1)
    assert (first.is_new.tolist(), second.is_new.tolist()) == ([True, True, False, False], [False, True, False])
    assert second.scores.rewards.tolist() == [0.02, 0.03, 0.01]
    # An error's text is that of a first sighting; everything else is there for all.
    assert second.scores.errors == ("", "error ccc", "")
    assert second.scores.behaviours.tobytes() == b"b" * 16 + b"c" * 16 + b"a" * 16
    assert len(bench.evaluation.seen) == 3


def test_a_resumed_run_knows_what_was_seen_and_what_the_store_has() -> None:
    bench = Bench()
    bench.evaluate([b"a", b"bb"])
    bench.start(seen=bench.evaluation.seen.copy())
    (batch,) = bench.evaluate([b"a", b"ccc", b"a"])
    assert sorted(bench.ran) == [b"a", b"bb", b"ccc"]
    assert (batch.is_new.tolist(), batch.evaluated) == ([False, True, False], 1)
    assert scores_in(batch)[:2] == [score_of(b"a"), score_of(b"ccc")]
    assert len(bench.evaluation.seen) == 3


def test_without_a_store_a_resumed_run_evaluates_again_what_it_only_saw() -> None:
    bench = Bench()
    bench.evaluate([b"a", b"bb"])
    seen = bench.evaluation.seen.copy()
    bench.transport = MemoryTransport()
    bench.queue = bench.transport.queue("run")
    bench.start(seen)
    (batch,) = bench.evaluate([b"a", b"ccc"])
    assert bench.ran[2:] == [b"a", b"ccc"]
    assert (batch.is_new.tolist(), batch.evaluated) == ([False, True], 2)


def test_the_store_is_not_asked_for_what_the_evaluator_runs_itself() -> None:
    bench = Bench(task=BRAINF_TASK)
    bench.evaluate([b"+"])
    bench.start(bench.evaluation.seen.copy())
    _, batch = bench.evaluate([b"-"], [b"+", b"+"])
    assert bench.ran == [b"+", b"-", b"+"]
    assert (batch.is_new.tolist(), batch.evaluated) == ([False, False], 1)


@pytest.mark.parametrize(("task", "jobs"), [(TASK, 33), (BRAINF_TASK, 2)])
def test_shards_are_as_large_as_the_language_is_fast(task: str, jobs: int) -> None:
    bench = Bench(shard_size=0, task=task)
    bench.evaluate([b"%d" % number for number in range(1025)])
    assert len(bench.job_ids) == jobs


def test_a_job_id_names_its_content() -> None:
    one, other = Bench(), Bench()
    one.evaluate([b"a", b"b", b"c", b"d"])
    other.evaluate([b"a", b"b", b"c", b"e"])
    assert len(set(one.job_ids) & set(other.job_ids)) == 1
    again = Bench()
    again.evaluate([b"a", b"b", b"c", b"d"])
    assert sorted(again.job_ids) == sorted(one.job_ids)


def too_few(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
    result = honest(job)
    scores = scores_from_proto(result.scores)
    result.scores.CopyFrom(scores_to_proto(scores.take(np.arange(len(scores) - 1))))
    return result


def other_job(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
    result = honest(job)
    result.job_id = "u9.s9.other"
    return result


def reward_nan(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
    result = honest(job)
    scores = scores_from_proto(result.scores)
    scores.rewards[0] = math.nan
    result.scores.CopyFrom(scores_to_proto(scores))
    return result


def other_components(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
    result = honest(job)
    if ".s1." in job.job_id:
        result.scores.component_names[0] = "other"
    return result


@pytest.mark.parametrize("answer", [too_few, other_job, reward_nan, other_components])
def test_an_answer_that_breaks_the_contract_is_an_error(answer: Answer) -> None:
    with pytest.raises(ProtocolError):
        Bench(answer).evaluate([b"a", b"b", b"c", b"d"])


def test_a_result_that_breaks_the_contract_is_counted_and_its_job_put_up_again() -> None:
    bench = Bench(shard_size=1)
    refused = metrics.REFUSED_RESULTS._value.get()
    lies = 2

    def lie_at_first(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
        nonlocal lies
        result = honest(job)
        if lies and sources_from_proto(job.sources) == [b"b"]:
            lies -= 1
            result.scores.rewards = struct.pack("<d", 2.0)
        return result

    bench.answer = lie_at_first
    (batch,) = bench.evaluate([b"a", b"b", b"c"])
    assert [batch.scores.score(row).reward for row in range(3)] == [
        score_of(text).reward for text in (b"a", b"b", b"c")
    ]
    assert metrics.REFUSED_RESULTS._value.get() == refused + 2
    assert sorted(bench.ran) == [b"a", b"b", b"b", b"b", b"c"]


def test_a_job_whose_results_keep_breaking_the_contract_ends_the_run() -> None:
    def lie(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
        result = honest(job)
        result.scores.rewards = struct.pack("<d", math.nan) * result.scores.count
        return result

    with pytest.raises(ProtocolError, match="reward that is not finite"):
        Bench(lie).evaluate([b"a"])


def test_scores_of_a_later_update_are_of_the_same_task() -> None:
    bench = Bench(shard_size=9)
    bench.evaluate([b"a"])

    def two_cases(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
        result = honest(job)
        result.scores.cases = 2
        result.scores.case_rewards = bytes(8)
        return result

    bench.answer = two_cases
    with pytest.raises(ProtocolError, match=r"scores over 2 cases .* a task of 1 cases"):
        bench.evaluate([b"b"])
