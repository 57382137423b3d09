"""Jobs and leases: one owner at a time by the database's clock, epochs, and what the database itself refuses."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from oslo_db.exception import DBDuplicateEntry

from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import Conflict
from resizeflow.handover import TurnBack
from resizeflow.lease import Lease
from resizeflow.persistence.jobs import database_now
from resizeflow.persistence.models import Job, Migration
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus, VmState

FLOWS = ("resize_v1",)


@pytest.fixture
def cloud(memory_path: Path, connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=connection).build()


@pytest.fixture
def job(cloud: Cloud) -> Submitted:
    return cloud.service.resize("web", "big", host="h2")


def take(cloud: Cloud, job: Submitted, owner: str = "one", seconds: float = 100) -> Lease | None:
    with cloud.database.write() as tx:
        return tx.jobs.take(job.job_id, owner, seconds)


def taken(cloud: Cloud, job: Submitted, owner: str = "one") -> Lease:
    lease = take(cloud, job, owner)
    assert lease is not None
    return lease


def renew(cloud: Cloud, lease: Lease, seconds: float) -> bool:
    with cloud.database.write() as tx:
        return tx.jobs.renew(lease, seconds)


def set_row(cloud: Cloud, job: Submitted, **values: Any) -> None:
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Job).where(Job.id == job.job_id).values(values))


def takeable(cloud: Cloud) -> list[str]:
    with cloud.database.read() as tx:
        return list(tx.jobs.takeable(FLOWS))


def left(cloud: Cloud, job: Submitted) -> float:
    with cloud.database.read() as tx:
        return tx.jobs.seconds_left(job.job_id)


# --- leases ----------------------------------------------------------------------------------------------


def test_the_database_s_clock_is_the_time(cloud: Cloud) -> None:
    with cloud.database.read() as tx:
        now = tx.session.scalar(sa.select(database_now()))
    assert now == pytest.approx(time.time(), abs=60)


def test_a_job_is_taken_once(cloud: Cloud, job: Submitted) -> None:
    assert takeable(cloud) == [job.job_id]
    began = cloud.database.clock.boottime()
    lease = taken(cloud, job)
    assert (lease.job_id, lease.migration_id, lease.owner, lease.epoch) == (job.job_id, job.migration_id, "one", 1)
    assert began + 100 <= lease.surely_until <= cloud.database.clock.boottime() + 100
    assert take(cloud, job, "two") is None
    assert take(cloud, job, "one") is None
    assert takeable(cloud) == []
    row = cloud.job(job)
    assert (row.state, row.owner, row.epoch, row.attempts) == (JobState.RUNNING, "one", 1, 1)
    assert 50 < left(cloud, job) <= 100


def test_a_lease_is_renewed_by_the_database_s_clock(cloud: Cloud, job: Submitted) -> None:
    lease = taken(cloud, job)
    before = lease.surely_until
    assert renew(cloud, lease, 500)
    assert 450 < left(cloud, job) <= 500
    assert lease.surely_until >= before + 400
    assert lease.surely_until <= cloud.database.clock.boottime() + 500


def test_a_lease_that_has_ended_is_taken_over_under_a_new_epoch(cloud: Cloud, job: Submitted) -> None:
    first = taken(cloud, job)
    for epoch in range(2, 6):
        with cloud.database.write() as tx:
            tx.session.execute(sa.update(Job).values(lease_until=database_now() - 0.5))
        assert takeable(cloud) == [job.job_id]
        assert taken(cloud, job, f"worker {epoch}").epoch == epoch
        assert takeable(cloud) == []
    assert not renew(cloud, first, 500)
    assert first.lost
    assert cloud.job(job).owner == "worker 5"
    assert left(cloud, job) <= 100


def test_a_lease_with_a_moment_left_is_not_taken_over(cloud: Cloud, job: Submitted) -> None:
    taken(cloud, job)
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Job).values(lease_until=database_now() + 30))
    assert takeable(cloud) == []
    assert take(cloud, job, "two") is None


def test_an_ended_lease_that_nobody_took_is_renewed(cloud: Cloud, job: Submitted) -> None:
    lease = taken(cloud, job)
    set_row(cloud, job, lease_until=1.0)
    assert renew(cloud, lease, 100)
    assert take(cloud, job, "two") is None


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.NEEDS_ATTENTION, JobState.DONE])
def test_a_job_that_was_put_down_is_not_renewed(cloud: Cloud, job: Submitted, state: JobState) -> None:
    lease = taken(cloud, job)
    with cloud.database.write() as tx:
        tx.jobs.put_down(lease, state, reason="enough")
    assert not renew(cloud, lease, 100)
    row = cloud.job(job)
    assert (row.state, row.owner, row.epoch, row.reason) == (state, None, 1, "enough")
    assert (takeable(cloud) == [job.job_id]) == (state is JobState.QUEUED)


def test_a_delay_is_kept_and_resume_ends_it(cloud: Cloud, job: Submitted) -> None:
    lease = taken(cloud, job)
    with cloud.database.write() as tx:
        tx.jobs.put_down(lease, JobState.QUEUED, reason="waits", delay=1000)
    assert takeable(cloud) == []
    assert take(cloud, job) is None
    assert cloud.service.resume(job.migration_id) == job
    assert takeable(cloud) == [job.job_id]
    assert cloud.job(job).attempts == 0
    assert taken(cloud, job).epoch == 2


def test_attempts_count_only_what_was_an_attempt(cloud: Cloud, job: Submitted) -> None:
    for expected, counts in ((1, True), (1, False), (2, True), (3, True), (3, False)):
        lease = taken(cloud, job)
        with cloud.database.write() as tx:
            tx.jobs.put_down(lease, JobState.QUEUED, reason=None, counts=counts)
        assert cloud.job(job).attempts == expected
    lease = taken(cloud, job)
    with cloud.database.write(lease) as tx:
        tx.jobs.made_progress(lease)
    assert cloud.job(job).attempts == 1


def test_too_many_attempts_need_a_person_and_a_person_can_resume(cloud: Cloud, job: Submitted) -> None:
    set_row(cloud, job, attempts=cloud.settings.max_attempts)
    before = cloud.world.snapshot()
    assert cloud.run(job) is JobState.NEEDS_ATTENTION
    assert "without progress" in (cloud.job(job).reason or "")
    assert cloud.world.snapshot() == before
    assert takeable(cloud) == []
    cloud.service.resume(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    assert cloud.migration(job).status is MigrationStatus.FINISHED


def test_a_flow_of_another_version_is_kept_for_whom_knows_it(cloud: Cloud, job: Submitted) -> None:
    set_row(cloud, job, flow="resize_v9")
    assert takeable(cloud) == []
    assert cloud.run(job) is JobState.NEEDS_ATTENTION
    assert "resize_v9" in (cloud.job(job).reason or "")


def test_a_job_that_is_done_is_never_taken(cloud: Cloud, job: Submitted) -> None:
    assert cloud.run(job) is JobState.DONE
    set_row(cloud, job, lease_until=0.0, not_before=0.0)
    assert takeable(cloud) == []
    assert take(cloud, job) is None


def test_the_longest_waiting_is_taken_first(cloud: Cloud, job: Submitted) -> None:
    cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1})
    cloud.inventory.adopt("h1", "db")
    second = cloud.service.resize("db", "big", host="h2")
    assert takeable(cloud) == [job.job_id, second.job_id]
    set_row(cloud, job, not_before=2.0)
    set_row(cloud, second, not_before=1.0)
    assert takeable(cloud) == [second.job_id, job.job_id]


def test_workers_are_up_while_they_say_so(cloud: Cloud) -> None:
    with cloud.database.write() as tx:
        tx.workers.seen("one", 100)
        tx.workers.seen("two", -1)
        tx.workers.seen("one", 100)
    with cloud.database.read() as tx:
        assert [row.name for row in tx.workers.up()] == ["one"]
    with cloud.database.write() as tx:
        tx.workers.gone("one")
    with cloud.database.read() as tx:
        assert list(tx.workers.up()) == []


# --- what the database refuses ---------------------------------------------------------------------------


def test_one_unfinished_job_per_instance(cloud: Cloud, job: Submitted) -> None:
    for state in (JobState.QUEUED, JobState.RUNNING, JobState.NEEDS_ATTENTION):
        set_row(cloud, job, state=state)
        with pytest.raises(DBDuplicateEntry), cloud.database.write() as tx:
            tx.jobs.create(str(uuid.uuid4()), job.migration_id, cloud.uuid, "settle_v1")
    set_row(cloud, job, state=JobState.DONE)
    with cloud.database.write() as tx:
        tx.jobs.create(str(uuid.uuid4()), job.migration_id, cloud.uuid, "settle_v1")


def test_one_open_migration_per_instance(cloud: Cloud, job: Submitted) -> None:
    assert cloud.run(job) is JobState.DONE
    first = cloud.migration(job)

    def another() -> Migration:
        columns = ("instance_id", "instance_name", "project_id", "kind", "source_host_id", "old_flavor_id")
        return Migration(
            id=str(uuid.uuid4()),
            **{column: getattr(first, column) for column in columns},
            new_flavor_id=first.new_flavor_id,
            status=MigrationStatus.PRE_MIGRATING,
            old_vm_state=VmState.ACTIVE,
            created_at=first.created_at,
        )

    for status in MigrationStatus:
        with cloud.database.write() as tx:
            tx.migrations.get(job.migration_id).status = status
        opened = status in (MigrationStatus.CONFIRMED, MigrationStatus.REVERTED, MigrationStatus.ERROR)
        if opened:
            with cloud.database.write() as tx:
                row = another()
                tx.session.add(row)
            with cloud.database.write() as tx:
                tx.session.delete(tx.migrations.get(row.id))
        else:
            with pytest.raises(DBDuplicateEntry), cloud.database.write() as tx:
                tx.session.add(another())


def test_a_second_request_is_refused_and_changes_nothing(cloud: Cloud, job: Submitted) -> None:
    before = cloud.state()
    with pytest.raises(Conflict):
        cloud.service.resize("web", "big", host="h2")
    with pytest.raises(Conflict):
        cloud.service.migrate("web")
    with pytest.raises(Conflict):
        cloud.service.confirm("web")
    assert cloud.state() == before


# --- direction and pivot ---------------------------------------------------------------------------------


def test_a_job_turned_back_never_pivots(cloud: Cloud, job: Submitted) -> None:
    lease = taken(cloud, job)
    with cloud.database.write() as tx:
        assert tx.jobs.turn_back(job.job_id)
        assert tx.jobs.turn_back(job.job_id)
    with pytest.raises(TurnBack), cloud.database.write(lease) as tx:
        tx.jobs.pivot(lease)
    row = cloud.job(job)
    assert (row.direction, row.pivot_at) == (Direction.BACK, None)


def test_a_job_past_its_pivot_never_turns_back(cloud: Cloud, job: Submitted) -> None:
    lease = taken(cloud, job)
    with cloud.database.write(lease) as tx:
        tx.jobs.pivot(lease)
    pivot_at = cloud.job(job).pivot_at
    assert pivot_at is not None
    with cloud.database.write() as tx:
        assert not tx.jobs.turn_back(job.job_id)
    with cloud.database.write(lease) as tx:
        tx.jobs.pivot(lease)
    row = cloud.job(job)
    assert (row.direction, row.pivot_at) == (Direction.FORWARD, pivot_at)
    with pytest.raises(Conflict, match="can only go forward"):
        cloud.service.rollback(job.migration_id)


def test_a_job_that_is_done_does_not_turn_back(cloud: Cloud, job: Submitted) -> None:
    assert cloud.run(job) is JobState.DONE
    set_row(cloud, job, pivot_at=None)
    with cloud.database.write() as tx:
        assert not tx.jobs.turn_back(job.job_id)
    assert cloud.job(job).direction is Direction.FORWARD


def test_a_confirm_does_not_roll_back(cloud: Cloud, job: Submitted) -> None:
    assert cloud.run(job) is JobState.DONE
    confirm = cloud.service.confirm("web")
    with pytest.raises(Conflict, match="only goes forward"):
        cloud.service.rollback(job.migration_id)
    assert cloud.job(confirm).direction is Direction.FORWARD
