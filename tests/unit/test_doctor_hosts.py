"""What breaches an invariant on the hosts is found by its number and subject; what is safe is repaired, and no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Mark
from resizeflow.drivers.hypervisor import SecretSpec, VolumeSpec
from resizeflow.drivers.secret import Secret
from resizeflow.persistence.models import (
    Disk,
)
from resizeflow.service import Submitted
from resizeflow.states import JobState
from resizeflow.worker import Worker
from tests.conftest import BOTH
from tests.planted import (
    UNKNOWN,
    breaches,
    by_hand,
    check_left_to_people,
    doctor,
    found,
    repair,
    resized,
    rolled_back,
    sql,
    xml_of,
)


@pytest.fixture
def cloud(memory_path: Path, thorough_connection: str | None) -> Cloud:
    return Cloud(memory_path, connection=thorough_connection).build()


# --- 1: where it runs ------------------------------------------------------------------------------------


def second_copy(cloud: Cloud) -> None:
    by_hand(cloud, "h2", "create_volume", "default", VolumeSpec("web-vda.qcow2", 2**30, "qcow2"))
    xml = xml_of(cloud, "h1")
    by_hand(cloud, "h2", "define", xml)
    by_hand(cloud, "h2", "start_paused", cloud.uuid)
    by_hand(cloud, "h2", "resume", cloud.uuid)
    assert cloud.world.running(cloud.uuid) == ("h1", "h2")


def test_1_two_running_copies_are_touched_by_nobody(cloud: Cloud) -> None:
    second_copy(cloud)
    [breach] = breaches(cloud)
    assert (breach.invariant, breach.subject, breach.found) == (1, "instance web", "runs on h1 and on h2")
    check_left_to_people(cloud, [(1, "instance web")])
    assert cloud.world.running(cloud.uuid) == ("h1", "h2")


def test_1_it_runs_elsewhere(cloud: Cloud) -> None:
    second_copy(cloud)
    by_hand(cloud, "h1", "destroy", cloud.uuid)
    [breach] = breaches(cloud)
    assert (breach.invariant, breach.found, breach.expected) == (1, "runs on h2", "runs on h1")
    check_left_to_people(cloud, [(1, "instance web")])


@pytest.mark.slow
def test_1_somebody_started_the_destination_before_the_pivot(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "DefineDestination.SUCCESS.after") == KILLED
    assert found(cloud) == []
    by_hand(cloud, "h2", "start_paused", cloud.uuid)
    assert found(cloud) == []
    by_hand(cloud, "h2", "resume", cloud.uuid)
    assert found(cloud) == [(1, "instance web")]


# --- 6: leftovers ----------------------------------------------------------------------------------------


def disk_of(job: Submitted | str) -> str:
    return f"web-vda.{job if isinstance(job, str) else job.migration_id}.qcow2"


def make_disk(cloud: Cloud, host: str, name: str, gigabytes: int = 1) -> None:
    by_hand(cloud, host, "create_volume", "default", VolumeSpec(name, gigabytes * 2**30, "qcow2"))


def make_domain(cloud: Cloud, host: str, mark: Mark | None) -> None:
    plain = definition.marked(definition.restored(xml_of(cloud, "h1")), None)
    by_hand(cloud, host, "define", definition.marked(plain, mark))


@pytest.mark.slow
@pytest.mark.parametrize("ended", [rolled_back, lambda cloud: resized(cloud, kept=False)], ids=["error", "reverted"])
def test_6_a_migration_that_was_undone_left_something(cloud: Cloud, ended: Callable[[Cloud], Submitted]) -> None:
    job = ended(cloud)
    before = cloud.state()
    make_disk(cloud, "h2", disk_of(job))
    make_domain(cloud, "h2", Mark(job.migration_id, 1, "destination"))
    assert found(cloud) == [(6, f"disk {disk_of(job)} on h2"), (6, "domain web on h2")]
    doctor(cloud).repair("doctor, says test")
    # Only a job under its lease removes things: until one does they are debts, and known.
    report = doctor(cloud).examine()
    assert report.breaches == ()
    assert sorted(debt.subject for debt in report.debts) == [f"disk {disk_of(job)} on h2", f"domain {cloud.uuid} on h2"]
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        assert worker.drain() == 1
    assert found(cloud) == []
    after = cloud.state()
    assert after["world"] == before["world"]
    assert after["tables"]["allocations"] == before["tables"]["allocations"]
    assert after["tables"]["hosts"] == before["tables"]["hosts"]


def test_6_what_was_settled_once_and_is_there_again(cloud: Cloud) -> None:
    job = rolled_back(cloud)
    for _ in range(2):
        make_disk(cloud, "h2", disk_of(job))
        assert found(cloud) == [(6, f"disk {disk_of(job)} on h2")]
        repair(cloud)
        assert found(cloud) == []
        assert by_hand(cloud, "h2", "volume", "default", disk_of(job)) is None


@pytest.mark.slow
@BOTH
def test_6_a_confirm_left_old_disks(cloud: Cloud) -> None:
    """A name that carries a migration's id is ours; one that does not may have been given to another file since."""
    first = resized(cloud, kept=True)
    second = cloud.service.migrate("web", host="h1")
    assert cloud.run(second) is JobState.DONE
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    before = cloud.state()
    make_disk(cloud, "h1", "web-vda.qcow2", 5)
    assert found(cloud) == []
    by_hand(cloud, "h1", "delete_volume", "default", "web-vda.qcow2")
    make_disk(cloud, "h1", "web-vda.qcow2")
    make_disk(cloud, "h2", disk_of(first), 2)
    ours, other = (6, f"disk {disk_of(first)} on h2"), (6, "disk web-vda.qcow2 on h1")
    assert set(found(cloud)) == {other, ours}
    repair(cloud)
    assert found(cloud) == [other]
    by_hand(cloud, "h1", "delete_volume", "default", "web-vda.qcow2")
    assert found(cloud) == []
    assert cloud.state()["world"] == before["world"]


def test_6_a_merged_overlay_is_left(cloud: Cloud) -> None:
    job = resized(cloud, "h1", kept=True)
    make_disk(cloud, "h1", disk_of(job))
    assert found(cloud) == [(6, f"disk {disk_of(job)} on h1")]
    before = cloud.world.snapshot()["hosts"]
    repair(cloud)
    assert found(cloud) == []
    assert cloud.world.snapshot()["hosts"] == before
    assert cloud.world.running(cloud.uuid) == ("h1",)


@pytest.mark.slow
def test_6_the_copy_is_not_removed_where_the_machine_was_not_seen(cloud: Cloud) -> None:
    job = rolled_back(cloud)
    make_disk(cloud, "h2", disk_of(job))
    cloud.world.set_up("h1", False)
    check_left_to_people(cloud, [(6, f"disk {disk_of(job)} on h2")])
    cloud.world.set_up("h1", True)
    by_hand(cloud, "h1", "destroy", cloud.uuid)
    by_hand(cloud, "h1", "undefine", cloud.uuid)
    check_left_to_people(cloud, [(6, f"disk {disk_of(job)} on h2"), (7, "instance web")])


@pytest.mark.parametrize("role", ["retired", "destination", "carrier"])
def test_6_marks_and_names_of_a_migration_that_nobody_knows(cloud: Cloud, role: str) -> None:
    make_disk(cloud, "h2", disk_of(UNKNOWN))
    make_domain(cloud, "h2", Mark(UNKNOWN, 3, role))
    check_left_to_people(cloud, [(6, f"disk {disk_of(UNKNOWN)} on h2"), (6, "domain web on h2")])


def test_6_a_domain_of_the_same_uuid_without_a_mark(cloud: Cloud) -> None:
    make_domain(cloud, "h2", None)
    check_left_to_people(cloud, [(6, "domain web on h2")])


@pytest.mark.slow
def test_6_a_carrier_that_no_job_needs(cloud: Cloud) -> None:
    by_hand(cloud, "h1", "destroy", cloud.uuid)
    job = rolled_back(cloud)
    mark = Mark(job.migration_id, 1, "carrier")
    by_hand(cloud, "h1", "destroy", cloud.uuid)
    by_hand(cloud, "h1", "start_carrier", definition.carrier(xml_of(cloud, "h1"), disks={}, mark=mark))
    check_left_to_people(cloud, [(6, "carrier of web on h1")])


def test_6_in_an_open_migration_nothing_is_left_over(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    cloud.world.set_speed(transfer_seconds=3600)
    assert cloud.run_in_child(job, "TransferDisks.transfer.running") == KILLED
    assert found(cloud) == []
    repair_only = doctor(cloud).repair("test")
    assert repair_only.breaches == ()
    with cloud.database.read() as tx:
        assert tx.debts.open() == []


def make_secret(cloud: Cloud, host: str, migration_id: str) -> str:
    uuid = str(uuid4())
    by_hand(cloud, host, "define_secret", SecretSpec(uuid, "iscsi", migration_id, Secret(b"Geh3im")))
    return uuid


def test_6_a_secret_that_a_migration_left(cloud: Cloud) -> None:
    job = rolled_back(cloud)
    before = cloud.state()
    secret = make_secret(cloud, "h2", job.migration_id)
    assert found(cloud) == [(6, f"secret {secret} on h2")]
    doctor(cloud).repair("doctor, says test")
    assert [debt.subject for debt in doctor(cloud).examine().debts] == [f"secret {secret} on h2"]
    # It takes no disk, so it holds none.
    assert cloud.state()["tables"]["allocations"] == before["tables"]["allocations"]
    repair(cloud)
    assert found(cloud) == []
    assert cloud.state()["world"] == before["world"]


def test_6_a_secret_that_is_needed_or_somebody_elses(cloud: Cloud) -> None:
    secret = make_secret(cloud, "h1", UNKNOWN)
    check_left_to_people(cloud, [(6, f"secret {secret} on h1")])
    disk = (
        f"<disk type='network' device='disk'><source protocol='iscsi' name='iqn:x/1'><auth username='u'>"
        f"<secret type='iscsi' uuid='{secret}'/></auth></source><target dev='vdz'/></disk></devices>"
    )
    xml = xml_of(cloud, "h1")
    by_hand(cloud, "h1", "destroy", cloud.uuid)
    by_hand(cloud, "h1", "define", xml.replace("</devices>", disk))
    assert found(cloud) == []
    by_hand(cloud, "h1", "define", xml)
    by_hand(cloud, "h1", "undefine_secret", secret)
    job = cloud.service.resize("web", "big", host="h2")
    make_secret(cloud, "h2", job.migration_id)
    assert found(cloud) == []


# --- 7: size and disks -----------------------------------------------------------------------------------


def redefined(cloud: Cloud, host: str, old: str, new: str) -> None:
    xml = xml_of(cloud, host)
    assert old in xml
    by_hand(cloud, host, "define", xml.replace(old, new))


def test_7_another_size_than_the_flavors(cloud: Cloud) -> None:
    redefined(cloud, "h1", "<vcpu>1</vcpu>", "<vcpu>3</vcpu>")
    check_left_to_people(cloud, [(7, "instance web")])


def test_7_no_domain(cloud: Cloud) -> None:
    by_hand(cloud, "h1", "destroy", cloud.uuid)
    by_hand(cloud, "h1", "undefine", cloud.uuid)
    check_left_to_people(cloud, [(7, "instance web")])


@pytest.mark.slow
def test_7_retired_without_a_migration(cloud: Cloud) -> None:
    job = rolled_back(cloud)
    by_hand(cloud, "h1", "destroy", cloud.uuid)
    by_hand(cloud, "h1", "define", definition.retired(xml_of(cloud, "h1"), Mark(job.migration_id, 1, "retired")))
    check_left_to_people(cloud, [(7, "instance web")])


def test_7_another_file(cloud: Cloud) -> None:
    by_hand(cloud, "h1", "destroy", cloud.uuid)
    redefined(cloud, "h1", "/web-vda.qcow2", "/other.qcow2")
    check_left_to_people(cloud, [(7, "disk vda of web")])


def test_7_a_disk_that_is_too_small_or_missing(cloud: Cloud) -> None:
    sql(cloud, sa.update(Disk).values(capacity=2**30 - 512))
    check_left_to_people(cloud, [(7, "disk vda of web")])
    sql(cloud, sa.update(Disk).values(capacity=2**31))
    assert found(cloud) == [(7, "disk vda of web"), (7, "instance web")]
    sql(cloud, sa.update(Disk).values(capacity=2**30, volume="gone.qcow2"))
    assert found(cloud) == [(7, "disk vda of web")]


def test_7_a_machine_that_boots_from_a_volume_has_no_root_disk(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(disks=(), volumes=("nfs",), boot_volume=True, running=False)
    assert found(cloud) == []
    resized(cloud, kept=True)
    path = cloud.world.create_volume("h2", "stray.raw", 2**31, "made:stray")
    root = {"role": "root", "volume": "stray.raw", "path": path, "format": "raw", "capacity": 2**31}
    with cloud.database.read() as tx:
        instance_id = tx.instances.get("web").id
    sql(cloud, sa.insert(Disk).values(instance_id=instance_id, device="vdb", **root))
    [defined, counted] = [breach for breach in breaches(cloud) if breach.invariant == 7]
    assert (defined.subject, defined.found) == ("disk vdb of web", "defined as nothing on h2")
    assert (counted.found, counted.expected) == ("2 GiB of root disk", "0 GiB, flavor big")


@BOTH
def test_7_the_way_back_of_a_finished_resize(cloud: Cloud) -> None:
    job = resized(cloud)
    mine = (7, f"migration {job.migration_id}")
    by_hand(cloud, "h1", "undefine", cloud.uuid)
    check_left_to_people(cloud, [mine])
    by_hand(cloud, "h1", "delete_volume", "default", "web-vda.qcow2")
    check_left_to_people(cloud, [mine, mine])
    by_hand(cloud, "h2", "define", definition.marked(xml_of(cloud, "h2"), None))
    check_left_to_people(cloud, [mine, mine, mine])
