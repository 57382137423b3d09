"""`resizeflow doctor` as an operator meets it: what it prints, how it ends, and a database from a backup."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.doctor import Doctor
from resizeflow.doctor.restore import LEAP
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Mark
from resizeflow.drivers.simulator.cinder import CINDER
from resizeflow.errors import Conflict
from resizeflow.handover import LeaseLost
from resizeflow.persistence.models import Job, QuotaUsage, WorkerRow
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.console import Console, everything
from tests.planted import UNKNOWN, by_hand, found, rolled_back, sql, xml_of
from tests.unit.test_doctor_hosts import disk_of, make_disk, make_domain, second_copy


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path, lease_seconds="6", act_timeout="2", fence_window="1").build()


@pytest.fixture
def console(cloud: Cloud) -> Console:
    return Console(cloud.folder / "resizeflow.conf")


def nobody_works(cloud: Cloud) -> None:
    """As if the time of killed workers had passed."""
    sql(cloud, sa.update(WorkerRow).values(seen_until=0.0), sa.update(Job).values(lease_until=0.0))


# --- what it prints --------------------------------------------------------------------------------------


def test_a_clean_system(console: Console) -> None:
    answer = console.type("doctor")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.strip() == "Every invariant holds."
    assert console.ask("doctor") == []


def test_breaches_are_printed_and_the_exit_code_tells(cloud: Cloud, console: Console) -> None:
    make_disk(cloud, "h2", disk_of(UNKNOWN))
    sql(cloud, sa.update(QuotaUsage).where(QuotaUsage.resource == "cores").values(in_use=7))
    answer = console.type("doctor", "-f", "json")
    answer.refused(3, "2 breaches", "repairs 1 of them", "a person must put right 1")
    assert answer.json == [
        {
            "kind": "breach",
            "invariant": 2,
            "subject": "project default",
            "found": "cores: 7 in use",
            "expected": "cores: 1 in use",
            "repair": "the counter is set to what is expected",
        },
        {
            "kind": "breach",
            "invariant": 6,
            "subject": f"disk {disk_of(UNKNOWN)} on h2",
            "found": f"made by migration {UNKNOWN}, which the records do not know",
            "expected": "no such file",
            "repair": None,
        },
    ]
    before = everything(cloud)
    table = console.type("doctor")
    assert table.code == 3
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.out.splitlines()]
    assert ["kind", "invariant", "subject", "found", "expected", "repair"] in lines
    assert [line[:2] for line in lines if line[0] == "breach"] == [["breach", "2"], ["breach", "6"]]
    assert everything(cloud) == before


@pytest.mark.slow
def test_a_repair_says_what_it_did_and_what_it_left(cloud: Cloud, console: Console) -> None:
    job = rolled_back(cloud)
    make_disk(cloud, "h2", disk_of(job))
    make_disk(cloud, "h2", disk_of(UNKNOWN))
    make_domain(cloud, "h2", Mark(job.migration_id, 1, "destination"))
    nobody_works(cloud)
    answer = console.type("doctor", "--repair", "-f", "json")
    assert answer.code == 3
    assert answer.err.splitlines()[-2].startswith("resizeflow: 1 breach: ")
    assert [(row["kind"], row["subject"]) for row in answer.json] == [
        ("repaired", f"disk {disk_of(job)} on h2"),
        ("repaired", "domain web on h2"),
        ("breach", f"disk {disk_of(UNKNOWN)} on h2"),
    ]
    assert by_hand(cloud, "h2", "domain", cloud.uuid) is None
    assert by_hand(cloud, "h2", "volume", "default", disk_of(job)) is None
    by_hand(cloud, "h2", "delete_volume", "default", disk_of(UNKNOWN))
    sql(cloud, sa.update(QuotaUsage).values(reserved=1))
    table = console.type("doctor", "--repair")
    assert table.code == 0, table
    assert table.out.count("repaired") == 4
    assert table.out.endswith("Every invariant holds.\n")


def test_debts_and_silent_hosts_are_listed(cloud: Cloud, console: Console) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    cloud.world.crash("h1")
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    rows = console.ask("doctor", "--sort-column", "subject")
    assert [(row["kind"], row["subject"]) for row in rows] == [
        ("debt", "disk web-vda.qcow2 on h1"),
        ("debt", f"domain {cloud.uuid} on h1"),
        ("not examined", "host h1"),
    ]
    table = console.type("doctor")
    assert table.code == 0
    assert table.out.endswith("Every invariant holds. Not examined: host h1.\n")


@pytest.mark.slow
def test_cinder_is_named_when_it_is_silent_and_when_it_has_debts(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(volumes=("nfs",))
    console = Console(cloud.folder / "resizeflow.conf")
    orphan = by_hand(cloud, CINDER, "create_attachment", cloud.volumes[0], cloud.uuid)
    console.type("doctor").refused(3, "1 breach")
    rolled = cloud.service.resize("web", "big", host="h2")
    cloud.service.rollback(rolled.migration_id)
    assert cloud.run(rolled) is JobState.DONE
    if by_hand(cloud, CINDER, "attachment", orphan) is None:
        orphan = by_hand(cloud, CINDER, "create_attachment", cloud.volumes[0], cloud.uuid)
    assert [(row["kind"], row["repair"]) for row in console.type("doctor", "-f", "json").json] == [
        ("breach", "it is recorded as a debt: a worker deletes it, if it is still blank")
    ]
    cloud.world.set_up(CINDER, False)
    table = console.type("doctor")
    assert table.code == 0
    assert table.out.endswith("Every invariant holds. Not examined: Cinder.\n")
    cloud.world.set_up(CINDER, True)
    cloud.release()
    assert [row["kind"] for row in console.ask("doctor", "--repair")] == ["repaired"]
    assert by_hand(cloud, CINDER, "attachment", orphan) is None


def test_two_running_copies_call_for_a_person(cloud: Cloud, console: Console) -> None:
    second_copy(cloud)
    before = cloud.state()
    for words in (["doctor"], ["doctor", "--repair"]):
        console.type(*words).refused(3, "instance web runs on h1 and on h2", "touch neither")
    assert cloud.state() == before


# --- after a backup was restored -------------------------------------------------------------------------


def copy_of(cloud: Cloud, source: str, target: str) -> None:
    """A whole database copied, as `sqlite3 .backup` does it."""
    cloud.release()
    with sqlite3.connect(cloud.folder / source) as there, sqlite3.connect(cloud.folder / target) as here:
        there.backup(here)
    there.close()
    here.close()


def backed_up_in_flight(cloud: Cloud) -> Submitted:
    """A resize that was under way when the backup was made, and finished by other workers afterwards."""
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, "PowerOffSource.SUCCESS.after") == KILLED
    nobody_works(cloud)
    copy_of(cloud, "state.sqlite", "backup.sqlite")
    for point in ("RetireSource.define#1.after", "DefineDestination.define#1.before"):
        assert cloud.run_in_child(job, point) == KILLED
    assert cloud.run(job) is JobState.DONE
    assert cloud.world.running(cloud.uuid) == ("h2",)
    copy_of(cloud, "backup.sqlite", "state.sqlite")
    return job


def test_after_restore_fences_off_and_compares(cloud: Cloud, console: Console) -> None:
    job = backed_up_in_flight(cloud)
    answer = console.type("doctor", "--after-restore", "-f", "json")
    assert answer.code == 3, answer
    assert [(row["invariant"], row["found"], row["expected"]) for row in answer.json] == [
        (1, "runs on h2", "runs on h1")
    ]
    row = cloud.job(job)
    mark = definition.read(xml_of(cloud, "h2")).mark
    assert mark is not None
    assert mark.epoch > 1
    assert (row.state, row.owner, row.epoch) == (JobState.NEEDS_ATTENTION, None, mark.epoch + LEAP)
    assert "restored from a backup" in (row.reason or "")
    assert f"marks of epoch {mark.epoch} on the hosts prove" in (row.reason or "")
    with cloud.database.read() as tx:
        assert tx.events.flaw(job.migration_id) is None
        assert tx.events.of(job.migration_id)[-1].data == {"job": job.job_id, "before": 1, "epoch": row.epoch}
    assert console.type("worker", "--drain").code == 0
    assert cloud.job(job).state is JobState.NEEDS_ATTENTION


def test_a_worker_from_before_the_restoration_writes_nothing(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    copy_of(cloud, "state.sqlite", "backup.sqlite")
    with cloud.database.write() as tx:
        zombie = tx.jobs.take(job.job_id, "zombie", 6)
    assert zombie is not None
    copy_of(cloud, "backup.sqlite", "state.sqlite")
    Doctor(cloud.database, cloud.settings, connections=cloud.connections).after_restore("test")
    # Its epoch would be handed out again, but for the leap.
    cloud.service.resume(job.migration_id)
    assert cloud.run(job) is JobState.DONE
    with pytest.raises(LeaseLost), cloud.database.write(zombie):
        pass
    assert cloud.migration(job).status is MigrationStatus.FINISHED
    assert found(cloud) == []


def test_after_restore_is_refused_while_a_worker_is_up(cloud: Cloud, console: Console) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    with cloud.database.write() as tx:
        tx.workers.seen("busy", 100)
    before = everything(cloud)
    console.type("doctor", "--after-restore").refused(4, "busy is up", "stop all workers first")
    assert everything(cloud) == before
    with cloud.database.write() as tx:
        tx.workers.gone("busy")
        assert tx.jobs.take(job.job_id, "foreground", 100)
    before = everything(cloud)
    console.type("doctor", "--after-restore").refused(4, "held by foreground")
    with pytest.raises(Conflict):
        Doctor(cloud.database, cloud.settings, connections=cloud.connections).after_restore("test")
    assert everything(cloud) == before


def test_after_restore_without_open_jobs_only_examines(cloud: Cloud, console: Console) -> None:
    before = everything(cloud)
    assert console.type("doctor", "--after-restore").code == 0
    assert everything(cloud) == before
