"""A resize that nobody decides is confirmed by a worker when its time has come, once, and only if it can be."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow import auto_confirm
from resizeflow.auto_confirm import queue_confirms
from resizeflow.chaos.cloud import Cloud, FastClock
from resizeflow.connections import Connections
from resizeflow.doctor import Doctor
from resizeflow.looks import Looks
from resizeflow.persistence.models import Event, Instance, Job, Migration
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus, TaskState, VmState
from resizeflow.worker import Worker
from tests.conftest import BOTH
from tests.console import Console
from tests.rivals import at_once

pytestmark = pytest.mark.slow

WINDOW = 3600


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=thorough_connection, resize_confirm_window=str(WINDOW)).build()


@pytest.fixture
def resized(cloud: Cloud) -> Submitted:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    return job


def past(cloud: Cloud, job: Submitted, seconds: float) -> None:
    """As if everything that the log tells of had happened earlier; its chain of hashes is not looked at here."""
    with cloud.database.write() as tx:
        for event in tx.session.scalars(sa.select(Event).where(Event.migration_id == job.migration_id)):
            event.at -= timedelta(seconds=seconds)


def confirms(cloud: Cloud) -> int:
    """How many confirms a worker's look queues."""
    return queue_confirms(cloud.database, Looks(Connections(), cloud.settings, FastClock()), cloud.settings)


def jobs(cloud: Cloud, job: Submitted) -> list[str]:
    with cloud.database.read() as tx:
        return [row.flow for row in tx.jobs.of_migration(job.migration_id)]


def drain(cloud: Cloud) -> None:
    with Worker(cloud.database, cloud.settings, clock=FastClock()) as worker:
        worker.drain()


def test_not_before_its_time(cloud: Cloud, resized: Submitted) -> None:
    past(cloud, resized, WINDOW - 300)
    assert confirms(cloud) == 0
    assert cloud.migration(resized).status is MigrationStatus.FINISHED
    past(cloud, resized, 301)
    assert confirms(cloud) == 1
    assert cloud.migration(resized).status is MigrationStatus.CONFIRMING


@BOTH
def test_a_worker_confirms_by_itself(cloud: Cloud, resized: Submitted) -> None:
    past(cloud, resized, WINDOW + 1)
    drain(cloud)
    assert cloud.migration(resized).status is MigrationStatus.CONFIRMED
    assert jobs(cloud, resized) == ["resize_v1", "confirm_v1"]
    assert "auto-confirm after 3600 s accepted, status confirming" in cloud.story(resized)
    with cloud.database.read() as tx:
        row = tx.instances.get("web")
        assert (row.vm_state, row.task_state) == (VmState.ACTIVE, None)


def test_off_by_default(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build()
    job = cloud.service.resize("web", "big", host="h2")
    cloud.run(job)
    past(cloud, job, 10 * 365 * 86400)
    assert cloud.settings.resize_confirm_window == 0
    assert confirms(cloud) == 0
    drain(cloud)
    assert cloud.migration(job).status is MigrationStatus.FINISHED


@BOTH
def test_of_many_workers_one_confirms(cloud: Cloud, resized: Submitted) -> None:
    past(cloud, resized, WINDOW + 1)
    assert sorted(at_once(*[lambda: confirms(cloud)] * 4)) == [0, 0, 0, 1]
    assert jobs(cloud, resized) == ["resize_v1", "confirm_v1"]


@BOTH
def test_a_person_and_the_clock_at_once(cloud: Cloud, resized: Submitted) -> None:
    past(cloud, resized, WINDOW + 1)
    clock, person = at_once(lambda: confirms(cloud), lambda: cloud.service.revert("web"))
    assert len(jobs(cloud, resized)) == 2
    decided = MigrationStatus.REVERTING if isinstance(person, Submitted) else MigrationStatus.CONFIRMING
    assert cloud.migration(resized).status is decided
    assert clock == (0 if isinstance(person, Submitted) else 1)


def test_a_locked_machine_waits_until_it_is_unlocked(cloud: Cloud, resized: Submitted) -> None:
    past(cloud, resized, WINDOW + 1)
    cloud.inventory.lock("web", True)
    assert confirms(cloud) == 0
    cloud.inventory.lock("web", False)
    assert confirms(cloud) == 1


@pytest.mark.parametrize(
    ("vm_state", "task_state"), [(VmState.ERROR, None), (VmState.RESIZED, TaskState.RESIZE_REVERTING)]
)
def test_what_is_not_resized_is_passed_over_and_stays_decidable(
    cloud: Cloud, resized: Submitted, vm_state: VmState, task_state: TaskState | None
) -> None:
    past(cloud, resized, WINDOW + 1)

    def set_to(vm: VmState, task: TaskState | None) -> None:
        with cloud.database.write() as tx:
            tx.session.execute(sa.update(Instance).values(vm_state=vm, task_state=task))

    set_to(vm_state, task_state)
    assert confirms(cloud) == 0
    # Nova sets the migration to `error` here: nobody can ever confirm or revert it.
    assert cloud.migration(resized).status is MigrationStatus.FINISHED
    set_to(VmState.RESIZED, None)
    assert confirms(cloud) == 1


@pytest.mark.parametrize("host", ["h1", "h2"])
def test_a_host_that_is_down_is_waited_for(cloud: Cloud, resized: Submitted, host: str) -> None:
    """Nova: PollUnconfirmedResizesTest.test_source_host_down_during_confirm."""
    past(cloud, resized, WINDOW + 1)
    cloud.world.set_up(host, False)
    drain(cloud)
    assert cloud.migration(resized).status is MigrationStatus.FINISHED
    assert jobs(cloud, resized) == ["resize_v1"]
    cloud.world.set_up(host, True)
    drain(cloud)
    assert cloud.migration(resized).status is MigrationStatus.CONFIRMED
    with cloud.database.read() as tx:
        assert not tx.debts.open()


def test_a_confirm_that_could_not_begin_waits_for_the_window_again(cloud: Cloud, resized: Submitted) -> None:
    with cloud.database.write() as tx:
        disk = tx.migrations.get(resized.migration_id).disks[0]
        right, disk.new_capacity = disk.new_capacity, 1 << 50
    past(cloud, resized, WINDOW + 1)
    drain(cloud)
    assert cloud.migration(resized).status is MigrationStatus.FINISHED
    assert jobs(cloud, resized) == ["resize_v1", "confirm_v1"]
    drain(cloud)
    assert jobs(cloud, resized) == ["resize_v1", "confirm_v1"]
    with cloud.database.write() as tx:
        tx.migrations.get(resized.migration_id).disks[0].new_capacity = right
    past(cloud, resized, WINDOW + 1)
    drain(cloud)
    assert cloud.migration(resized).status is MigrationStatus.CONFIRMED


def test_an_unfinished_job_goes_first(cloud: Cloud, resized: Submitted) -> None:
    past(cloud, resized, WINDOW + 1)
    with cloud.database.write() as tx:
        tx.jobs.create("settle", resized.migration_id, cloud.uuid, "settle_v1")
    assert confirms(cloud) == 0
    with cloud.database.write() as tx:
        tx.session.execute(sa.update(Job).where(Job.id == "settle").values(state=JobState.DONE))
    past(cloud, resized, WINDOW + 1)  # The latest line is of the settlement.
    assert confirms(cloud) == 1


@BOTH
def test_the_clock_that_counts_is_the_database_s(cloud: Cloud, resized: Submitted) -> None:
    class Ahead(FastClock):
        def now(self) -> datetime:
            return super().now() + timedelta(days=1)

    cloud.database.clock = Ahead()
    assert confirms(cloud) == 0


def test_a_chore_that_fails_keeps_no_other_from_being_done(
    cloud: Cloud, resized: Submitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    past(cloud, resized, WINDOW + 1)
    with Worker(cloud.database, cloud.settings, clock=FastClock()) as worker:

        def fails(*_args: object) -> int:
            raise RuntimeError("out of order")

        def stops() -> bool:
            worker.stop.set()
            return True

        monkeypatch.setattr("resizeflow.worker.queue_settlements", fails)
        monkeypatch.setattr(worker.stop, "wait", lambda _seconds: stops())
        worker._do_chores()
    assert cloud.migration(resized).status is MigrationStatus.CONFIRMING


def test_when_it_will_be_is_shown(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, resize_confirm_window=str(WINDOW)).build()
    job = cloud.service.resize("web", "big", host="h2")
    console = Console(tmp_path / "resizeflow.conf")
    shown = ("migration", "show", job.migration_id, "-f", "json")
    assert json.loads(console.type(*shown).out)["auto_confirm_at"] is None
    cloud.run(job)
    with cloud.database.read() as tx:
        last = tx.events.of(job.migration_id)[-1].at
    assert json.loads(console.type(*shown).out)["auto_confirm_at"] == (last + timedelta(seconds=WINDOW)).isoformat()
    listed = json.loads(console.type("migration", "list", "-f", "json").out)
    assert [row["auto_confirm_at"] for row in listed] == [(last + timedelta(seconds=WINDOW)).isoformat()]
    cloud.inventory.lock("web", True)
    assert json.loads(console.type(*shown).out)["auto_confirm_at"] is None


def test_a_machine_that_is_gone_is_passed_over(cloud: Cloud, resized: Submitted) -> None:
    past(cloud, resized, WINDOW + 1)
    assert cloud.service.remove("web") is not None
    assert confirms(cloud) == 0
    drain(cloud)
    with cloud.database.read() as tx:
        assert tx.instances.find("web") is None
        assert auto_confirm.due(tx, WINDOW) == {}
    report = Doctor(cloud.database, cloud.settings, connections=cloud.connections).examine()
    assert [str(breach) for breach in report.breaches if breach.invariant != 9] == []  # `past` has moved the log


def test_what_was_decided_meanwhile_is_not_confirmed(cloud: Cloud, resized: Submitted) -> None:
    """Between the look and the transaction the resize is confirmed, and another one is finished."""
    past(cloud, resized, WINDOW + 1)

    class Slow(Looks):
        asked = False

        def glance(self) -> None:
            if not self.asked:
                self.asked = True
                cloud.run(cloud.service.confirm("web"))
                cloud.run(cloud.service.migrate("web", host="h1"))

    assert queue_confirms(cloud.database, Slow(Connections(), cloud.settings, FastClock()), cloud.settings) == 0
    with cloud.database.read() as tx:
        newest = tx.session.scalars(sa.select(Migration).order_by(Migration.created_at.desc())).first()
        assert newest is not None
        assert newest.status is MigrationStatus.FINISHED
