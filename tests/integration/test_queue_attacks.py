"""What a worker may put into Redis, and a stranger into a worker's hands: each is refused by name, and the next honest
job is done.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from evaluator_process import EvaluatorProcess

from altlas.config.sections import RewardSection
from altlas.core.grading import make_grading
from altlas.core.program import ProgramStatus, fingerprints
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.errors import ProtocolError
from altlas.rpc.batches import scores_to_proto, sources_to_proto
from altlas.rpc.evaluator.v1 import evaluator_pb2
from altlas.rpc.payloads import read_result, result_limit_bytes
from altlas.transport.ports import Commit, DeadJobError, Delivery, JobId, JobMessage
from altlas.transport.redis_client import connect, connect_blocking
from altlas.transport.redis_streams import RedisJobQueue, RedisJobSource

TASK = """
name = "double"
description = "Print twice the number."
reference = "print(2 * int(input()))"
cases = [{stdin = "1\\n", expected_stdout = "2"}, {stdin = "2\\n", expected_stdout = "4"}]
"""
GRADING = make_grading(TASK, RewardSection(), where="test")
SOURCES = [b"print(2 * int(input()))", b"print(1)"]
RUNS = itertools.count()


def job(job_id: str, run_id: str) -> evaluator_pb2.Job:
    names = b"".join(fingerprints(GRADING.digest, "python", SOURCES))
    return evaluator_pb2.Job(
        job_id=job_id,
        run_id=run_id,
        task_digest=GRADING.digest,
        sources=sources_to_proto(SOURCES),
        fingerprints=names,
    )


def honest(job_id: str) -> evaluator_pb2.JobResult:
    score = Score(
        status=ProgramStatus.OK,
        reward=0.5,
        components={"exact": 0.5},
        cases_passed=1,
        cases=2,
        behaviour=bytes(16),
        case_rewards=(1.0, 0.0),
    )
    return evaluator_pb2.JobResult(job_id=job_id, worker="w", scores=scores_to_proto(batch_scores([score, score])))


def believed(content: bytes, job_id: str) -> list[float]:
    scores = read_result(content, job_id=job_id, programs=2, cases=2, is_sandboxed=True)
    return [float(reward) for reward in scores.rewards]


Ends = tuple[RedisJobQueue, RedisJobSource, str]


def with_queue(redis_url: str, body: Callable[[Ends], Awaitable[None]], *, max_deliveries: int = 3) -> None:
    """Await `body` with both ends of an open run of its own, and the run's name."""

    async def main() -> None:
        run_id = f"attacks{next(RUNS)}"
        with connect_blocking(redis_url) as worker_client:
            async with await connect(redis_url) as client:
                queue = RedisJobQueue(client, run_id, max_deliveries=max_deliveries)
                await queue.lead(owner="test")
                await queue.open(task_digest=GRADING.digest, task_text=GRADING.text)
                await body((queue, RedisJobSource(worker_client), run_id))
                await queue.close()

    asyncio.run(main())


def grown(message: evaluator_pb2.JobResult) -> None:
    score = honest("x").scores
    message.scores.CopyFrom(score)
    message.scores.count = 3


def more_programs(message: evaluator_pb2.JobResult) -> None:
    one = Score(status=ProgramStatus.OK, reward=1.0, cases=2, behaviour=bytes(16), case_rewards=(1.0, 1.0))
    message.scores.CopyFrom(scores_to_proto(batch_scores([one] * 3)))


def huge(message: evaluator_pb2.JobResult) -> None:
    message.tier = "x" * result_limit_bytes(2, 2)


def arrays(**contents: bytes) -> Callable[[evaluator_pb2.JobResult], None]:
    def change(message: evaluator_pb2.JobResult) -> None:
        for name, content in contents.items():
            setattr(message.scores, name, content)

    return change


FORGED: dict[str, Callable[[evaluator_pb2.JobResult], None]] = {
    "more programs": more_programs,
    "more programs than its arrays": grown,
    "a huge one": huge,
    "another job's": lambda message: setattr(message, "job_id", "u0.s1"),
    "NaN": arrays(rewards=struct.pack("<2d", math.nan, 0.0)),
    "a negative reward": arrays(rewards=struct.pack("<2d", 0.0, -0.5)),
    "a reward of 2": arrays(rewards=struct.pack("<2d", 2.0, 0.0)),
    "infinity for a case": arrays(case_rewards=struct.pack("<4f", 0, 0, math.inf, 0)),
    "an unknown status": arrays(statuses=b"\x63\x01"),
    "a failed sandbox": arrays(statuses=b"\x08\x01"),
    "short behaviours": arrays(behaviours=bytes(31)),
    "more cases passed than there are": arrays(cases_passed=struct.pack("<2H", 9, 0)),
    "solved at one of two": arrays(flags=b"\x01\x00"),
    "verified and not solved": arrays(flags=b"\x02\x00"),
}


@pytest.mark.parametrize("what", [*FORGED, "garbage", "cut short"])
def test_a_forged_result_is_refused_and_the_next_is_believed(redis_url: str, what: str) -> None:
    async def body(ends: Ends) -> None:
        queue, source, _ = ends
        messages = [JobMessage(JobId(f"u0.s{number}"), b"job") for number in range(2)]
        await queue.submit(0, messages)
        forged, good = source.take(count=2, block_s=5)
        result = honest(forged.job_id)
        FORGED.get(what, lambda _: None)(result)
        content = result.SerializeToString()
        content = {"garbage": b"\xff" * 99, "cut short": content[:-3]}.get(what, content)
        assert source.commit(Commit(delivery=forged, payload=content))
        assert source.commit(Commit(delivery=good, payload=honest(good.job_id).SerializeToString()))
        found = await queue.collect(0, [message.job_id for message in messages], timeout_s=5)
        with pytest.raises(ProtocolError, match=f"result of job {forged.job_id}"):
            believed(found[forged.job_id], forged.job_id)
        assert believed(found[good.job_id], good.job_id) == [0.5, 0.5]

    with_queue(redis_url, body)


def test_a_replayed_commit_changes_nothing(redis_url: str) -> None:
    async def body(ends: Ends) -> None:
        queue, source, _ = ends
        await queue.submit(0, [JobMessage(JobId("u0.s0"), b"job")])
        (delivery,) = source.take(count=1, block_s=5)
        assert source.commit(Commit(delivery=delivery, payload=b"first", scores={b"f": b"first"}))
        for _ in range(3):
            assert not source.commit(Commit(delivery=delivery, payload=b"later", scores={b"f": b"later"}))
        assert await queue.collect(0, [JobId("u0.s0")], timeout_s=5) == {"u0.s0": b"first"}
        assert await queue.known_scores([b"f"]) == {b"f": b"first"}
        stats = await queue.stats()
        assert (stats.committed, stats.duplicates) == (1, 3)

    with_queue(redis_url, body)


@pytest.mark.parametrize("job_id", ["u0.s9", "u7.s0", "", "x" * 10_000])
def test_a_commit_of_a_job_that_nobody_put_up_is_thrown_away(redis_url: str, job_id: str) -> None:
    async def body(ends: Ends) -> None:
        queue, source, run_id = ends
        await queue.submit(0, [JobMessage(JobId("u0.s0"), b"job")])
        made_up = Delivery(run_id=run_id, job_id=JobId(job_id), payload=b"", entry_id="0/1-1")
        assert not source.commit(Commit(delivery=made_up, payload=b"forged", scores={b"f": b"forged"}))
        assert await queue.known_scores([b"f"]) == {}
        (delivery,) = source.take(count=1, block_s=5)
        assert source.commit(Commit(delivery=delivery, payload=b"good"))
        assert await queue.collect(0, [JobId("u0.s0")], timeout_s=5) == {"u0.s0": b"good"}

    with_queue(redis_url, body)


@pytest.fixture(scope="module")
def evaluator(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvaluatorProcess]:
    directory: Path = tmp_path_factory.mktemp("evaluator")
    with EvaluatorProcess(directory, ["sandbox.slots=1"], redis_url=redis_url) as process:
        process.wait_until_ready()
        yield process


def lying_sizes(message: evaluator_pb2.Job) -> None:
    message.sources.sizes = b"\xff\xff\xff\x7f" * 2


def short_fingerprints(message: evaluator_pb2.Job) -> None:
    message.fingerprints = message.fingerprints[:-1]


def odd_sizes(message: evaluator_pb2.Job) -> None:
    message.sources.sizes += b"\0"


HOSTILE_JOBS: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda _: b"\xff" * 99,
    "cut short": lambda content: content[:-3],
    "sizes that lie": lambda content: changed(content, lying_sizes),
    "odd sizes": lambda content: changed(content, odd_sizes),
    "too few fingerprints": lambda content: changed(content, short_fingerprints),
}


def changed(content: bytes, change: Callable[[evaluator_pb2.Job], None]) -> bytes:
    message = evaluator_pb2.Job.FromString(content)
    change(message)
    return message.SerializeToString()


@pytest.mark.parametrize("what", HOSTILE_JOBS)
def test_a_hostile_job_is_given_back_and_the_next_is_done(
    redis_url: str, evaluator: EvaluatorProcess, what: str
) -> None:
    async def body(ends: Ends) -> None:
        queue, _, run_id = ends
        bad, good = job("u0.s0", run_id), job("u1.s0", run_id)
        content = HOSTILE_JOBS[what](bad.SerializeToString())
        await queue.submit(0, [JobMessage(JobId("u0.s0"), content)])
        with pytest.raises(DeadJobError, match=r"ProtocolError|DecodeError"):
            await queue.collect(0, [JobId("u0.s0")], timeout_s=20)
        await queue.submit(1, [JobMessage(JobId("u1.s0"), good.SerializeToString())])
        found = await queue.collect(1, [JobId("u1.s0")], timeout_s=20)
        assert believed(found[JobId("u1.s0")], "u1.s0")[0] == 1.0

    with_queue(redis_url, body, max_deliveries=1)
    assert evaluator.process.poll() is None
