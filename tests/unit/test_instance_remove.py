"""A machine leaves management at any moment that is none in the middle of something, and nothing of it is leaked."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.chaos.case import Case
from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.chaos.laboratory import Laboratory
from resizeflow.doctor import Doctor
from resizeflow.errors import InstanceInvalidState, InstanceIsLocked, InstanceNotFound
from resizeflow.persistence.models import (
    Allocation,
    Base,
    Binding,
    Disk,
    Host,
    Instance,
    Migration,
    Port,
    QuotaUsage,
    Reservation,
    Volume,
)
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus, TaskState, VmState
from resizeflow.worker import Worker
from tests.console import Console, everything
from tests.rivals import at_once

pytestmark = pytest.mark.slow


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=thorough_connection).build(volumes=("rbd",))


def resized(cloud: Cloud, host: str = "h2") -> Submitted:
    job = cloud.service.resize("web", "big", host=host)
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    return job


def removed(cloud: Cloud) -> Submitted:
    job = cloud.service.remove("web")
    assert job is not None
    return job


def breaches(cloud: Cloud) -> list[str]:
    report = Doctor(cloud.database, cloud.settings, connections=cloud.connections).examine()
    assert report.silent == {}
    return list(map(str, report.breaches))


def assert_nothing_is_left(cloud: Cloud) -> None:
    """Of the machine's records only history; of its quota and its resources nothing."""
    with cloud.database.read() as tx:
        for table in (Instance, Disk, Volume, Port, Binding, Allocation, Reservation):
            assert tx.session.scalars(sa.select(table)).all() == [], table.__tablename__
        assert {(row.in_use, row.reserved) for row in tx.session.scalars(sa.select(QuotaUsage))} == {(0, 0)}
        used = tx.session.execute(sa.select(Host.used_vcpus, Host.used_memory_mb, Host.used_disk_gb)).all()
        assert set(used) == {(0, 0, 0)}
    assert breaches(cloud) == []


def test_at_rest_it_is_forgotten_at_once(cloud: Cloud) -> None:
    world = cloud.world.snapshot()
    assert cloud.service.remove("web") is None
    assert_nothing_is_left(cloud)
    assert cloud.world.snapshot() == world


@pytest.mark.parametrize("host", ["h2", "h1"], ids=["another-host", "same-host"])
def test_resized_it_is_confirmed_then_forgotten(cloud: Cloud, host: str) -> None:
    """Nova: test_resize_delete_while_verify, both allocations are gone."""
    resize = resized(cloud, host)
    job = removed(cloud)
    with cloud.database.read() as tx:
        row = tx.instances.get("web")
        assert (row.vm_state, row.task_state) == (VmState.RESIZED, TaskState.DELETING)
    assert cloud.migration(job).status is MigrationStatus.CONFIRMING
    assert breaches(cloud) == []
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    assert_nothing_is_left(cloud)
    assert cloud.migration(resize).status is MigrationStatus.CONFIRMED
    # The machine itself runs on; of the way back nothing is left.
    assert cloud.world.running(cloud.uuid) == (host,)
    other = "h1" if host == "h2" else "h2"
    assert cloud.world.snapshot()["hosts"][other]["domains"] == {}
    assert len(cloud.world.snapshot()["storages"]) == 2


def test_its_history_stays(cloud: Cloud) -> None:
    resized(cloud)
    job = removed(cloud)
    cloud.run(job)
    with cloud.database.read() as tx:
        assert [row.flow for row in tx.jobs.of_migration(job.migration_id)] == ["resize_v1", "remove_v1"]
        assert tx.events.of(job.migration_id)[-1].text == "remove_v1 has ended"
    assert "web is not managed any more; its domain and disks stay on h2" in cloud.story(job)


def test_it_may_be_adopted_again(cloud: Cloud) -> None:
    resized(cloud)
    cloud.run(removed(cloud))
    cloud.inventory.adopt("h2", "web")
    job = cloud.service.migrate("web", host="h1")
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    assert breaches(cloud) == []


def test_the_source_is_away(cloud: Cloud) -> None:
    resized(cloud)
    job = removed(cloud)
    cloud.world.set_up("h1", False)
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    with cloud.database.read() as tx:
        assert {debt.kind for debt in tx.debts.open()} == {"domain", "disk"}
        assert tx.instances.find("web") is None
    cloud.world.set_up("h1", True)
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        worker.drain()
    assert_nothing_is_left(cloud)
    assert cloud.world.snapshot()["hosts"]["h1"]["domains"] == {}


def test_a_destination_that_is_not_whole_keeps_both(cloud: Cloud) -> None:
    """Nothing is deleted unless the other copy was seen: it stays resized, and is decided otherwise."""
    resized(cloud)
    job = removed(cloud)
    cloud.world.set_up("h2", False)
    assert cloud.run(job) is JobState.DONE
    cloud.world.set_up("h2", True)
    assert cloud.migration(job).status is MigrationStatus.FINISHED
    with cloud.database.read() as tx:
        row = tx.instances.get("web")
        assert (row.vm_state, row.task_state) == (VmState.RESIZED, None)
    assert breaches(cloud) == []
    assert cloud.run(cloud.service.revert("web")) is JobState.DONE
    assert cloud.world.running(cloud.uuid) == ("h1",)


@pytest.mark.parametrize(
    ("point", "status"),
    [
        ("SelectDestination.commit.allocate#1.after", "pre-migrating"),
        ("TransferDisks.create_volume#1.after", "migrating"),
        ("MoveInstance.SUCCESS.after", "post-migrating"),
    ],
)
def test_in_flight_it_is_refused(cloud: Cloud, point: str, status: str) -> None:
    """Nova bug 1848343: a rollback gives a deleted server its allocation again. Here the machine is not deleted before
    the rollback has ended."""
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, point) == KILLED
    before = everything(cloud)
    with pytest.raises(InstanceInvalidState, match=f"{status}: let that end .* or undo it .*migration rollback"):
        cloud.service.remove("web")
    assert everything(cloud) == before
    cloud.service.rollback(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    assert cloud.service.remove("web") is None
    assert_nothing_is_left(cloud)


def test_a_flow_that_has_all_but_ended_is_waited_for(cloud: Cloud) -> None:
    resized(cloud)
    job = cloud.service.confirm("web")
    assert cloud.run_in_child(job, "FinishConfirm.SUCCESS.after") == KILLED
    assert cloud.migration(job).status is MigrationStatus.CONFIRMED
    with pytest.raises(InstanceInvalidState, match="confirm_v1"):
        cloud.service.remove("web")
    cloud.run(job)
    assert cloud.service.remove("web") is None
    assert_nothing_is_left(cloud)


def test_a_removal_only_goes_forward(cloud: Cloud) -> None:
    resized(cloud)
    job = removed(cloud)
    for refused in (cloud.service.confirm, cloud.service.revert, cloud.service.remove):
        with pytest.raises(InstanceInvalidState):
            refused("web")
    with pytest.raises(Exception, match="A remove only goes forward"):
        cloud.service.rollback(job.migration_id)


def test_a_locked_machine_stays(cloud: Cloud) -> None:
    cloud.inventory.lock("web", True)
    with pytest.raises(InstanceIsLocked):
        cloud.service.remove("web")
    cloud.inventory.lock("web", False)
    resized(cloud)
    cloud.inventory.lock("web", True)
    with pytest.raises(InstanceIsLocked):
        cloud.service.remove("web")


def test_a_resize_at_the_same_time(cloud: Cloud) -> None:
    """One of them comes too late; never a migration of a machine that is gone."""
    removal, resize = at_once(lambda: cloud.service.remove("web"), lambda: cloud.service.resize("web", "big"))
    with cloud.database.read() as tx:
        gone, migrations = tx.instances.find("web") is None, tx.migrations.list()
    if gone:
        assert removal is None
        assert isinstance(resize, Exception)
        assert migrations == []
        assert_nothing_is_left(cloud)
    else:
        assert isinstance(removal, InstanceInvalidState)
        assert isinstance(resize, Submitted)
        assert [row.status for row in migrations] == [MigrationStatus.PRE_MIGRATING]
        assert breaches(cloud) == []


def test_a_member_of_a_group_leaves_it(cloud: Cloud) -> None:
    with cloud.database.write() as tx:
        tx.groups.create("pair", "anti-affinity", "default")
    cloud.inventory.set_instance("web", group_name="pair")
    resized(cloud)
    cloud.run(removed(cloud))
    with cloud.database.write() as tx:
        assert tx.groups.members("pair") == []
        tx.groups.delete("pair")


def test_what_the_operator_reads(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path).build()
    console = Console(tmp_path / "resizeflow.conf")
    resized(cloud)
    answer = console.type("instance", "remove", "web")
    assert answer.code == 0, answer
    assert answer.out.endswith(
        "web is confirmed and no longer managed; its domain was not touched. The way back is removed.\n"
    )
    console.type("instance", "show", "web").refused(2, "no managed instance 'web'")
    with pytest.raises(InstanceNotFound):
        cloud.service.remove("web")


def test_killed_it_is_removed_nevertheless(memory_path: Path) -> None:
    """At some points; `resizeflow chaos` tries all."""
    laboratory = Laboratory("remove", memory_path / "laboratory")
    try:
        assert len(laboratory.points) > 30
        wrong = {
            case.name: result.wrong
            for point in laboratory.points[::9]
            if (result := laboratory.run(case := Case("remove", (f"kill@{point}", "resume")))).wrong
        }
        assert wrong == {}
    finally:
        laboratory.remove()


def test_every_table_is_known_here() -> None:
    """A new table with a machine's rows has to be emptied by a removal, and belongs into `assert_nothing_is_left`."""
    machines = {
        table.name
        for table in Base.metadata.sorted_tables
        if any(key.column.table.name in ("instances", "ports") for key in table.foreign_keys)
    }
    assert machines == {table.__tablename__ for table in (Disk, Volume, Port, Binding)}
    assert Migration.__table__.c.instance_id.foreign_keys == set()
