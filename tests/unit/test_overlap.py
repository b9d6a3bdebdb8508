"""Async mode: the order of learning, the bound of the lag, and what happens when something fails."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from altlas.config.sections import Config, RunSection, SamplingSection, WatchdogSection
from altlas.core.program import ProgramStatus
from altlas.core.score import Score
from altlas.core.score_batch import batch_scores
from altlas.errors import ProtocolError
from altlas.rpc.trainer.v1 import trainer_pb2
from altlas_coordinator.evaluation import EvaluatedBatch
from altlas_coordinator.loop import TrainingLoop, UpdateReport
from altlas_coordinator.roles import SampledPrograms
from altlas_coordinator.stopping import StopReason
from altlas_coordinator.totals import RunTotals, unpack_state
from altlas_coordinator.watchdog import Watchdog

BATCH, UPDATES, MAX_LAG = 4, 30, 3


def score() -> Score:
    return Score(
        status=ProgramStatus.OK,
        reward=0.5,
        components={"runs": 1.0},
        cases=1,
        behaviour=b"b" * 16,
        case_rewards=(0.5,),
    )


@dataclass
class Roles:
    """A generator, an evaluator and a trainer in one, each as slow as luck has it."""

    fails_at: int = -1
    width: int = 2
    luck: random.Random = field(default_factory=lambda: random.Random(1))
    version: int = 0
    drawn: list[tuple[int, int, int]] = field(default_factory=list)  # update, version asked for, version there
    learned: list[tuple[int, int]] = field(default_factory=list)  # update, version that drew it
    states: list[tuple[int, bytes]] = field(default_factory=list)
    at_work: int = 0
    most_at_work: int = 0
    seen: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    async def pause(self) -> None:
        await asyncio.sleep(self.luck.uniform(0, 0.004))

    async def sample(self, *, update: int, policy_version: int, count: int, task: int) -> SampledPrograms:
        self.drawn.append((update, policy_version, self.version))
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        await self.pause()
        self.at_work -= 1
        return SampledPrograms([b"%d.%d" % (update, row) for row in range(count)], [])

    async def evaluate(self, update: int, sources: list[bytes]) -> EvaluatedBatch:
        self.seen = np.concatenate([self.seen, np.arange(len(self.seen), len(self.seen) + len(sources), dtype="u8")])
        count = len(self.seen)
        await self.pause()
        if update == self.fails_at:
            raise ProtocolError(f"update {update} failed")
        return EvaluatedBatch(
            batch_scores([score() for _ in sources]), np.ones(len(sources), dtype=np.bool_), len(sources), seen=count
        )

    async def forget(self, update: int) -> None:
        await self.pause()

    async def learn(self, update, programs, scores, *, behaviour_version, task, reinitialise):
        await self.pause()
        assert programs.sources[0].startswith(b"%d." % update)
        self.learned.append((update, behaviour_version))
        self.version += 1
        return trainer_pb2.LearnResponse(policy_version=self.version)

    async def save_checkpoint(self, update, state, *, mean_reward, is_last):
        await self.pause()
        self.states.append((update, state))
        return trainer_pb2.SaveCheckpointResponse(path="there", policy_sha256="hash")


def loop_of(roles: Roles, reports: list[UpdateReport], *, updates: int = UPDATES) -> TrainingLoop:
    config = Config(
        run=RunSection(mode="async", max_lag=MAX_LAG, budget=updates * BATCH - 1, checkpoint_every=7, stuck_after=0),
        sampling=SamplingSection(batch_size=BATCH, max_tokens=5),
    )
    loop = TrainingLoop(
        config=config,
        source=roles,
        evaluations=[roles],  # type: ignore[list-item]
        learner=roles,  # type: ignore[arg-type]
        on_update=reports.append,
        totals=RunTotals.start(1),
        budgets=[config.run.budget],
        watchdog=Watchdog(WatchdogSection(), time.monotonic),
        is_new=True,
    )
    loop.may_go_on.set()
    return loop


def test_every_batch_is_learned_once_in_order_and_never_too_stale() -> None:
    roles, reports = Roles(), []
    ending = asyncio.run(loop_of(roles, reports).run())
    assert ending.reason is StopReason.BUDGET
    assert [update for update, _ in roles.learned] == list(range(UPDATES))
    lags = [update - version for update, version in roles.learned]
    assert max(lags) == MAX_LAG
    assert min(lags) == 0
    assert [report.lag for report in reports] == lags
    assert all(asked == there for _, asked, there in roles.drawn)
    assert roles.most_at_work == roles.width
    # The last batch has one program less, so that the budget is met to the program.
    assert reports[-1].totals.programs == UPDATES * BATCH - 1


def test_a_checkpoint_holds_the_programs_of_learned_batches_alone() -> None:
    roles, reports = Roles(), []
    asyncio.run(loop_of(roles, reports).run())
    assert [update for update, _ in roles.states] == [0, 7, 14, 21, 28, UPDATES]
    for update, state in roles.states:
        totals, (seen,) = unpack_state(state)
        assert (totals.updates, len(seen), totals.programs) == (update, totals.programs, min(update * BATCH, 119))


def test_a_failure_ends_the_run_and_leaves_nothing_at_work() -> None:
    async def scenario() -> set[asyncio.Task[None]]:
        roles = Roles(fails_at=9)
        with pytest.raises(ProtocolError, match="update 9 failed"):
            await loop_of(roles, []).run()
        assert len(roles.learned) <= 9
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(scenario()) == set()


def test_it_stops_at_an_update_boundary_and_a_pause_holds_it() -> None:
    async def scenario() -> None:
        roles, reports = Roles(), []
        loop = loop_of(roles, reports, updates=10_000)
        running = asyncio.ensure_future(loop.run())
        async with asyncio.timeout(20):
            while len(reports) < 5:
                await asyncio.sleep(0.001)
        loop.may_go_on.clear()
        await asyncio.sleep(0.1)
        held = len(reports)
        await asyncio.sleep(0.1)
        assert len(reports) == held
        loop.may_go_on.set()
        async with asyncio.timeout(20):
            while len(reports) < held + 3:
                await asyncio.sleep(0.001)
        loop.request_stop()
        ending = await running
        assert ending.reason is StopReason.REQUESTED
        assert roles.states[-1][0] == len(reports) == len(roles.learned)

    asyncio.run(scenario())
