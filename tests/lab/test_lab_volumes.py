"""The storage of the lab: real volumes, which Cinder attaches and guests write to, and nothing left when it is down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1.exceptions import ConnectFailure, ConnectTimeout

from lab import Guest, Lab, LabError, Volumes, VolumeSpec
from lab.attachment import Attached, attach, initiator
from lab.paths import LabPaths
from lab.probe import why_not_open
from lab.system import run, wait_until

NAME = "rf-volumes"
REPOSITORY = Path(__file__).parents[2]
KINDS = ("rbd", "iscsi", "nfs")

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(volumes_lab: Lab) -> Lab:
    """Two hosts with storage."""
    return volumes_lab


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Iterator[Guest]:
    """On h1: a disk in the host's pool, and a volume of each kind."""
    made = Guest(lab, "db").create(lab.host("h1"), volumes=[VolumeSpec(kind) for kind in KINDS])
    made.wait_report()
    yield made
    made.delete()


def secret_of(lab: Lab, attached: Attached) -> str | None:
    """What opens a volume."""
    if attached.connection["driver_volume_type"] == "rbd":
        return lab.volumes.ceph.key()
    return attached.connection.get("auth_password")


def acknowledged_after(guest: Guest, before: dict[str, int]) -> dict[str, int]:
    """Wait until the guest has acknowledged more records than those on every volume, and say how many."""
    deadline = time.monotonic() + 120
    while True:
        last = guest.sessions()[-1].volumes
        if all(number > before.get(volume, 0) for volume, number in last.items()):
            return last
        assert time.monotonic() < deadline, f"no more records on a volume: {last}"
        time.sleep(0.1)


def command(lab: Lab, *arguments: str) -> str:
    """Run `python -m lab` as somebody at a keyboard would."""
    argv = [sys.executable, "-m", "lab", *arguments, "--name", lab.name]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_guest_writes_to_its_volumes_and_finds_what_it_wrote(lab: Lab, guest: Guest) -> None:
    rbd = guest.facts.volumes[0]
    acknowledged = acknowledged_after(guest, {})
    assert list(guest.reports()[-1]["volumes"]) == ["vdb", "vdc", "vdd"]
    assert list(acknowledged) == [volume[:20] for volume in guest.facts.volumes]
    (watcher,) = lab.volumes.ceph.watchers(rbd)
    assert watcher.startswith(f"{lab.host('h1').address}:")
    assert len(lab.volumes.ceph.locks(rbd)) == 1

    guest.destroy(lab.host("h1"))
    acknowledged = guest.sessions()[-1].volumes
    assert wait_until(lambda: lab.volumes.ceph.watchers(rbd) == [], 60)
    guest.start(lab.host("h1"))
    report = guest.wait_report(boots=2)
    assert report["checksum_ok"]
    assert report["fresh"] == []
    for volume in report["volumes"].values():
        assert volume["records_ok"]
        assert volume["last_record"] >= acknowledged[volume["serial"]]


def test_a_guest_boots_from_a_volume_and_shares_another(lab: Lab) -> None:
    first, second = lab.hosts
    client = lab.volumes.cinder.client()
    shared = lab.volumes.cinder.create_volume("multi")
    one = Guest(lab, "one").create(first, volumes=[VolumeSpec("multi", volume_id=shared)])
    other = Guest(lab, "other").create(
        second, disks=[], volumes=[VolumeSpec("rbd"), VolumeSpec("multi", volume_id=shared)]
    )
    assert other.wait_report()["disks"] == {"vda": 1 << 30, "vdb": 1 << 30}
    root = other.facts.volumes[0]
    assert second.virsh("domblklist", "other").split()[:2] == ["vda", f"volumes/volume-{root}"]
    one.wait_report()
    for guest in (one, other):
        acknowledged_after(guest, {})
    assert len(lab.volumes.ceph.watchers(shared)) == 2

    other.delete()
    assert client.volumes.get(shared).status == "in-use"
    one.delete()
    assert not {root, shared} & {volume.id for volume in client.volumes.list()}


@pytest.mark.parametrize(("kind", "still"), [("rbd", True), ("iscsi", False), ("nfs", True)])
def test_who_is_detached_is_cut_off_by_iscsi_alone(lab: Lab, kind: str, still: bool) -> None:
    host = lab.host("h1")
    machine = "00000000-0000-4000-8000-000000000001"
    volume = lab.volumes.cinder.create_volume(kind)
    attached = attach(lab.volumes, volume, machine, host)
    secret = secret_of(lab, attached)
    assert why_not_open(host, attached, secret) is None
    client = lab.volumes.cinder.client()
    client.attachments.create(volume, None, machine)
    client.attachments.delete(attached.connection["attachment_id"])
    assert client.volumes.get(volume).status == "reserved"
    assert (why_not_open(host, attached, secret) is None) == still
    lab.volumes.cinder.delete_volume(volume)
    assert why_not_open(host, attached, secret) is not None


def test_only_the_right_secret_of_the_right_host_opens_a_volume(lab: Lab, guest: Guest) -> None:
    first, second = lab.hosts
    rbd, iscsi = (Attached(volume, connection_of(lab, volume), initiator(first)) for volume in guest.facts.volumes[:2])
    wrong = "QVFCYWJjZGVmZ2hpamtsbW5vcHFyc3R1dg=="
    assert "error connecting" in str(why_not_open(first, rbd, wrong))
    assert "Authentication failure" in str(why_not_open(first, iscsi, wrong))
    assert why_not_open(second, rbd, secret_of(lab, rbd)) is None
    stranger = replace(iscsi, initiator=initiator(second))
    assert "Target not found" in str(why_not_open(second, stranger, secret_of(lab, iscsi)))


def connection_of(lab: Lab, volume: str) -> dict[str, Any]:
    """How Cinder says that an attached volume is opened."""
    client = lab.volumes.cinder.client()
    (attachment,) = client.attachments.list(search_opts={"volume_id": volume})
    connection: dict[str, Any] = client.attachments.show(attachment.id).connection_info
    return connection


def test_guests_wait_for_ceph_and_write_on(lab: Lab, guest: Guest) -> None:
    ceph = lab.volumes.ceph
    ceph.freeze()
    written = guest.sessions()[-1].volumes
    rbd, iscsi, _ = written
    assert wait_until(lambda: guest.sessions()[-1].volumes[iscsi] > written[iscsi] + 4, 60)
    assert guest.sessions()[-1].volumes[rbd] <= written[rbd] + 2
    ceph.thaw()
    written = acknowledged_after(guest, guest.sessions()[-1].volumes)
    ceph.kill()
    assert not ceph.serves()
    ceph.start()
    acknowledged_after(guest, written)


def test_cinder_and_the_targets_outlive_their_processes(lab: Lab, guest: Guest) -> None:
    cinder, targets = lab.volumes.cinder, lab.volumes.targets
    before = (cinder.endpoint, set(targets.names()))
    cinder.kill()
    with pytest.raises(ConnectFailure):
        cinder.client().volumes.list()
    targets.kill()
    targets.start()
    cinder.start()
    assert (cinder.endpoint, set(targets.names())) == before
    assert [cinder.client().volumes.get(volume).status for volume in guest.facts.volumes] == ["in-use"] * 3
    acknowledged_after(guest, guest.sessions()[-1].volumes)
    cinder.freeze()
    with pytest.raises(ConnectTimeout):
        cinder.client(timeout=1).volumes.list()
    cinder.thaw()
    assert cinder.client().volumes.list()


def test_cinder_answers_within_the_lab_too(lab: Lab) -> None:
    url = f"{lab.volumes.cinder.lab_endpoint}/"
    asked = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).status)"
    for where in (lab.at_switch, ["ip", "netns", "exec", lab.paths.netns("h1")]):
        assert run([*where, sys.executable, "-c", asked, url]).strip() in {"200", "204"}


def test_up_again_starts_what_does_not_run(lab: Lab) -> None:
    volumes = lab.volumes
    before = [daemon.pid() for daemon in volumes.ceph.daemons]
    volumes.exports.kill()
    volumes.cinder.freeze()
    lab.up(hosts=2)
    assert [daemon.pid() for daemon in volumes.ceph.daemons] == before
    assert volumes.exports.pid() is not None
    assert volumes.cinder.pools() == 3


def test_the_command_line_makes_and_tells(lab: Lab) -> None:
    told = json.loads(command(lab, "volumes", "-f", "json"))
    assert told["endpoint"] == lab.volumes.cinder.endpoint
    command(lab, "guest", "create", "h1", "cli", "--disk", "none", "--volume", "nfs:2G")
    guest = Guest(lab, "cli")
    assert lab.volumes.cinder.client().volumes.get(guest.facts.volumes[0]).size == 2
    guest.delete()


@pytest.mark.parametrize("text", ["", "lvm:1G", "rbd:0G", "rbd:big"])
def test_a_wrong_volume_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="is no volume"):
        VolumeSpec.parse(text)


def test_a_lab_without_storage_says_so(lab: Lab) -> None:
    without = Lab(f"{NAME}-none")
    assert not without.volumes.exist()
    with pytest.raises(LabError, match="--volumes"):
        _ = without.volumes.address


def test_storage_needs_no_hosts_and_two_stand_side_by_side(lab: Lab) -> None:
    other = Lab(f"{NAME}-b")
    other.down()
    try:
        volumes = Volumes(LabPaths(other.name))
        volumes.up()
        assert volumes.address != lab.volumes.address
        volume = volumes.cinder.create_volume("rbd")
        assert volumes.ceph.watchers(volume) == []
        with pytest.raises(LabError):
            lab.volumes.ceph.watchers(volume)
    finally:
        other.down()
    assert other.leftovers() == []
    assert volumes.address not in run(["ip", "route"])


@pytest.mark.parametrize("seconds", [pytest.param(1.5, marks=pytest.mark.certify), 4])
def test_down_leaves_nothing_after_a_killed_up(lab: Lab, seconds: float) -> None:
    killed = Lab(f"{NAME}-killed")
    argv = [sys.executable, "-m", "lab", "up", "--hosts", "1", "--volumes", "--name", killed.name]
    building = subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    os.kill(building.pid, signal.SIGKILL)
    building.wait()
    killed.down()
    assert killed.leftovers() == []
