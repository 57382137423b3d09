"""The main job on real hosts: resize, confirm, revert, and what goes wrong on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from lab.lab import Lab
from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import FastClock
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus, VmState
from resizeflow.worker import Worker
from tests.fleet import Fleet
from tests.lab import checks
from tests.lab.conftest import FleetMaker

pytestmark = pytest.mark.lab

SLOW = {"bandwidth": "100"}
"""MiB/s per disk: a transfer of 1 GiB disks lasts about ten seconds, long enough to be interrupted."""


def test_resized_to_another_host_and_confirmed(fleet: Fleet) -> None:
    before = fleet.guest.wait_report()
    records = fleet.guest.last_record(fleet.lab.host("h1"))
    job = fleet.service.resize("web", "big", host="h2")
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    checks.is_resized(fleet, job, before, host="h2")
    assert fleet.guest.wait_report(boots=2)["last_record"] >= records
    assert fleet.guest.vnc_password in fleet.lab.host("h2").virsh("dumpxml", "--security-info", "web")
    assert fleet.guest.vnc_password.encode() not in (fleet.folder / "state.sqlite").read_bytes()
    confirm = fleet.service.confirm("web")
    assert fleet.run(confirm) is JobState.DONE, fleet.story(confirm)
    checks.nothing_left_on(fleet, "h1")
    checks.is_resized(fleet, confirm, before, host="h2")


def test_reverted_is_as_before(fleet: Fleet) -> None:
    before, state = fleet.guest.wait_report(), fleet.state()
    job = fleet.service.resize("web", "big", host="h2")
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    fleet.guest.wait_report(boots=2)
    revert = fleet.service.revert("web")
    assert fleet.run(revert) is JobState.DONE, fleet.story(revert)
    assert fleet.migration(job).status is MigrationStatus.REVERTED
    checks.is_as_before(fleet, revert, state, before)
    checks.nothing_left_on(fleet, "h2")


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_same_host_overlay_is_merged_by_the_confirm(make_fleet: FleetMaker, running: bool) -> None:
    fleet = make_fleet(running=running)
    host, before = fleet.lab.host("h1"), fleet.guest.wait_report()
    disks = sorted(path.name for path in host.pool_path.iterdir())
    job = fleet.service.resize("web", "big", host="h1")
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    if running:
        fleet.guest.wait_report(boots=2)
    confirm = fleet.service.confirm("web")
    assert fleet.run(confirm) is JobState.DONE, fleet.story(confirm)
    assert sorted(path.name for path in host.pool_path.iterdir()) == disks
    if running:
        assert checks.runs_only_on(fleet.guest, "h1")
        fleet.guest.shutdown(host)
    assert fleet.guest.state(host) == "shut off"
    fleet.guest.start(host)
    report = fleet.guest.wait_report(boots=3 if running else 2)
    checks.same_machine(before, report)
    assert (report["vcpus"], report["disks"]["vda"]) == (2, 2 * checks.GIB)


def test_same_host_reverted_is_as_before(fleet: Fleet) -> None:
    before, state = fleet.guest.wait_report(), fleet.state()
    job = fleet.service.resize("web", "big", host="h1")
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    fleet.guest.wait_report(boots=2)
    revert = fleet.service.revert("web")
    assert fleet.run(revert) is JobState.DONE, fleet.story(revert)
    checks.is_as_before(fleet, revert, state, before)


def test_stopped_machine_stays_stopped(make_fleet: FleetMaker) -> None:
    fleet = make_fleet(running=False)
    before = fleet.guest.wait_report()
    for job in (fleet.service.resize("web", "big", host="h2"), None):
        submitted = job or fleet.service.confirm("web")
        assert fleet.run(submitted) is JobState.DONE, fleet.story(submitted)
        assert fleet.guest.states() == ({"h1": "shut off", "h2": "shut off"} if job else {"h2": "shut off"})
    with fleet.database.read() as tx:
        assert tx.instances.get("web").vm_state is VmState.STOPPED
    fleet.guest.start(fleet.lab.host("h2"))
    checks.same_machine(before, fleet.guest.wait_report(boots=2))


def test_cold_migration_keeps_the_flavor(fleet: Fleet) -> None:
    before = fleet.guest.wait_report()
    job = fleet.service.migrate("web")
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    report = fleet.guest.wait_report(boots=2)
    checks.same_machine(before, report)
    for key in ("vcpus", "memory_mb", "disks"):
        assert report[key] == before[key]
    assert report["host"] == "h2" and checks.runs_only_on(fleet.guest, "h2")


def test_start_refused_at_the_destination_is_rolled_back(fleet: Fleet) -> None:
    before, state = fleet.guest.wait_report(), fleet.state()
    # QEMU cannot write the machine's serial log where a folder has its name.
    in_the_way = fleet.lab.host("h2").serial_log("web")
    in_the_way.mkdir(parents=True)
    try:
        job = fleet.service.resize("web", "big", host="h2")
        assert fleet.run(job) is JobState.DONE
    finally:
        in_the_way.rmdir()
    assert fleet.migration(job).status is MigrationStatus.ERROR
    assert "StartDestination failed" in fleet.story(job)
    checks.is_as_before(fleet, job, state, before)
    checks.nothing_left_on(fleet, "h2")


def test_destination_that_dies_before_the_pivot_leaves_debts(fleet: Fleet) -> None:
    before, state = fleet.guest.wait_report(), fleet.state()
    job = fleet.service.resize("web", "big", host="h2")
    assert fleet.run_in_child(job, "StartDestination.commit.pivot#1.before") == KILLED
    fleet.lab.host("h2").die()
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    assert checks.runs_only_on(fleet.guest, "h1")
    assert fleet.guest.ping()
    with fleet.database.read() as tx:
        owed = {(debt.kind, debt.object) for debt in tx.debts.open()}
    assert owed == {("domain", fleet.uuid), *(("disk", d.dest_volume) for d in fleet.migration(job).disks)}
    fleet.lab.host("h2").boot()
    with Worker(fleet.database, fleet.settings, clock=FastClock()) as worker:
        assert worker.drain() == 1
    with fleet.database.read() as tx:
        assert not tx.debts.open()
    checks.nothing_left_on(fleet, "h2")
    tables = fleet.state(job)["tables"]
    tables.pop("debts")
    assert tables == {name: rows for name, rows in state["tables"].items() if name != "debts"}
    checks.same_machine(before, fleet.guest.wait_report(boots=1))


def test_finished_resize_whose_destination_died_is_reverted_once_it_is_fenced(fleet: Fleet) -> None:
    before, state = fleet.guest.wait_report(), fleet.state()
    job = fleet.service.resize("web", "big", host="h2")
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    fleet.guest.wait_report(boots=2)
    fleet.lab.host("h2").die()
    refused = fleet.service.revert("web")
    assert fleet.run(refused) is JobState.DONE, fleet.story(refused)
    assert fleet.migration(job).status is MigrationStatus.FINISHED, "nobody said that nothing runs on h2"
    fleet.inventory.set_host("h2", fenced=True)
    revert = fleet.service.revert("web")
    assert fleet.run(revert) is JobState.DONE, fleet.story(revert)
    assert fleet.migration(job).status is MigrationStatus.REVERTED
    assert checks.runs_only_on(fleet.guest, "h1")
    fleet.inventory.set_host("h2", fenced=False)
    fleet.lab.host("h2").boot()
    with Worker(fleet.database, fleet.settings, clock=FastClock()) as worker:
        assert worker.drain() == 1
    checks.nothing_left_on(fleet, "h2")
    now, then = fleet.state(job), state
    for tables in (now["tables"], then["tables"]):
        tables.pop("debts")
    assert now == then
    checks.same_machine(before, checks.report_on(fleet, "h1", 2, vcpus=before["vcpus"]))


@pytest.mark.parametrize("transfer", ["direct", "stream"])
def test_killed_in_mid_transfer_the_successor_takes_it_over(make_fleet: FleetMaker, transfer: str) -> None:
    fleet = make_fleet(transfer=transfer, **SLOW)
    before = fleet.guest.wait_report()
    job = fleet.service.resize("web", "big", host="h2")
    point = "TransferDisks.commit.progress#2.after" if transfer == "direct" else "TransferDisks.commit.segments#1.after"
    assert fleet.run_in_child(job, point) == KILLED
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    story = fleet.story(job)
    assert ("taken over" if transfer == "direct" else "goes on at byte") in story, story
    assert story.count("transfer started") == (1 if transfer == "direct" else 0)
    checks.is_resized(fleet, job, before, host="h2")


def test_death_of_a_libvirtd_begins_the_copy_again_and_says_so(make_fleet: FleetMaker) -> None:
    fleet = make_fleet(**SLOW)
    before = fleet.guest.wait_report()
    job = fleet.service.resize("web", "big", host="h2")

    def kill_and_restart() -> None:
        host = fleet.lab.host("h2")
        host.kill_libvirtd()
        host.start_libvirtd()

    state = _run_and(fleet, job, lambda: bool(fleet.migration(job).bytes_done), kill_and_restart)
    assert state is JobState.DONE, fleet.story(job)
    assert "begun again" in fleet.story(job)
    checks.is_resized(fleet, job, before, host="h2")


def test_rolled_back_in_mid_transfer(make_fleet: FleetMaker) -> None:
    fleet = make_fleet(**SLOW)
    before, state = fleet.guest.wait_report(), fleet.state()
    job = fleet.service.resize("web", "big", host="h2")
    end = _run_and(
        fleet, job, lambda: bool(fleet.migration(job).bytes_done), lambda: fleet.service.rollback(job.migration_id)
    )
    assert end is JobState.DONE, fleet.story(job)
    assert fleet.migration(job).status is MigrationStatus.ERROR
    checks.is_as_before(fleet, job, state, before)
    checks.nothing_left_on(fleet, "h2")


def test_full_destination_is_found_while_the_machine_still_runs(lab: Lab, fleet: Fleet) -> None:
    filler = lab.host("h2").pool_path
    state = fleet.state()
    job = fleet.service.resize("web", "big", host="h2")
    # The pool goes away between submit and run: the machine must not be touched for it.
    lab.host("h2").virsh("pool-destroy", "default")
    try:
        assert fleet.run(job) is JobState.DONE
    finally:
        lab.host("h2").virsh("pool-start", "default")
    assert fleet.migration(job).status is MigrationStatus.ERROR
    assert "PowerOffSource" not in fleet.story(job)
    assert fleet.state(job) == state
    assert list(filler.iterdir()) == []


def _run_and(fleet: Fleet, job: Submitted, when: Callable[[], bool], then: Callable[[], object]) -> JobState:
    """Runs a job in a thread and does something once a condition holds; the job's state in the end."""
    with Worker(fleet.database, fleet.settings) as worker:
        thread = threading.Thread(target=worker.finish, args=(job.job_id,))
        thread.start()
        deadline = time.monotonic() + 60
        while not when() and time.monotonic() < deadline:
            time.sleep(0.2)
        then()
        thread.join(timeout=180)
        assert not thread.is_alive(), fleet.story(job)
    return fleet.job(job).state
