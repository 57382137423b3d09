"""Machines with Cinder volumes on real hosts: who has them open, what Cinder has attached, and that nothing is lost.

The guest writes numbered records on each volume all the time, and acknowledges one only when it is on the disk.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from lab.attachment import Attached
from lab.guest import DiskSpec, Guest, VolumeSpec
from lab.lab import Lab
from lab.probe import why_not_open
from lab.system import wait_until
from resizeflow.chaos.child import KILLED
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus, VmState
from tests.fleet import Fleet
from tests.lab import attached, checks
from tests.lab.conftest import FleetMaker, WorkerMaker
from tests.lab.faults import IMPATIENT, by_address, settle

pytestmark = pytest.mark.lab

DISK = (DiskSpec(1, "qcow2"),)
EACH_KIND = (VolumeSpec("rbd"), VolumeSpec("iscsi"), VolumeSpec("nfs"))
ROOT_AND_DATA = (VolumeSpec("rbd"), VolumeSpec("iscsi"))


@pytest.fixture(scope="module")
def lab(volumes_lab: Lab) -> Lab:
    """Two real hosts, and storage behind a real Cinder."""
    return volumes_lab


def done(fleet: Fleet, job: Submitted) -> Submitted:
    assert fleet.run(job) is JobState.DONE, f"{fleet.job(job).reason}\n{fleet.story(job)}"
    return job


def is_cut_off(fleet: Fleet, host: str, opened: Attached) -> bool:
    """Whether a host gets no further than the login of an iSCSI target, with what it once opened its volume by."""
    refusal = why_not_open(fleet.lab.host(host), opened, opened.connection["auth_password"])
    return refusal is not None and "Target not found" in refusal


def secrets_of(fleet: Fleet, host: str) -> str:
    return fleet.lab.host(host).virsh("secret-list")


def test_data_volumes_go_and_come_back_and_who_had_them_is_cut_off(make_fleet: FleetMaker) -> None:
    fleet = make_fleet(disks=DISK, volumes=EACH_KIND)
    before, state, operators = fleet.guest.wait_report(), fleet.state(), secrets_of(fleet, "h1")
    attached.writes_on(fleet)
    on_h1 = attached.opening(fleet, "h1", "iscsi")
    assert not is_cut_off(fleet, "h1", on_h1)
    resize = done(fleet, fleet.service.resize("web", "big", host="h2"))
    checks.is_resized(fleet, resize, before, host="h2")
    attached.are_at(fleet, "h2", ways_back=1)
    assert is_cut_off(fleet, "h1", on_h1), "although the way back is reserved"
    checks.healthy(fleet)

    attached.writes_on(fleet)
    on_h2 = attached.opening(fleet, "h2", "iscsi")
    assert not is_cut_off(fleet, "h2", on_h2)
    revert = done(fleet, fleet.service.revert("web"))
    checks.is_as_before(fleet, revert, state, before)
    attached.are_at(fleet, "h1")
    assert is_cut_off(fleet, "h2", on_h2)
    checks.nothing_left_on(fleet, "h2")
    checks.healthy(fleet)

    attached.writes_on(fleet)
    resize = done(fleet, fleet.service.resize("web", "big", host="h2"))
    confirm = done(fleet, fleet.service.confirm("web"))
    checks.is_resized(fleet, confirm, fleet.guest.reports()[2], host="h2")
    attached.are_at(fleet, "h2")
    attached.nothing_lost(fleet)
    assert is_cut_off(fleet, "h1", on_h1)
    checks.nothing_left_on(fleet, "h1")
    assert secrets_of(fleet, "h1") == operators
    checks.healthy(fleet)


@pytest.mark.parametrize("decision", ["confirm", pytest.param("revert", marks=pytest.mark.certify)])
def test_a_machine_that_boots_from_a_volume_has_nothing_copied(make_fleet: FleetMaker, decision: str) -> None:
    fleet = make_fleet(disks=(), volumes=ROOT_AND_DATA)
    fleet.inventory.create_flavor("rootless", vcpus=2, memory_mb=384, root_gb=0)
    before, state = fleet.guest.wait_report(), fleet.state()
    attached.writes_on(fleet)
    resize = done(fleet, fleet.service.resize("web", "rootless", host="h2"))
    moved = fleet.migration(resize)
    assert (moved.bytes_done, moved.bytes_total) == (0, 0)
    assert fleet.guest.wait_report(boots=2)["vcpus"] == 2
    attached.are_at(fleet, "h2", ways_back=1)
    checks.healthy(fleet)
    decided = done(fleet, getattr(fleet.service, decision)("web"))
    left, host = ("h1", "h2") if decision == "confirm" else ("h2", "h1")
    if decision == "revert":
        assert fleet.state(decided) == state
    # What it boots from has no copy that was kept when it left: its boots are counted on.
    after = checks.report_on(
        fleet, host, boots=2 if decision == "confirm" else 3, vcpus=2 if decision == "confirm" else 1
    )
    checks.same_machine(before, after)
    assert after["disks"] == before["disks"]
    attached.are_at(fleet, host)
    attached.nothing_lost(fleet)
    checks.nothing_left_on(fleet, left)
    checks.healthy(fleet)


@pytest.mark.certify
@pytest.mark.parametrize("decision", ["confirm", "revert"])
@pytest.mark.parametrize("disks", [DISK, ()], ids=["disk", "no-disk"])
def test_on_the_same_host(make_fleet: FleetMaker, disks: tuple[DiskSpec, ...], decision: str) -> None:
    fleet = make_fleet(disks=disks, volumes=ROOT_AND_DATA)
    before, state = fleet.guest.wait_report(), fleet.state()
    attached.writes_on(fleet)
    resize = done(fleet, fleet.service.resize("web", "big", host="h1"))
    checks.is_resized(fleet, resize, before, host="h1", root_gb=2 if disks else 1)
    attached.are_at(fleet, "h1", ways_back=1)
    decided = done(fleet, getattr(fleet.service, decision)("web"))
    if decision == "revert":
        assert fleet.state(decided) == state
        checks.same_machine(before, checks.report_on(fleet, "h1", boots=2 if disks else 3, vcpus=1))
    attached.are_at(fleet, "h1")
    attached.writes_on(fleet)
    attached.nothing_lost(fleet)
    checks.healthy(fleet)


@pytest.mark.certify
def test_a_stopped_machine_stays_stopped_and_nobody_has_its_volumes_open(make_fleet: FleetMaker) -> None:
    fleet = make_fleet(disks=DISK, volumes=ROOT_AND_DATA)
    before = fleet.guest.wait_report()
    attached.writes_on(fleet)
    fleet.guest.shutdown(fleet.lab.host("h1"))
    resize = done(fleet, fleet.service.resize("web", "big", host="h2"))
    attached.are_at(fleet, "h2", ways_back=1, running=False)
    done(fleet, fleet.service.confirm("web"))
    attached.are_at(fleet, "h2", running=False)
    with fleet.database.read() as tx:
        assert tx.instances.get("web").vm_state is VmState.STOPPED
    fleet.guest.start(fleet.lab.host("h2"))
    checks.is_resized(fleet, resize, before, host="h2")
    attached.are_at(fleet, "h2")
    attached.nothing_lost(fleet)
    checks.healthy(fleet)


def test_the_source_is_not_started_while_the_destinations_qemu_has_an_image_open(
    make_fleet: FleetMaker, make_worker: WorkerMaker
) -> None:
    """The destination's daemon hangs when its QEMU is started, paused, and the machine is not past its pivot."""
    fleet = make_fleet(disks=DISK, volumes=ROOT_AND_DATA, **IMPATIENT)
    before, state = fleet.guest.wait_report(), fleet.state()
    attached.writes_on(fleet)
    job = fleet.service.resize("web", "big", host="h2")
    worker = make_worker(fleet, arm="StartDestination.commit.pivot#1.before=stop")
    worker.wait_stopped()
    host = fleet.lab.host("h2")
    host.hang_libvirtd()
    worker.kill()
    fleet.service.rollback(job.migration_id)
    (pid,) = checks.machine_pids(host, "web")
    with checks.never_two(fleet.lab, "web"):
        assert fleet.run(job) is JobState.QUEUED, fleet.story(job)
        assert f"still open at {host.address}:" in (fleet.job(job).reason or "")
        assert fleet.guest.state(fleet.lab.host("h1")) == "shut off"
        os.kill(pid, signal.SIGTERM)
        rolled_back(fleet, job)
    assert checks.runs_only_on(fleet.guest, "h1") and fleet.guest.ping(timeout=60)
    host.unhang_libvirtd()
    settle(fleet)
    checks.is_as_before(fleet, job, state, before)
    attached.are_at(fleet, "h1")
    attached.nothing_lost(fleet)
    checks.nothing_left_on(fleet, "h2")
    checks.healthy(fleet)


@pytest.mark.certify
def test_the_source_is_not_started_before_ceph_has_given_up_a_destination_that_is_cut_off(
    make_fleet: FleetMaker, make_worker: WorkerMaker
) -> None:
    """Its QEMU, started and paused, stays. Who is silent for some seconds is no watcher for Ceph any more."""
    fleet = make_fleet(disks=DISK, volumes=ROOT_AND_DATA, **IMPATIENT)
    before, state = fleet.guest.wait_report(), fleet.state()
    attached.writes_on(fleet)
    job = fleet.service.resize("web", "big", host="h2")
    by_address(fleet, True)
    first = make_worker(fleet, arm="StartDestination.commit.pivot#1.before=stop", within=fleet.lab.at_switch)
    first.wait_stopped()
    host = fleet.lab.host("h2")
    host.cut_link()
    first.kill()
    fleet.service.rollback(job.migration_id)
    fleet.expire(job)
    with checks.never_two(fleet.lab, "web"):
        worker = make_worker(fleet, within=fleet.lab.at_switch)
        assert wait_until(lambda: bool(checks.machine_pids(fleet.lab.host("h1"), "web")), 180), fleet.story(job)
        assert not [volume for volume, where in attached.opened_from(fleet).items() if host.address in where]
        assert wait_until(lambda: fleet.job(job).state is JobState.DONE, timeout=60), fleet.story(job)
    host.restore_link()
    worker.kill()
    by_address(fleet, False)
    settle(fleet)
    checks.is_as_before(fleet, job, state, before)
    attached.are_at(fleet, "h1")
    attached.nothing_lost(fleet)
    checks.nothing_left_on(fleet, "h2")
    checks.healthy(fleet)


@pytest.mark.certify
def test_the_source_is_not_detached_or_started_while_somebody_watches_an_image(make_fleet: FleetMaker) -> None:
    fleet = make_fleet(disks=DISK, volumes=ROOT_AND_DATA)
    before, state = fleet.guest.wait_report(), fleet.state()
    attached.writes_on(fleet)
    with watched(fleet.lab, fleet.guest.facts.volumes[0]) as address:
        job = fleet.service.resize("web", "big", host="h2")
        assert fleet.run(job) is JobState.QUEUED, fleet.story(job)
        waits_for = f"still open at {address}"
        assert waits_for in (fleet.job(job).reason or "")
        fleet.service.rollback(job.migration_id)
        assert fleet.run(job) is JobState.QUEUED, fleet.story(job)
        assert waits_for in (fleet.job(job).reason or "")
        assert fleet.guest.states() == {"h1": "shut off"}
    rolled_back(fleet, job)
    checks.is_as_before(fleet, job, state, before)
    attached.are_at(fleet, "h1")
    attached.nothing_lost(fleet)
    checks.nothing_left_on(fleet, "h2")
    checks.healthy(fleet)


@pytest.mark.certify
def test_a_volume_that_another_machine_has_as_well_goes_along(make_fleet: FleetMaker, lab: Lab) -> None:
    """The other one, at the destination, has it open all the time."""
    shared = VolumeSpec("multi", volume_id=lab.volumes.cinder.create_volume("multi"))
    other = Guest(lab, "other").create(lab.host("h2"), memory_mb=160, volumes=[shared])
    other.wait_report()
    fleet = make_fleet(disks=DISK, volumes=(shared,))
    before, (here, there) = fleet.guest.wait_report(), (host.address for host in lab.hosts)
    assert list(attached.opened_from(fleet).values()) == [[here, there]]
    resize = done(fleet, fleet.service.resize("web", "big", host="h2"))
    checks.is_resized(fleet, resize, before, host="h2")
    assert list(attached.opened_from(fleet).values()) == [[there, there]]
    revert = done(fleet, fleet.service.revert("web"))
    checks.same_machine(before, checks.report_on(fleet, "h1", boots=2, vcpus=1))
    assert list(attached.opened_from(fleet).values()) == [[here, there]]
    attached.writes_on(fleet)
    assert fleet.migration(revert).status is MigrationStatus.REVERTED
    assert other.state(lab.host("h2")) == "running" and len(other.reports()) == 1
    checks.healthy(fleet)


@contextlib.contextmanager
def watched(lab: Lab, volume: str) -> Iterator[str]:
    """Somebody else has a volume's image open: at which address."""
    ceph = lab.volumes.ceph
    command = [*lab.at_switch, "rbd", "--conf", str(ceph.conf), "--id", "cinder", "watch", f"volumes/volume-{volume}"]
    before = set(ceph.watchers(volume))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as watcher:
        assert wait_until(lambda: len(ceph.watchers(volume)) > len(before), timeout=60)
        (address,) = set(ceph.watchers(volume)) - before
        yield address
        watcher.terminate()


def rolled_back(fleet: Fleet, job: Submitted) -> None:
    assert wait_until(lambda: fleet.run(job) is JobState.DONE, timeout=180), fleet.story(job)
    assert fleet.migration(job).status is MigrationStatus.ERROR, fleet.story(job)


@pytest.mark.certify
@pytest.mark.parametrize("end", ["resumed", "rolled-back"])
def test_workers_killed_at_volumes(make_fleet: FleetMaker, end: str) -> None:
    """One after the other, each where Cinder has done what nobody has written down."""
    fleet = make_fleet(disks=DISK, volumes=ROOT_AND_DATA)
    before, state = fleet.guest.wait_report(), fleet.state()
    attached.writes_on(fleet)
    job = fleet.service.resize("web", "big", host="h2")
    for point in (
        "ReserveVolumes.create_attachment#2.after",
        "DetachSourceVolumes.delete_attachment#1.after",
        "ConnectVolumes.update_attachment#1.after",
        "StartDestination.complete_attachment#1.after",
    ):
        assert fleet.run_in_child(job, point) == KILLED, fleet.story(job)
    if end == "resumed":
        done(fleet, job)
        checks.is_resized(fleet, job, before, host="h2")
        attached.are_at(fleet, "h2", ways_back=1)
    else:
        fleet.service.rollback(job.migration_id)
        rolled_back(fleet, job)
        checks.is_as_before(fleet, job, state, before)
        attached.are_at(fleet, "h1")
        checks.nothing_left_on(fleet, "h2")
    attached.nothing_lost(fleet)
    checks.healthy(fleet)
