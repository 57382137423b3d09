"""On real hosts with real guests: VLANs move with the machine, and peers reach it where it is.

Where the kernel's bridges filter no VLANs the lab does (lab/vlan_filter), which tests/contract holds against one that
does. What is measured is relative: a guest counts as up when a peer beside it, at the bridge of its own host, gets the
first answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.guest import DiskSpec
from lab.lab import Lab
from resizeflow.chaos.child import KILLED
from resizeflow.connections import Connections
from resizeflow.doctor import Doctor
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.fleet import Fleet
from tests.lab.checks import healthy, runs_only_on
from tests.lab.faults import settle
from tests.lab.frames import Announcements
from tests.lab.pings import Pings

pytestmark = pytest.mark.lab

OURS, ANOTHER = 10, 11
"""The machine's VLAN, and one that is brought to both hosts, too."""
ADDRESSES = {"alice": 241, "beside": 242, "mallory": 243, "eve": 244}
Pinging = Callable[..., Pings]


@pytest.fixture(scope="module")
def vlan_lab(lab_name: str) -> Iterator[Lab]:
    """Two real hosts whose bridges filter VLANs."""
    lab = Lab(f"{lab_name}-vlans")
    lab.down()
    lab.up(hosts=2, vlans=True)
    yield lab
    lab.down()


@pytest.fixture
def fleet(vlan_lab: Lab, tmp_path: Path) -> Iterator[Fleet]:
    """A running machine in a VLAN on h1."""
    made = Fleet(tmp_path, vlan_lab, shutdown_timeout="15")
    try:
        yield made.build_on_lab(disks=(DiskSpec(1, "qcow2"),), vlan=OURS)
    finally:
        made.clean()
        for host in vlan_lab.hosts:
            vlan_lab.vlans.reset(vlan_lab.paths.netns(host.name), "uplink0")


@pytest.fixture
def ping(fleet: Fleet, tmp_path: Path) -> Iterator[Pinging]:
    """Has somebody ping the machine all the time: by name, VLAN, and where."""
    made: dict[str, Pings] = {}

    def begin(name: str, vlan: int, at: str = "switch") -> Pings:
        peer = fleet.lab.add_peer(name, vlan, f"198.51.100.{ADDRESSES[name]}", at=at)
        made[name] = Pings(peer, fleet.guest.ip, fleet.guest.mac, tmp_path / f"{name}.ping")
        return made[name]

    yield begin
    for name, pings in made.items():
        pings.stop()
        fleet.lab.remove_peer(name)


def carried(fleet: Fleet) -> dict[str, set[int]]:
    """The VLANs that are brought to each host, but for the other one."""
    return {host.name: host.carried_vlans - {ANOTHER} for host in fleet.lab.hosts}


def bring_another(fleet: Fleet) -> None:
    """The other VLAN is brought to both hosts: who is in it is kept apart there, not on the way."""
    for host in fleet.lab.hosts:
        fleet.lab.vlans.add(fleet.lab.paths.netns(host.name), "uplink0", ANOTHER)


def done(fleet: Fleet, job: Submitted) -> None:
    assert fleet.run(job, tries=3) is JobState.DONE, fleet.story(job)


def test_peers_of_a_machine_that_is_resized(fleet: Fleet, ping: Pinging, capsys: pytest.CaptureFixture[str]) -> None:
    """One in its VLAN reaches it within a second of its being up; others in another VLAN, at the switch and right
    beside it, never do; the source's bridge has no such VLAN after the confirm."""
    bring_another(fleet)
    alice, mallory = ping("alice", OURS), ping("mallory", ANOTHER)
    alice.wait()
    beside, eve = ping("beside", OURS, at="h2"), ping("eve", ANOTHER, at="h2")
    assert carried(fleet) == {"h1": {OURS}, "h2": set()}
    job = fleet.service.resize("web", "big", host="h2")
    began = time.time()
    done(fleet, job)
    fleet.guest.wait_report(boots=2)
    alice.wait(30)
    last, first = alice.longest_silence()
    assert last > began
    up = beside.first_after(last + 1)
    assert carried(fleet) == {"h1": {OURS}, "h2": {OURS}}
    done(fleet, fleet.service.confirm("web"))
    assert carried(fleet) == {"h1": set(), "h2": {OURS}}
    alice.wait(10)
    healthy(fleet)
    for pings in (alice, mallory, beside, eve):
        pings.stop()
    with capsys.disabled():
        print(
            f"\na peer in the machine's VLAN: {alice.sent} pings, {len(alice.answers)} answers, none for"
            f" {first - last:.1f} s; {first - up:+.2f} s after the first answer to a peer beside the machine;"
            f" peers in another VLAN: {mallory.sent + eve.sent} pings, {len(mallory.answers + eve.answers)} answers"
        )
    assert first - up < 1
    assert not mallory.answers
    assert not eve.answers
    assert min(mallory.sent, eve.sent) > 50


def test_a_machine_announces_itself_in_its_vlan(fleet: Fleet, ping: Pinging, tmp_path: Path) -> None:
    """As soon as its CPUs run, which is long before its system does; those in another VLAN do not hear it."""
    bring_another(fleet)
    heard = {}
    for name, vlan in (("alice", OURS), ("mallory", ANOTHER)):
        peer = ping(name, vlan).peer
        heard[name] = Announcements(peer, fleet.guest.mac, tmp_path / f"{name}.frames")
    job = fleet.service.resize("web", "big", host="h2")
    done(fleet, job)
    report = fleet.guest.wait_report(boots=2)
    for announcements in heard.values():
        announcements.stop()
    assert len(heard["alice"].times) >= 3
    assert heard["alice"].times[0] < report["time"]
    assert heard["mallory"].times == []
    assert "h2 announced where web is reached" in fleet.story(job)


def test_a_host_that_boots_has_forgotten_vlans(fleet: Fleet, ping: Pinging) -> None:
    """It starts the machine, which nobody reaches; the doctor finds that, and a worker puts it right."""
    fleet.lab.host("h1").virsh("autostart", "web")
    done(fleet, fleet.service.resize("web", "big", host="h2"))
    done(fleet, fleet.service.confirm("web"))
    fleet.guest.wait_report(boots=2)
    host = fleet.lab.host("h2")
    host.die()
    host.boot()
    alice = ping("alice", OURS)
    fleet.guest.wait_report(boots=3)
    assert not alice.answers
    connections = Connections()
    doctor = Doctor(fleet.database, fleet.settings, connections=connections)
    found = [breach.found for breach in doctor.examine().breaches]
    assert len(found) == 2
    assert "uplink0 of bridge br0 does not bring VLAN 10" in found
    assert any("is in VLAN none" in text for text in found)
    doctor.repair("root")
    connections.close()
    settle(fleet)
    alice.wait()
    healthy(fleet)


def test_a_revert_takes_the_vlan_from_the_destination(fleet: Fleet, ping: Pinging) -> None:
    alice, mallory = ping("alice", OURS), ping("mallory", ANOTHER)
    bring_another(fleet)
    done(fleet, fleet.service.resize("web", "big", host="h2"))
    done(fleet, fleet.service.revert("web"))
    assert carried(fleet) == {"h1": {OURS}, "h2": set()}
    alice.wait(timeout=90)
    assert not mallory.answers
    healthy(fleet)


CERTIFY = pytest.mark.certify


@pytest.mark.parametrize(
    ("point", "way"),
    [
        pytest.param("BindPorts.carry_vlan#1.before", "resume", marks=CERTIFY),
        pytest.param("BindPorts.carry_vlan#1.before", "rollback", marks=CERTIFY),
        pytest.param("BindPorts.carry_vlan#1.after", "resume", marks=CERTIFY),
        ("BindPorts.carry_vlan#1.after", "rollback"),
        ("StartDestination.set_access_vlan#1.before", "resume"),
        pytest.param("StartDestination.set_access_vlan#1.before", "rollback", marks=CERTIFY),
        pytest.param("StartDestination.set_access_vlan#1.after", "resume", marks=CERTIFY),
        ("StartDestination.set_access_vlan#1.after", "rollback"),
    ],
)
def test_resize_killed_at_an_effect_on_vlans(fleet: Fleet, ping: Pinging, point: str, way: str) -> None:
    bring_another(fleet)
    alice, mallory = ping("alice", OURS), ping("mallory", ANOTHER)
    alice.wait()
    job = fleet.service.resize("web", "big", host="h2")
    assert fleet.run_in_child(job, point) == KILLED, fleet.story(job)
    if way == "rollback":
        fleet.service.rollback(job.migration_id)
    done(fleet, job)
    if way == "rollback":
        assert fleet.migration(job).status is MigrationStatus.ERROR
        assert carried(fleet) == {"h1": {OURS}, "h2": set()}
        assert runs_only_on(fleet.guest, "h1")
    else:
        done(fleet, fleet.service.confirm("web"))
        assert carried(fleet) == {"h1": set(), "h2": {OURS}}
        assert runs_only_on(fleet.guest, "h2")
    alice.wait(timeout=90)
    assert not mallory.answers
    healthy(fleet)


@pytest.mark.parametrize(
    ("decision", "point"),
    [
        pytest.param("confirm", "RemoveSourceBindings.drop_vlan#1.before", marks=CERTIFY),
        ("confirm", "RemoveSourceBindings.drop_vlan#1.after"),
        pytest.param("revert", "StartSource.set_access_vlan#1.before", marks=CERTIFY),
        ("revert", "StartSource.set_access_vlan#1.after"),
        pytest.param("revert", "RemoveDestination.drop_vlan#1.before", marks=CERTIFY),
        pytest.param("revert", "RemoveDestination.drop_vlan#1.after", marks=CERTIFY),
    ],
)
def test_decision_killed_at_an_effect_on_vlans(fleet: Fleet, ping: Pinging, decision: str, point: str) -> None:
    bring_another(fleet)
    mallory = ping("mallory", ANOTHER)
    done(fleet, fleet.service.resize("web", "big", host="h2"))
    job = getattr(fleet.service, decision)("web")
    assert fleet.run_in_child(job, point) == KILLED, fleet.story(job)
    done(fleet, job)
    stays, other = ("h2", "h1") if decision == "confirm" else ("h1", "h2")
    assert carried(fleet) == {stays: {OURS}, other: set()}
    ping("alice", OURS).wait(timeout=90)
    assert not mallory.answers
    healthy(fleet)
