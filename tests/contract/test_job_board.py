"""What TaskFlow promises of a job board and expects of it: ours, with TaskFlow's own conductor working on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from taskflow import exceptions as taskflow_exc
from taskflow import states
from taskflow.conductors.backends.impl_blocking import BlockingConductor
from taskflow.persistence import models
from taskflow.types.entity import Entity

from resizeflow.chaos.cloud import Cloud
from resizeflow.handover import Handover
from resizeflow.persistence.job_board import BoardJob, DatabaseJobBoard
from resizeflow.persistence.models import Job
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus
from resizeflow.worker import TASKS, Worker
from tests.console import everything

LEASE = 600.0
CLOCKS = {"sqlite": "julianday('now')", "postgresql": "clock_timestamp()"}


class DatabaseClock:
    """The database's clock, which a test can put forward: every statement that asks for the time gets a later one."""

    def __init__(self, cloud: Cloud) -> None:
        self.ahead = 0.0
        sa.event.listen(cloud.database.engine, "before_cursor_execute", self._later, retval=True)

    def forward(self, seconds: float) -> None:
        self.ahead += seconds

    def _later(
        self, connection: sa.Connection, _cursor: object, statement: str, parameters: Any, *_rest: object
    ) -> Any:
        now = CLOCKS[connection.dialect.name]
        if connection.dialect.name == "sqlite":
            later = f"julianday('now', '+{self.ahead} seconds')"
        else:
            later = f"(clock_timestamp() + interval '{self.ahead} seconds')"
        return statement.replace(now, later), parameters


class Conductor(BlockingConductor):  # type: ignore[misc]  # TaskFlow has no types
    """TaskFlow's, with what it cannot know: where a flow of ours gets its world from, and what a handover is."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.name, worker.board, engine="serial")
        self._worker = worker

    def _engine_from_job(self, job: BoardJob) -> Any:
        return self._worker.engine(job)

    def _dispatch_job(self, job: BoardJob) -> bool:
        try:
            return bool(super()._dispatch_job(job))
        except Handover as handover:
            job.handover = handover
            return False


def run_one(conductor: BlockingConductor) -> str:
    """Lets a conductor work until it has put one job down; how it did."""
    ended: list[str] = []

    def stop(event: str, details: object) -> None:
        ended.append(event)
        conductor.stop()

    for event in ("job_consumed", "job_abandoned", "job_trashed"):
        conductor.notifier.register(event, stop)
    conductor.run()
    return ended[0]


@pytest.fixture
def cloud(memory_path: Path, connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=connection).build()


@pytest.fixture
def clock(cloud: Cloud) -> DatabaseClock:
    return DatabaseClock(cloud)


@pytest.fixture
def job(cloud: Cloud) -> Submitted:
    return cloud.service.resize("web", "big", host="h2")


@pytest.fixture
def board(cloud: Cloud) -> DatabaseJobBoard:
    return DatabaseJobBoard(cloud.database, LEASE, TASKS)


@pytest.fixture
def worker(cloud: Cloud) -> Worker:
    """Its connections and settings; nobody renews its leases."""
    return Worker(cloud.database, cloud.settings, clock=cloud.clock, announced=False)


def the_job(board: DatabaseJobBoard) -> BoardJob:
    (found,) = board.iterjobs()
    return found


# --- TaskFlow's conductor --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_conductor_resizes_and_confirms(cloud: Cloud, job: Submitted, worker: Worker) -> None:
    assert run_one(Conductor(worker)) == "job_consumed"
    assert cloud.job(job).state is JobState.DONE, cloud.story(job)
    assert cloud.migration(job).status is MigrationStatus.FINISHED
    assert cloud.world.running(cloud.uuid) == ("h2",)
    confirm = cloud.service.confirm("web")
    assert run_one(Conductor(worker)) == "job_consumed"
    assert cloud.job(confirm).state is JobState.DONE, cloud.story(confirm)
    assert cloud.migration(job).status is MigrationStatus.CONFIRMED


def test_a_conductor_rolls_a_failed_resize_back(cloud: Cloud, worker: Worker) -> None:
    before = cloud.state()
    job = cloud.service.resize("web", "big", host="h2")
    cloud.world.fail("h2", "create_volume", "the pool is broken")
    assert run_one(Conductor(worker)) == "job_consumed"
    assert cloud.job(job).state is JobState.DONE, cloud.story(job)
    assert cloud.migration(job).status is MigrationStatus.ERROR
    assert cloud.state(job) == before


def test_a_conductor_goes_on_where_a_worker_was_killed_and_back_if_told_so(cloud: Cloud, worker: Worker) -> None:
    before = cloud.state()
    job = cloud.service.resize("web", "big", host="h2")
    cloud.run_in_child(job, "TransferDisks.create_volume#1.after")
    cloud.service.rollback(job.migration_id)
    cloud.expire(job)
    assert run_one(Conductor(worker)) == "job_consumed"
    row = cloud.job(job)
    assert (row.state, row.direction, row.epoch) == (JobState.DONE, Direction.BACK, 2), cloud.story(job)
    assert cloud.state(job) == before


def test_what_a_conductor_abandons_waits_with_its_reason(cloud: Cloud, job: Submitted, worker: Worker) -> None:
    cloud.world.set_up("h1", False)
    assert run_one(Conductor(worker)) == "job_abandoned"
    row = cloud.job(job)
    assert (row.state, row.direction, row.owner, row.attempts) == (JobState.QUEUED, Direction.FORWARD, None, 0)
    assert "host h1 does not answer" in (row.reason or "")
    with cloud.database.read() as tx:
        assert tx.jobs.seconds_to_wait(job.job_id) > 0
    cloud.world.set_up("h1", True)
    cloud.expire(job)
    assert run_one(Conductor(worker)) == "job_consumed"
    assert cloud.job(job).state is JobState.DONE, cloud.story(job)


def test_what_a_stock_conductor_cannot_rebuild_is_not_thrown_away(
    cloud: Cloud, job: Submitted, board: DatabaseJobBoard
) -> None:
    """It trashes such a job, which elsewhere is the end of it."""
    world = cloud.world.snapshot()
    assert run_one(BlockingConductor("stock", board, engine="serial")) == "job_trashed"
    row = cloud.job(job)
    assert (row.state, row.owner) == (JobState.NEEDS_ATTENTION, None)
    assert row.reason == "stock gave it up: its flow resize_v1 could not be rebuilt. None of its tasks was begun"
    assert cloud.world.snapshot() == world
    assert list(board.iterjobs()) == []
    cloud.service.resume(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    assert cloud.world.running(cloud.uuid) == ("h2",)


def test_a_conductor_is_not_offered_a_flow_that_it_does_not_know(
    cloud: Cloud, job: Submitted, board: DatabaseJobBoard
) -> None:
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Job).values(flow="resize_v9"))
    assert list(board.iterjobs(only_unclaimed=True)) == []
    newer = DatabaseJobBoard(cloud.database, LEASE, {**TASKS, "resize_v9": TASKS["resize_v1"]})
    assert [found.uuid for found in newer.iterjobs(only_unclaimed=True)] == [job.job_id]


# --- claims and their expiry -----------------------------------------------------------------------------


def test_a_claim_ends_by_the_database_s_clock(
    cloud: Cloud, job: Submitted, board: DatabaseJobBoard, clock: DatabaseClock
) -> None:
    first, second = the_job(board), the_job(board)
    board.claim(first, "one")
    assert (board.find_owner(second), second.state, first.held.epoch) == ("one", states.CLAIMED, 1)
    clock.forward(LEASE - 5)
    assert 0 < second.expires_in() <= 5
    with pytest.raises(taskflow_exc.UnclaimableJob):
        board.claim(second, "two")
    assert list(board.iterjobs(only_unclaimed=True)) == []
    clock.forward(10)
    assert (board.find_owner(first), second.expires_in()) == (None, 0)
    board.claim(second, "two")
    assert (board.find_owner(first), second.held.epoch, second.held.taken_from) == ("two", 2, "one")
    before = everything(cloud)
    for end in (board.consume, board.abandon, board.trash):
        with pytest.raises(taskflow_exc.JobFailure):
            end(first, "one")
        with pytest.raises(taskflow_exc.JobFailure):
            end(second, "one")
    assert not first.extend_expiry(LEASE)
    assert everything(cloud) == before


def test_a_claim_is_extended(cloud: Cloud, job: Submitted, board: DatabaseJobBoard, clock: DatabaseClock) -> None:
    mine = the_job(board)
    board.claim(mine, "one")
    for _ in range(3):
        clock.forward(LEASE - 1)
        assert mine.extend_expiry(LEASE)
        assert LEASE - 5 < mine.expires_in() <= LEASE
    assert mine.extend_expiry(5)
    clock.forward(10)
    assert [found.uuid for found in board.iterjobs(only_unclaimed=True)] == [job.job_id]


def test_only_who_claimed_a_job_ends_its_claim_and_once(cloud: Cloud, job: Submitted, board: DatabaseJobBoard) -> None:
    mine, other = the_job(board), the_job(board)
    for end in (board.consume, board.abandon, board.trash):
        with pytest.raises(taskflow_exc.JobFailure):
            end(mine, "one")
    board.claim(mine, "one")
    with pytest.raises(taskflow_exc.JobFailure):
        board.abandon(mine, "two")
    with pytest.raises(taskflow_exc.JobFailure):
        board.abandon(other, "one")
    assert cloud.job(job).owner == "one"
    board.abandon(mine, "one")
    assert cloud.job(job).state is JobState.QUEUED
    before = everything(cloud)
    for end in (board.consume, board.abandon, board.trash):
        with pytest.raises(taskflow_exc.JobFailure):
            end(mine, "one")
    assert everything(cloud) == before


def test_a_job_is_consumed_only_when_its_flow_has_ended(cloud: Cloud, job: Submitted, board: DatabaseJobBoard) -> None:
    cloud.run_in_child(job, "TransferDisks.create_volume#1.after")
    cloud.expire(job)
    mine = the_job(board)
    board.claim(mine, "one")
    board.consume(mine, "one")
    row = cloud.job(job)
    assert row.state is JobState.NEEDS_ATTENTION
    assert row.reason == (
        "one says it is done, but its flow is RUNNING. Done: OpenMigration to RetireSource. "
        "Begun and not done: TransferDisks. Not begun: DetachSourceVolumes to FinishResize"
    )
    cloud.service.resume(job.migration_id)
    assert cloud.run(job) is JobState.DONE


def test_a_job_whose_flow_has_ended_is_not_given_out(cloud: Cloud, job: Submitted, board: DatabaseJobBoard) -> None:
    assert cloud.run(job) is JobState.DONE
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Job).values(state=JobState.QUEUED))
    mine = the_job(board)
    with pytest.raises(taskflow_exc.UnclaimableJob):
        board.claim(mine, "one")
    assert (cloud.job(job).state, mine.state) == (JobState.DONE, states.COMPLETE)


# --- the rest of the interface ---------------------------------------------------------------------------


def test_what_is_on_the_board(cloud: Cloud, job: Submitted, board: DatabaseJobBoard, clock: DatabaseClock) -> None:
    cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1})
    cloud.inventory.adopt("h1", "db")
    second = cloud.service.resize("db", "big", host="h2")
    assert [found.uuid for found in board.iterjobs()] == [job.job_id, second.job_id]
    assert board.job_count == 2
    mine = next(board.iterjobs())
    board.claim(mine, "one")
    assert [found.uuid for found in board.iterjobs(only_unclaimed=True)] == [second.job_id]
    assert [(found.uuid, found.state) for found in board.iterjobs()] == [
        (second.job_id, states.UNCLAIMED),
        (job.job_id, states.CLAIMED),
    ]
    board.trash(mine, "one")
    assert [found.uuid for found in board.iterjobs()] == [second.job_id]
    assert (board.job_count, mine.state) == (2, states.UNCLAIMED)
    assert board.job(job.job_id).uuid == job.job_id
    with pytest.raises(taskflow_exc.NotFound):
        board.job("no such job")


def test_what_a_job_tells(cloud: Cloud, job: Submitted, board: DatabaseJobBoard) -> None:
    found = the_job(board)
    assert (found.name, found.book_uuid, found.board) == ("resize_v1", job.migration_id, board)
    assert found.details == {"flow_uuid": job.job_id, "migration_id": job.migration_id, "instance_id": cloud.uuid}
    assert found.book.find(job.job_id).name == "resize_v1"
    assert found.created_on == cloud.job(job).created_at
    assert found.last_modified >= found.created_on


def test_a_job_is_waited_for(cloud: Cloud, board: DatabaseJobBoard) -> None:
    assert list(board.wait(timeout=0)) == []
    job = cloud.service.resize("web", "big", host="h2")
    assert [found.uuid for found in board.wait()] == [job.job_id]
    assert not board.job(job.job_id).wait(timeout=0)
    assert cloud.run(job) is JobState.DONE
    assert board.job(job.job_id).wait(timeout=0.1)


def test_a_job_is_posted(cloud: Cloud, job: Submitted, board: DatabaseJobBoard) -> None:
    details = {"migration_id": job.migration_id, "instance_id": cloud.uuid}
    before = everything(cloud)
    with pytest.raises(taskflow_exc.JobFailure, match="unfinished job"):
        board.post("confirm_v1", details=details)
    with pytest.raises(ValueError, match="migration_id"):
        board.post("confirm_v1", details={})
    with pytest.raises(ValueError, match="its own book"):
        board.post("confirm_v1", book=models.LogBook("b"), details=details)
    assert everything(cloud) == before
    assert cloud.run(job) is JobState.DONE
    posted = board.post("settle_v1", details=details)
    assert [found.uuid for found in board.iterjobs()] == [posted.uuid]


def test_a_conductor_is_among_the_workers(cloud: Cloud, board: DatabaseJobBoard, clock: DatabaseClock) -> None:
    board.register_entity(Entity("conductor", "stock@here:1", {}))
    with cloud.database.read() as tx:
        (row,) = tx.workers.up("resize_v1")
    assert row.name == "stock@here:1"
    clock.forward(LEASE + 1)
    with cloud.database.read() as tx:
        assert list(tx.workers.up()) == []


@pytest.fixture
def away(cloud: Cloud, job: Submitted) -> Iterator[None]:
    """The database does not answer."""

    def fail(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        raise sa.exc.OperationalError(statement, {}, Exception("server closed the connection unexpectedly"))

    sa.event.listen(cloud.database.engine, "before_cursor_execute", fail)
    yield
    sa.event.remove(cloud.database.engine, "before_cursor_execute", fail)


def test_a_database_that_is_away_is_a_failure_that_passes(
    cloud: Cloud, job: Submitted, board: DatabaseJobBoard, worker: Worker, request: pytest.FixtureRequest
) -> None:
    mine = the_job(board)
    board.connect()
    assert board.connected
    request.getfixturevalue("away")
    for ask in (
        board.iterjobs,
        lambda: board.job_count,
        lambda: mine.state,
        lambda: board.claim(mine, "one"),
        board.connect,
    ):
        with pytest.raises(taskflow_exc.JobFailure, match="server closed the connection unexpectedly"):
            ask()
    assert not worker.take_and_run(job.job_id)
