"""The fleet as it is now, on both databases: who holds what, how fast, what waits for whom."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.audit.outcome import Standing, standing
from resizeflow.audit.overview import MOST, Overview, overview
from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.persistence.models import Event, Host, Job, Migration, WorkerRow
from resizeflow.service import Submitted
from resizeflow.states import Direction, JobState, MigrationStatus
from tests.killed import killed_in_transfer


@pytest.fixture
def cloud(memory_path: Path, slow_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=slow_connection).build()


def now(cloud: Cloud) -> Overview:
    with cloud.database.read() as tx:
        return overview(tx)


def in_mid_transfer(cloud: Cloud) -> Submitted:
    job = cloud.service.resize("web", "big", host="h2")
    killed_in_transfer(cloud, job)
    return job


def test_nothing_to_do(cloud: Cloud) -> None:
    seen = now(cloud)
    assert (seen.in_flight, seen.attention, seen.undecided, seen.debts, seen.open_count) == ([], [], [], [], 0)
    assert [(host.name, host.state, host.moves) for host in seen.hosts] == [("h1", "enabled", 0), ("h2", "enabled", 0)]


def test_who_moves_what_and_how_fast(cloud: Cloud) -> None:
    job = in_mid_transfer(cloud)
    row = cloud.migration(job)
    with cloud.database.write() as tx:
        # A hundred seconds ago there was half as much.
        there = sa.update(Event).where(Event.migration_id == row.id, Event.kind == "transfer")
        earlier = {"bytes_done": row.bytes_done // 2, "bytes_total": row.bytes_total}
        tx.session.execute(there.values(at=tx.now() - timedelta(seconds=100), data=earlier))
    (moving,) = now(cloud).in_flight
    assert (moving.instance, moving.doing, moving.task, moving.step, moving.steps) == (
        "web", "resize", "TransferDisks", 9, 16,
    )  # fmt: skip
    assert (moving.worker, moving.direction, moving.job_state) == (
        cloud.job(job).owner, Direction.FORWARD, JobState.RUNNING,
    )  # fmt: skip
    assert 0 < moving.lease_left <= cloud.settings.lease_seconds
    assert moving.pace is not None
    assert moving.pace.done == row.bytes_done
    assert moving.pace.rate == pytest.approx(row.bytes_done / 200, rel=0.2)
    assert moving.pace.seconds_left == pytest.approx(
        (row.bytes_total - row.bytes_done) / (row.bytes_done / 200), rel=0.2
    )


def test_a_silent_worker_is_seen(cloud: Cloud) -> None:
    job = in_mid_transfer(cloud)
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Job).values(lease_until=Job.lease_until - cloud.settings.lease_seconds - 5))
        tx.session.execute(sa.update(WorkerRow).values(seen_until=0.0))
    seen = now(cloud)
    assert seen.in_flight[0].lease_left < -4
    assert seen.workers == []
    cloud.service.rollback(job.migration_id)
    assert now(cloud).in_flight[0].direction is Direction.BACK


def test_what_waits_says_why_and_until_when(cloud: Cloud) -> None:
    job = in_mid_transfer(cloud)
    cloud.world.set_up("h1", False)
    assert cloud.run(job) is JobState.QUEUED
    (moving,) = now(cloud).in_flight
    assert (moving.task, moving.worker) == ("TransferDisks", None)
    assert "h1" in (moving.reason or "")
    assert 0 < moving.waits <= 10
    assert "the job then goes on by itself" in (moving.advice or "")


@pytest.mark.slow
def test_what_needs_a_person_and_what_was_left_behind(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "StartDestination.commit.pivot#1.before") == KILLED
    cloud.world.crash("h2")
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Host).where(Host.name == "h2").values(fenced_at=tx.now(), enabled=False))
    seen = now(cloud)
    assert {(debt.kind, debt.host, debt.waits_for) for debt in seen.debts} == {
        ("domain", "h2", "h2"),
        ("disk", "h2", "h2"),
    }
    assert seen.debts_count == len(seen.debts)
    assert seen.hosts[1].state.startswith("fenced at ")
    again = cloud.service.resize("web", "big", host="h1")
    with cloud.database.write() as tx:
        stopped = sa.update(Job).where(Job.id == again.job_id)
        tx.session.execute(stopped.values(state=JobState.NEEDS_ATTENTION, reason="look at it"))
    (alarm,) = now(cloud).attention
    assert alarm.id == again.migration_id
    assert f"`resizeflow migration resume {alarm.id[:8]}`" in (alarm.advice or "")


def test_not_more_than_so_many_are_listed_and_alarms_are_among_them(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h1")
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Job).values(state=JobState.NEEDS_ATTENTION, reason="look at it"))
        row = dict(tx.session.execute(sa.select(Migration.__table__)).mappings().one())
        row |= {"status": MigrationStatus.FINISHED, "created_at": tx.now() + timedelta(hours=1)}
        more = [{**row, "id": f"{number:036}", "instance_id": f"{number:036}"} for number in range(MOST + 5)]
        tx.session.execute(sa.insert(Migration.__table__), more)  # type: ignore[arg-type]
    seen = now(cloud)
    assert [alarm.id for alarm in seen.attention] == [job.migration_id]
    assert (seen.listed, seen.open_count) == (MOST, MOST + 6)


@pytest.mark.parametrize("status", MigrationStatus)
@pytest.mark.parametrize("job", [None, *(state for state in JobState if state is not JobState.DONE)])
def test_every_state_has_a_standing(status: MigrationStatus, job: JobState | None) -> None:
    stands = standing(status, job)
    assert (stands is Standing.ATTENTION) == (job is JobState.NEEDS_ATTENTION)
    if job in (JobState.QUEUED, JobState.RUNNING):
        assert stands is Standing.IN_FLIGHT
