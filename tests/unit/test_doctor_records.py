"""What breaches an invariant in the records is found by its number and subject, and repaired where it is safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.persistence.models import (
    Allocation,
    Binding,
    Debt,
    Event,
    FlowDetail,
    Host,
    Instance,
    Job,
    Migration,
    Notification,
    Port,
    QuotaUsage,
    Reservation,
    WorkerRow,
)
from resizeflow.states import Direction, JobState, MigrationStatus, TaskState, VmState
from tests.conftest import BOTH
from tests.planted import (
    breaches,
    check_left_to_people,
    check_repaired,
    doctor,
    found,
    host_id,
    resized,
    rolled_back,
    sql,
)


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=thorough_connection).build()


# --- 2 and 3: what is counted ----------------------------------------------------------------------------


@BOTH
def test_2_usage_and_reserved_are_recounted(cloud: Cloud) -> None:
    before = cloud.state()
    cores = sa.update(QuotaUsage).where(QuotaUsage.resource == "cores")
    sql(cloud, cores.values(in_use=7), sa.update(QuotaUsage).values(reserved=1))
    assert {"cores: 7 in use", "cores: 1 reserved"} < {breach.found for breach in breaches(cloud)}
    check_repaired(cloud, [(2, "project default")] * 5, before)


@pytest.mark.parametrize("state", ["pre-migrating", "finished", "reverted", "error"])
def test_2_charges_in_each_phase(cloud: Cloud, state: str) -> None:
    if state == "pre-migrating":
        cloud.service.resize("web", "big", host="h2")
    elif state == "error":
        rolled_back(cloud)
    else:
        resized(cloud, kept=None if state == "finished" else False)
    before = cloud.state()
    sql(cloud, sa.update(QuotaUsage).values(in_use=QuotaUsage.in_use + 1, reserved=QuotaUsage.reserved + 1))
    assert found(cloud) == [(2, "project default")] * 8
    doctor(cloud).repair("test")
    assert cloud.state() == before


def test_2_a_reservation_outlives_its_migration(cloud: Cloud) -> None:
    job = rolled_back(cloud)
    before = cloud.state()
    left = {"migration_id": job.migration_id, "resource": "cores", "project_id": "default", "amount": 1}
    sql(cloud, sa.insert(Reservation).values(left))
    check_repaired(cloud, [(2, f"migration {job.migration_id}")], before)
    assert "repair" in [line.split()[2] for line in cloud.story(job).splitlines()]


@BOTH
def test_2_a_reservation_is_missing(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    before = cloud.state()
    sql(cloud, sa.delete(Reservation).where(Reservation.resource == "ram"))
    assert found(cloud) == [(2, f"migration {job.migration_id}")]
    doctor(cloud).repair("test")
    assert cloud.state() == before
    assert found(cloud) == []
    assert cloud.run(job) is JobState.DONE
    assert found(cloud) == []


@BOTH
def test_3_allocations_and_counters_are_recounted(cloud: Cloud) -> None:
    job = resized(cloud, kept=True)
    before = cloud.state()
    lost = {"host_id": host_id(cloud, "h1"), "vcpus": 1, "memory_mb": 2, "disk_gb": 3}
    sql(
        cloud,
        sa.update(Allocation).values(vcpus=5),
        sa.insert(Allocation).values(consumer=f"migration:{job.migration_id}", **lost),
        sa.update(Host).values(used_disk_gb=77),
    )
    expected = [
        (3, "host h1"),
        (3, "host h2"),
        (3, "instance web"),
        (3, f"migration {job.migration_id}"),
    ]
    check_repaired(cloud, expected, before)
    with cloud.database.read() as tx:
        assert tx.events.flaw(job.migration_id) is None


@pytest.mark.parametrize("host", ["h1", "h2"], ids=["same", "other"])
def test_3_allocations_of_an_open_migration_are_made_again(cloud: Cloud, host: str) -> None:
    resized(cloud, host)
    before = cloud.state()
    sql(cloud, sa.delete(Allocation))
    assert {number for number, _ in found(cloud)} == {3}
    doctor(cloud).repair("test")
    assert found(cloud) == []
    assert cloud.state() == before


def test_3_a_debt_keeps_its_disk(cloud: Cloud) -> None:
    job = resized(cloud)
    cloud.world.set_up("h1", False)
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    assert found(cloud) == []
    before = cloud.state()
    sql(cloud, sa.delete(Allocation).where(Allocation.consumer.startswith("debt:")))
    assert found(cloud) == [(3, f"debts of migration {job.migration_id}"), (3, "host h1")]
    doctor(cloud).repair("test")
    assert cloud.state() == before


# --- 4: bindings -----------------------------------------------------------------------------------------


def test_4_a_binding_outlives_its_migration(cloud: Cloud) -> None:
    job = rolled_back(cloud)
    before = cloud.state()
    with cloud.database.read() as tx:
        port = tx.session.scalars(sa.select(Port)).one()
    left = {"port_id": port.id, "host_id": host_id(cloud, "h2"), "active": False, "migration_id": job.migration_id}
    sql(cloud, sa.insert(Binding).values(left))
    check_repaired(cloud, [(4, f"port {port.mac} of web")], before)


@pytest.mark.parametrize("change", [{"active": False}, {"host": "h2"}], ids=["none", "wrong"])
def test_4_the_active_binding(cloud: Cloud, change: dict[str, Any]) -> None:
    values = {"host_id": host_id(cloud, change["host"])} if "host" in change else change
    sql(cloud, sa.update(Binding).values(values))
    assert {number for number, _ in found(cloud)} == {4}


# --- 8: states -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"vm_state": VmState.RESIZED},
        {"vm_state": VmState.ERROR},
        {"task_state": TaskState.RESIZE_PREP},
    ],
    ids=str,
)
def test_8_an_idle_machines_states(cloud: Cloud, values: dict[str, Any]) -> None:
    sql(cloud, sa.update(Instance).values(values))
    check_left_to_people(cloud, [(8, "instance web")])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "values"),
    [
        ("flow.RUNNING.after", {"task_state": None}),
        ("flow.RUNNING.after", {"task_state": TaskState.RESIZE_MIGRATED}),
        ("RetireSource.SUCCESS.after", {"task_state": TaskState.RESIZE_PREP}),
        ("RetireSource.SUCCESS.after", {"vm_state": VmState.RESIZED}),
        ("DefineDestination.SUCCESS.after", {"task_state": TaskState.RESIZE_MIGRATING}),
        ("FinishResize.SUCCESS.after", {"vm_state": VmState.ACTIVE}),
    ],
    ids=str,
)
def test_8_a_moving_machines_states(cloud: Cloud, point: str, values: dict[str, Any]) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, point) == KILLED
    assert found(cloud) == []
    sql(cloud, sa.update(Instance).values(values))
    assert found(cloud) == [(8, "instance web")]


@pytest.mark.parametrize(
    "status", [MigrationStatus.PRE_MIGRATING, MigrationStatus.CONFIRMING, MigrationStatus.REVERTING], ids=str
)
def test_8_a_status_without_its_job(cloud: Cloud, status: MigrationStatus) -> None:
    resized(cloud)
    sql(cloud, sa.update(Migration).values(status=status))
    assert (8, "instance web") in found(cloud)


@pytest.mark.parametrize(
    "status", [MigrationStatus.CONFIRMED, MigrationStatus.REVERTED, MigrationStatus.ERROR], ids=str
)
def test_8_a_migration_that_was_closed_by_hand(cloud: Cloud, status: MigrationStatus) -> None:
    job = resized(cloud)
    sql(cloud, sa.update(Migration).values(status=status))
    assert (8, f"migration {job.migration_id}") in found(cloud)
    assert (8, "instance web") in found(cloud)


def test_8_a_job_and_its_flow(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    mine = (8, f"job {job.job_id}")
    assert cloud.run_in_child(job, "StartDestination.SUCCESS.after") == KILLED
    assert found(cloud) == []
    sql(cloud, sa.update(Job).values(direction=Direction.BACK))
    assert found(cloud) == [mine]
    sql(cloud, sa.update(Job).values(direction=Direction.FORWARD, owner=None))
    assert found(cloud) == [mine]
    sql(cloud, sa.update(Job).values(state=JobState.DONE))
    assert found(cloud) == [(8, "instance web"), mine]
    sql(cloud, sa.update(FlowDetail).values(state="REVERTED"))
    assert found(cloud) == [(8, "instance web"), mine]


# --- 9 and 10: history and secrets -----------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "plant",
    [
        sa.update(Event).where(Event.seq == 3).values(text="nothing happened"),
        sa.delete(Event).where(Event.seq == 3),
        sa.delete(Event).where(Event.seq > 60),
        sa.delete(Event),
    ],
    ids=["changed", "removed", "cut off", "gone"],
)
def test_9_a_log_that_was_changed(cloud: Cloud, plant: sa.Update | sa.Delete) -> None:
    job = resized(cloud, kept=True)
    sql(cloud, plant)
    assert {*found(cloud)} == {(9, f"migration {job.migration_id}")}
    assert all(breach.repair is None for breach in breaches(cloud))


CEPH_KEY = "AQBGeh3imGeh3imGeh3imGeh3imGeh3imGeh3i==".replace("=", "") + "=="
TOKEN = "gAAAAA" + "Geh3im" * 12
GRAPHICS_XML = "<domain><devices><graphics type='vnc' passwd='Geh3im'/></devices></domain>"


@pytest.mark.parametrize(
    ("plant", "subject"),
    [
        (sa.update(Migration).values(definition=GRAPHICS_XML), "migration"),
        (sa.update(Migration).values(dest_definition=GRAPHICS_XML.replace("'", '"')), "migration"),
        (sa.update(Migration).values(error="refused: passwd='Geh3im'"), "migration"),
        (sa.update(Job).values(reason='{"auth_password": "Geh3im"}'), "job"),
        (sa.update(Job).values(reason="node.session.auth.password = Geh3im"), "job"),
        (sa.update(Migration).values(error=f"rbd: error connecting with {CEPH_KEY}"), "migration"),
        (sa.update(Job).values(reason="{'X-Auth-Token': 'Geh3im'}"), "job"),
        (sa.update(Migration).values(verdicts={"h1": f"{TOKEN} has expired"}), "migration"),
    ],
    ids=["definition", "destination", "error", "reason", "chap", "ceph", "header", "token"],
)
def test_10_a_secret_at_rest(cloud: Cloud, plant: sa.Update, subject: str) -> None:
    job = resized(cloud)
    sql(cloud, plant)
    key = job.job_id if subject == "job" else job.migration_id
    [breach] = breaches(cloud)
    assert (breach.invariant, breach.subject, breach.repair) == (10, f"{subject} {key}", None)
    assert "Geh3im" not in str(breach)


@BOTH
def test_10_a_secret_in_a_notification(cloud: Cloud) -> None:
    resized(cloud)
    sql(cloud, sa.update(Notification).where(Notification.seq == 1).values(payload={"auth_password": "Geh3im"}))
    [breach] = breaches(cloud)
    assert (breach.invariant, breach.subject.split()[0]) == (10, "notification")


def test_10_a_secret_in_the_log(cloud: Cloud) -> None:
    job = resized(cloud)
    with cloud.database.write() as tx:
        tx.events.add(job.migration_id, "note", "looked", xml=GRAPHICS_XML.replace("'", '"'))
        tx.events.add(job.migration_id, "note", "asked", auth={"auth_password": "Geh3im"})
    assert found(cloud) == [(10, f"log of migration {job.migration_id}")]


# --- workers ---------------------------------------------------------------------------------------------


def test_a_repair_forgets_workers_that_are_gone(cloud: Cloud) -> None:
    with cloud.database.write() as tx:
        tx.workers.seen("dead", -10)
        tx.workers.seen("alive", 100)
    doctor(cloud).repair("test")
    with cloud.database.read() as tx:
        assert tx.session.scalars(sa.select(WorkerRow.name)).all() == ["alive"]


def test_a_repair_of_nothing_changes_nothing(cloud: Cloud) -> None:
    job = resized(cloud)
    before, story = cloud.state(), cloud.story(job)
    doctor(cloud).repair("test")
    assert (cloud.state(), cloud.story(job)) == (before, story)
    with cloud.database.read() as tx:
        assert tx.session.scalars(sa.select(Debt)).all() == []
