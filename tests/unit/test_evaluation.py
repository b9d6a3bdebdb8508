"""Evaluation joins results to programs, whatever the order, and runs no program twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from altlas.config.sections import RewardSection, TransportSection
from altlas.core.grading import Grading, make_grading
from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.errors import ProtocolError
from altlas.rpc.common.v1 import common_pb2
from altlas.rpc.convert import score_to_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2
from altlas.transport.memory import MemoryTransport
from altlas.transport.ports import Commit
from altlas_coordinator.evaluation import EvaluatedBatch, Evaluation

TASK = 'name = "t"\ndescription = "d"\nreference = "print(1)"\n[[cases]]\nexpected_stdout = "1"\n'
Answer = Callable[[evaluator_pb2.Job], evaluator_pb2.JobResult]


def grading() -> Grading:
    return make_grading(TASK, RewardSection(), where="t")


def reward_of(source: bytes) -> float:
    return len(source) / 100


def honest(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
    return evaluator_pb2.JobResult(
        job_id=job.job_id,
        worker="w",
        scores=[
            score_to_proto(Score(status=ProgramStatus.OK, reward=reward_of(source), cases=1)) for source in job.sources
        ],
    )


class Bench:
    """An evaluation with one worker thread behind it; remembers every source that was run."""

    def __init__(self, answer: Answer = honest, *, shard_size: int = 3) -> None:
        self.transport = MemoryTransport()
        self.queue = self.transport.queue("run")
        self.answer = answer
        self.ran: list[bytes] = []
        self.job_ids: list[str] = []
        self.evaluation = Evaluation(
            self.queue, run_id="run", grading=grading(), section=TransportSection(shard_size=shard_size)
        )

    def evaluate(self, *updates: Sequence[str]) -> list[EvaluatedBatch]:
        stopping = threading.Event()

        def work() -> None:
            source = self.transport.source("w")
            while not stopping.is_set():
                for delivery in reversed(source.take(count=9, block_s=0.02)):
                    job = evaluator_pb2.Job.FromString(delivery.payload)
                    self.ran += job.sources
                    self.job_ids.append(job.job_id)
                    result = self.answer(job)
                    scores = {
                        key: item.SerializeToString()
                        for key, item in zip(job.fingerprints, result.scores, strict=False)
                    }
                    source.commit(Commit(delivery=delivery, payload=result.SerializeToString(), scores=scores))

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


def test_scores_come_in_the_order_of_the_programs() -> None:
    sources = [f"{'x' * (index % 7)}{index}" for index in range(20)]
    (batch,) = Bench().evaluate(sources)
    assert [score.reward for score in batch.scores] == [reward_of(source.encode()) for source in sources]


def test_a_program_is_run_once_within_and_across_updates() -> None:
    bench = Bench()
    first, second = bench.evaluate(["a", "bb", "a", "a"], ["bb", "ccc", "a"])
    assert sorted(bench.ran) == [b"a", b"bb", b"ccc"]
    assert (first.evaluated, second.evaluated) == (2, 1)
    assert [score.reward for score in second.scores] == [0.02, 0.03, 0.01]
    assert first.fingerprints[0] == first.fingerprints[2] == second.fingerprints[2]


def test_a_job_id_names_its_content() -> None:
    one, other = Bench(), Bench()
    one.evaluate(["a", "b", "c", "d"])
    other.evaluate(["a", "b", "c", "e"])
    assert len(set(one.job_ids) & set(other.job_ids)) == 1
    again = Bench()
    again.evaluate(["a", "b", "c", "d"])
    assert sorted(again.job_ids) == sorted(one.job_ids)


def too_few(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
    result = honest(job)
    del result.scores[-1]
    return result


def other_job(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
    result = honest(job)
    result.job_id = "u9.s9.other"
    return result


def reward_beyond_one(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
    result = honest(job)
    result.scores[0].CopyFrom(common_pb2.Score(status="PROGRAM_STATUS_OK", reward=1.5))
    return result


def reward_nan(job: evaluator_pb2.Job) -> evaluator_pb2.JobResult:
    result = honest(job)
    result.scores[0].reward = float("nan")
    return result


@pytest.mark.parametrize("answer", [too_few, other_job, reward_beyond_one, reward_nan])
def test_an_answer_that_breaks_the_contract_is_an_error(answer: Answer) -> None:
    with pytest.raises(ProtocolError):
        Bench(answer).evaluate(["a", "b", "c"])
