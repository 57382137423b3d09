"""The doctor finds nothing where nothing is wrong: after each operation, in the middle of one, while one runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.doctor import Doctor, Report
from resizeflow.drivers.simulator.faults import ALWAYS
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.spread import spread


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build(disks=("vda", "vdb"))


def examine(cloud: Cloud) -> Report:
    return Doctor(cloud.database, cloud.settings, connections=cloud.connections, clock=cloud.clock).examine()


def check_clean(cloud: Cloud, job: Submitted | None = None) -> None:
    report = examine(cloud)
    assert report.breaches == (), cloud.story(job) if job else ""
    assert report.complete


def finish(cloud: Cloud, job: Submitted) -> None:
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)
    check_clean(cloud, job)


def test_a_new_cloud_is_clean(cloud: Cloud) -> None:
    check_clean(cloud)
    cloud.service.remove("web")
    check_clean(cloud)


@pytest.mark.slow
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("host", ["h1", "h2"], ids=["same", "other"])
def test_each_operation_leaves_it_clean(memory_path: Path, host: str, running: bool) -> None:
    cloud = Cloud(memory_path).build(disks=("vda", "vdb"), running=running, volumes=("iscsi",))
    failing = cloud.service.resize("web", "big", host=host)
    cloud.world.fail(host, "define", "the host says no", ALWAYS)
    cloud.run(failing)
    cloud.world.heal()
    finish(cloud, failing)
    assert cloud.migration(failing).status is MigrationStatus.ERROR
    for decide in (cloud.service.revert, cloud.service.confirm):
        job = cloud.service.resize("web", "big", host=host)
        check_clean(cloud, job)
        finish(cloud, job)
        decided = decide("web")
        check_clean(cloud, decided)
        finish(cloud, decided)
    back = cloud.service.migrate("web", host="h1" if host == "h2" else "h2")
    finish(cloud, back)
    finish(cloud, cloud.service.confirm("web"))
    # The disks that a migration made are the machine's own: they stay with it when it is given up.
    cloud.service.remove("web")
    check_clean(cloud)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["h1", "h2"], ids=["same", "other"])
@pytest.mark.parametrize(
    "point",
    spread(
        [
            "SelectDestination.SUCCESS.after",
            "PowerOffSource.shutdown#1.after",
            "RetireSource.define#1.after",
            "TransferDisks.create_volume#2.after",
            "TransferDisks.start_carrier#1.after",
            "MoveInstance.SUCCESS.after",
            "DefineDestination.define#1.after",
            "StartDestination.start_paused#1.after",
            "StartDestination.commit.pivot#1.after",
            "StartDestination.resume#1.after",
            "FinishResize.SUCCESS.after",
        ],
        3,
    ),
)
def test_a_machine_in_the_middle_of_a_resize_is_no_breach(cloud: Cloud, host: str, point: str) -> None:
    job = cloud.service.resize("web", "big", host=host)
    status = cloud.run_in_child(job, point)
    assert status == KILLED or (host == "h1" and "carrier" in point)
    check_clean(cloud, job)
    if cloud.job(job).pivot_at is None:
        cloud.service.rollback(job.migration_id)
        assert cloud.run_in_child(job, "SelectDestination.REVERTED.after") == KILLED
        check_clean(cloud, job)
    finish(cloud, job)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["h1", "h2"], ids=["same", "other"])
@pytest.mark.parametrize(
    ("action", "point"),
    spread(
        [
            ("confirm", "CheckDestination.SUCCESS.after"),
            ("confirm", "MergeOverlays.pivot_merge#1.after"),
            ("confirm", "RemoveSourceDisks.delete_volume#1.after"),
            ("confirm", "FinishConfirm.SUCCESS.after"),
            ("revert", "RetireDestination.define#1.after"),
            ("revert", "MoveInstanceBack.SUCCESS.after"),
            ("revert", "StartSource.commit.pivot#1.after"),
            ("revert", "RemoveDestination.delete_volume#1.after"),
            ("revert", "FinishRevert.SUCCESS.after"),
        ],
        2,
    ),
)
def test_a_machine_in_the_middle_of_a_decision_is_no_breach(cloud: Cloud, host: str, action: str, point: str) -> None:
    finish(cloud, cloud.service.resize("web", "big", host=host))
    job = cloud.service.confirm("web") if action == "confirm" else cloud.service.revert("web")
    status = cloud.run_in_child(job, point)
    elsewhere = {"MergeOverlays": "h2", "RemoveSourceDisks": "h1"}.get(point.partition(".")[0])
    assert status == (0 if elsewhere == host else KILLED)
    check_clean(cloud, job)
    finish(cloud, job)


def _operations(cloud: Cloud) -> Iterator[Submitted]:
    yield cloud.service.resize("web", "big", host="h2")
    yield cloud.service.revert("web")
    yield cloud.service.resize("web", "big", host="h1")
    yield cloud.service.confirm("web")
    yield cloud.service.migrate("web", host="h2")
    yield cloud.service.confirm("web")


@pytest.mark.slow
def test_a_job_at_work_is_no_breach(memory_path: Path, slow_connection: str | None) -> None:
    """What a job does between the look at the records and the look at a host, or Cinder, is progress, nothing else."""
    cloud = Cloud(memory_path, connection=slow_connection).build(disks=("vda", "vdb"), volumes=("rbd", "nfs"))
    cloud.world.set_speed(transfer_seconds=0.2)
    ended = threading.Event()
    reports: list[Report] = []
    first = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            reports.append(examine(cloud))
            first.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert first.wait(60)
        for job in _operations(cloud):
            assert cloud.run(job) is JobState.DONE, cloud.story(job)
    finally:
        ended.set()
        watcher.join()
    assert [report.breaches for report in reports if report.breaches] == []
    check_clean(cloud)


def test_debts_and_silent_hosts_are_named_and_no_breach(cloud: Cloud) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE
    cloud.world.crash("h1")
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    report = examine(cloud)
    assert report.breaches == ()
    assert {debt.subject for debt in report.debts} == {
        f"domain {cloud.uuid} on h1",
        "disk web-vda.qcow2 on h1",
        "disk web-vdb.qcow2 on h1",
    }
    assert list(report.silent) == ["host h1"]
    assert not report.complete
    # The host is back, with what it still has: a debt is a debt until it is settled.
    cloud.world.set_up("h1", True)
    report = examine(cloud)
    assert (report.breaches, len(report.debts), report.complete) == ((), 3, True)


def test_a_host_whose_pool_is_gone_is_not_examined(cloud: Cloud) -> None:
    cloud.world.fail("h2", "volumes", "the pool is not active", ALWAYS)
    report = examine(cloud)
    assert report.breaches == ()
    assert "the pool is not active" in report.silent["host h2"]


def test_what_was_never_ours_is_none_of_our_business(cloud: Cloud) -> None:
    cloud.world.create_guest("h2", "stranger", 3, 100, {"vda": 1})
    cloud.world.create_guest("h1", "web-2", 3, 100, {"vda": 1}, running=False)
    check_clean(cloud)
    finish(cloud, cloud.service.resize("web", "big", host="h2"))
    check_clean(cloud)


def statements(cloud: Cloud) -> int:
    """How many SQL statements an examination takes."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_context: object) -> None:
        seen.append(statement)

    sa.event.listen(cloud.database.engine, "before_cursor_execute", note)
    check_clean(cloud)
    sa.event.remove(cloud.database.engine, "before_cursor_execute", note)
    return len(seen)


@pytest.mark.slow
def test_an_examination_takes_as_many_statements_whatever_has_happened(cloud: Cloud) -> None:
    """It is made after each case of the crash laboratory."""
    at_first = statements(cloud)
    for _ in range(3):
        finish(cloud, cloud.service.resize("web", "big", host="h2"))
        finish(cloud, cloud.service.revert("web"))
    assert 10 < statements(cloud) <= at_first + 4 < 40
