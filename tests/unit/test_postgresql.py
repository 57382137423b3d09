"""PostgreSQL under READ COMMITTED: what holds of a lease when two transactions really overlap."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from lab.postgresql import PostgreSQL
from resizeflow.chaos.child import Child
from resizeflow.chaos.cloud import Cloud
from resizeflow.errors import Conflict
from resizeflow.handover import Handover, LeaseLost, TurnBack
from resizeflow.lease import Lease
from resizeflow.persistence import database as database_module
from resizeflow.persistence import schema
from resizeflow.persistence.database import Database
from resizeflow.service import Submitted
from resizeflow.states import Direction
from tests.console import everything
from tests.rivals import PATIENCE, Rival, overdue, take


@pytest.fixture
def cloud(memory_path: Path, postgresql_url: str) -> Cloud:
    return Cloud(memory_path, connection=postgresql_url).build()


@pytest.fixture
def job(cloud: Cloud) -> Submitted:
    return cloud.service.resize("web", "big", host="h2")


@pytest.fixture
def lease(cloud: Cloud, job: Submitted) -> Lease:
    return overdue(cloud, job)


def note(cloud: Cloud, lease: Lease, text: str) -> None:
    with cloud.database.fenced(lease, "probe") as tx:
        tx.events.add(lease.migration_id, "note", text)


def notes(cloud: Cloud, job: Submitted) -> list[tuple[int, str]]:
    with cloud.database.read() as tx:
        events = tx.events.of(job.migration_id)
        assert tx.events.flaw(job.migration_id) is None
    return [(event.epoch, event.text) for event in events if event.kind == "note"]


# --- isolation -------------------------------------------------------------------------------------------


def test_transactions_have_their_isolation_whatever_the_server_s_default(cloud: Cloud) -> None:
    with cloud.database.write() as tx:
        name = tx.session.scalar(sa.text("SELECT current_database()"))
        tx.session.execute(sa.text(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"))
    database = Database.of(cloud.settings)
    for _ in range(2):
        with database.write() as tx:
            assert tx.session.scalar(sa.text("SHOW transaction_isolation")) == "read committed"
            assert tx.session.scalar(sa.text("SHOW transaction_read_only")) == "off"
        with database.read() as tx:
            assert tx.session.scalar(sa.text("SHOW transaction_isolation")) == "repeatable read"
            assert tx.session.scalar(sa.text("SHOW transaction_read_only")) == "on"
    database.engine.dispose()


def test_a_read_sees_one_moment(cloud: Cloud, job: Submitted) -> None:
    with cloud.database.read() as tx:
        before = tx.jobs.get(job.job_id).epoch
        assert take(cloud, job) is not None
        assert tx.jobs.get(job.job_id).epoch == before
    assert cloud.job(job).epoch == before + 1


# --- the fence -------------------------------------------------------------------------------------------


def test_a_take_over_waits_for_a_fenced_transaction(cloud: Cloud, job: Submitted, lease: Lease) -> None:
    with cloud.database.fenced(lease, "probe") as tx:
        successor = Rival(lambda: take(cloud, job)).waits(cloud.database)
        tx.events.add(job.migration_id, "note", "by the first")
    taken = successor.end()
    assert (taken.owner, taken.epoch) == ("second", 2)
    with pytest.raises(LeaseLost):
        note(cloud, lease, "too late")
    note(cloud, taken, "by the second")
    assert notes(cloud, job) == [(1, "by the first"), (2, "by the second")]


def test_a_take_over_between_check_and_commit(cloud: Cloud, job: Submitted, lease: Lease) -> None:
    """The zombie's transaction begins while the take-over is not yet committed: it waits, and then sees the epoch."""
    before = everything(cloud)
    with cloud.database.write() as tx:
        assert tx.jobs.take(job.job_id, "second", 600) is not None
        zombie = Rival(lambda: note(cloud, lease, "by the zombie")).waits(cloud.database)
    assert isinstance(zombie.end(), LeaseLost)
    assert lease.lost
    after = everything(cloud)
    assert {name for name in after if after[name] != before[name]} == {"jobs"}


NAIVE = sa.text(
    "UPDATE migrations SET error = 'by the zombie' WHERE id = :migration"
    " AND EXISTS (SELECT 1 FROM jobs WHERE jobs.id = :job AND jobs.epoch = :epoch)"
)
"""What one would write without thinking of READ COMMITTED."""


def zombie_s_update(cloud: Cloud, lease: Lease) -> int:
    with cloud.database.write() as tx:
        of = {"migration": lease.migration_id, "job": lease.job_id, "epoch": lease.epoch}
        return int(tx.session.execute(NAIVE, of).rowcount)  # type: ignore[attr-defined]


def test_and_exists_would_not_keep_a_successor_out(cloud: Cloud, job: Submitted, lease: Lease) -> None:
    with cloud.database.write() as tx:
        tx.session.execute(NAIVE, {"migration": lease.migration_id, "job": lease.job_id, "epoch": lease.epoch})
        # The condition locks nothing: the job is taken over while the write is open.
        assert take(cloud, job) is not None
    assert (cloud.job(job).epoch, cloud.migration(job).error) == (2, "by the zombie")


def test_and_exists_would_let_a_zombie_write_after_the_take_over(cloud: Cloud, job: Submitted, lease: Lease) -> None:
    with cloud.database.write() as tx:
        successor = tx.jobs.take(job.job_id, "second", 600)
        assert successor is not None
        tx.migrations.get(job.migration_id).error = "by the successor"
        tx.session.flush()
        zombie = Rival(lambda: zombie_s_update(cloud, lease)).waits(cloud.database)
    # It waited for the row, then looked at the row anew, but at the epoch as it had been.
    assert zombie.end() == 1
    assert (cloud.job(job).epoch, cloud.migration(job).error) == (2, "by the zombie")


@pytest.mark.slow
def test_who_is_stopped_in_a_transaction_loses_its_locks(
    cloud: Cloud, job: Submitted, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker that hangs between two statements would keep all others from its job, for as long as it hangs."""
    options = "-c idle_in_transaction_session_timeout=2s"
    monkeypatch.setitem(database_module.POSTGRESQL, "options", options)
    hanging = Database.of(cloud.settings)
    with pytest.raises(Handover, match="the database does not answer"), hanging.fenced(lease, "probe") as tx:
        taken = take(cloud, job)
        tx.events.add(job.migration_id, "note", "by the zombie")
    hanging.engine.dispose()
    assert taken is not None
    assert taken.epoch == 2
    assert notes(cloud, job) == []


def test_the_time_to_wait_and_to_hang_is_bounded(cloud: Cloud) -> None:
    with cloud.database.read() as tx:
        for setting in ("lock_timeout", "idle_in_transaction_session_timeout"):
            assert tx.session.scalar(sa.text(f"SHOW {setting}")) == f"{database_module.BUSY_SECONDS}s"


def test_a_renewal_that_is_not_committed_is_not_believed(cloud: Cloud, job: Submitted) -> None:
    lease = take(cloud, job)
    assert lease is not None
    before = lease.surely_until
    with pytest.raises(ZeroDivisionError), cloud.database.write() as tx:
        assert tx.jobs.renew(lease, 3600)
        raise ZeroDivisionError
    assert lease.surely_until == before
    with cloud.database.write() as tx:
        assert tx.jobs.renew(lease, 3600)
    assert lease.surely_until > before + 2000


# --- direction and pivot ---------------------------------------------------------------------------------


def test_a_rollback_asked_for_while_the_pivot_is_written_is_refused(cloud: Cloud, job: Submitted, lease: Lease) -> None:
    with cloud.database.fenced(lease, "probe") as tx:
        tx.jobs.pivot(lease)
        rollback = Rival(lambda: cloud.service.rollback(job.migration_id)).waits(cloud.database)
    assert isinstance(rollback.end(), Conflict)
    assert cloud.job(job).direction is Direction.FORWARD


def test_a_pivot_that_meets_a_rollback_is_not_passed(cloud: Cloud, job: Submitted, lease: Lease) -> None:
    def pivot() -> None:
        with cloud.database.fenced(lease, "probe") as tx:
            tx.jobs.pivot(lease)

    with cloud.database.write() as tx:
        assert tx.jobs.turn_back(job.job_id)
        flow = Rival(pivot).waits(cloud.database)
    assert isinstance(flow.end(), TurnBack)
    row = cloud.job(job)
    assert (row.direction, row.pivot_at) == (Direction.BACK, None)


# --- a new database --------------------------------------------------------------------------------------


def test_a_new_database_is_made_ready_once_by_many(postgresql: PostgreSQL) -> None:
    postgresql.create_database("bare")

    def first_command() -> None:
        schema.require_current(Database(postgresql.url("bare")))

    assert [child.wait(PATIENCE) for child in [Child(first_command) for _ in range(3)]] == [0, 0, 0]
    database = Database(postgresql.url("bare"))
    assert schema.current(database) == schema.head()
    database.engine.dispose()
    postgresql.drop_database("bare")
