"""Bad input where a real libvirt has its say: one sentence, the exit code, nothing changed in tables or on hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.guest import DiskSpec, Guest
from lab.host import Host
from lab.lab import Lab
from resizeflow import errors
from resizeflow.errors import RuleError
from resizeflow.persistence import schema
from tests.console import Console, everything
from tests.fleet import Fleet

pytestmark = pytest.mark.lab

PCI_DEVICE = (
    "<hostdev mode='subsystem' type='pci' managed='yes'>"
    "<source><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source></hostdev>"
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Hosts of its own: these tests take them down."""
    lab = Lab("rf-input")
    lab.down()
    lab.up(hosts=2)
    yield lab
    lab.down()


@pytest.fixture
def fleet(lab: Lab, tmp_path: Path) -> Iterator[Fleet]:
    """Both hosts known, and the guest `web` on h1, not started and not adopted."""
    fleet = Fleet(tmp_path, lab, look_timeout="3")
    schema.require_current(fleet.database)
    for host in lab.hosts:
        fleet.inventory.add_host(host.name, host.uri, peer_uri=host.peer_uri)
    fleet.guest.create(lab.host("h1"), disks=[DiskSpec(1, "qcow2")], start=False)
    fleet.inventory.create_flavor("big", vcpus=2, memory_mb=384, root_gb=2)
    yield fleet
    fleet.clean()


@pytest.fixture
def console(fleet: Fleet) -> Console:
    return Console(fleet.folder / "resizeflow.conf")


def snapshot(host: Host, _guest: Guest) -> None:
    host.virsh("snapshot-create-as", "web", "before-upgrade")


def managed_save(host: Host, guest: Guest) -> None:
    guest.start(host)
    host.virsh("managedsave", "web")


def host_device(host: Host, _guest: Guest) -> None:
    host.virsh("attach-device", "web", "/dev/stdin", "--config", stdin=PCI_DEVICE)


def disk_elsewhere(host: Host, _guest: Guest) -> None:
    host.virsh("attach-disk", "web", "/srv/elsewhere/data.raw", "vdz", "--config")


def lost_disk(host: Host, _guest: Guest) -> None:
    for path in host.pool_path.iterdir():
        path.rename(path.with_suffix(".lost"))


@pytest.mark.parametrize(
    ("arrange", "told"),
    [
        (snapshot, "1 snapshot(s)"),
        (managed_save, "managed save"),
        (host_device, "host device"),
        (disk_elsewhere, "vdz (/srv/elsewhere/data.raw) is not in pool default"),
        (lost_disk, "is not in pool default of host h1, or the host cannot see it"),
    ],
)
def test_a_domain_that_cannot_be_moved(
    console: Console, fleet: Fleet, arrange: Callable[[Host, Guest], None], told: str
) -> None:
    arrange(fleet.lab.host("h1"), fleet.guest)
    before, rows = fleet.state(), everything(fleet)
    console.type("instance", "adopt", "h1", "web").refused(4, told)
    assert fleet.state() == before
    assert everything(fleet) == rows


def paused(host: Host, guest: Guest) -> None:
    guest.start(host)
    host.virsh("suspend", "web")


def undefined(host: Host, _guest: Guest) -> None:
    host.virsh("undefine", "web")


def two_numa_cells(host: Host, _guest: Guest) -> None:
    xml = host.virsh("dumpxml", "web", "--inactive").replace("<vcpu placement='static'>1<", "<vcpu>2<")
    cells = "".join(f"<cell id='{number}' cpus='{number}' memory='128' unit='MiB'/>" for number in (0, 1))
    host.virsh("define", "/dev/stdin", stdin=xml.replace("<devices>", f"<cpu><numa>{cells}</numa></cpu><devices>"))


@pytest.mark.parametrize(
    ("arrange", "error", "told"),
    [
        (paused, errors.InstanceInvalidState, "web is paused"),
        (undefined, errors.InstanceNotReady, "Host h1 has no domain web"),
        (two_numa_cells, errors.FlavorImageConflict, "2 NUMA cells"),
        (snapshot, errors.MigrationPreCheckError, "1 snapshot(s)"),
        (managed_save, errors.MigrationPreCheckError, "managed save"),
        (host_device, errors.MigrationPreCheckError, "host device"),
    ],
)
def test_a_machine_that_was_changed_after_its_adoption(
    console: Console, fleet: Fleet, arrange: Callable[[Host, Guest], None], error: type[RuleError], told: str
) -> None:
    assert console.type("instance", "adopt", "h1", "web").code == 0
    arrange(fleet.lab.host("h1"), fleet.guest)
    before, rows = fleet.state(), everything(fleet)
    console.type("resize", "web", "--flavor", "big").refused(4, told)
    with pytest.raises(error):
        fleet.service.resize("web", "big")
    assert fleet.state() == before
    assert everything(fleet) == rows


def test_no_way_between_the_hosts(console: Console, fleet: Fleet) -> None:
    """Found before the machine is touched: no URI by which the source reaches the destination, and no other way."""
    assert console.type("instance", "adopt", "h1", "web").code == 0
    with fleet.database.write() as tx:
        for host in tx.hosts.list():
            host.peer_uri = None
    config = fleet.folder / "resizeflow.conf"
    config.write_text(config.read_text().replace("[DEFAULT]\n", "[DEFAULT]\ntransfer = direct\n"))
    before, rows = fleet.state(), everything(fleet)
    console.type("migrate", "web").refused(4, "no peer URI")
    assert fleet.state() == before
    assert everything(fleet) == rows


def test_a_domain_is_adopted_twice(console: Console, fleet: Fleet) -> None:
    assert console.type("instance", "adopt", "h1", "web").code == 0
    before, rows = fleet.state(), everything(fleet)
    console.type("instance", "adopt", "h1", "web").refused(4, "managed already")
    console.type("instance", "adopt", "h1", fleet.guest.uuid).refused(4, "managed already")
    assert fleet.state() == before
    assert everything(fleet) == rows


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+nonsense://nowhere/system",
        "qemu+unix:///system?socket=/nowhere/libvirt-sock",
        "qemu+tcp://127.0.0.1:1/system",
        "not a uri",
    ],
)
def test_a_wrong_uri(console: Console, fleet: Fleet, uri: str) -> None:
    rows = everything(fleet)
    console.type("host", "add", "h3", uri).refused(4, "does not answer", "Check the URI")
    assert everything(fleet) == rows


def test_a_host_is_added_twice_or_with_a_pool_it_has_not(console: Console, fleet: Fleet) -> None:
    rows, host = everything(fleet), fleet.lab.host("h1")
    console.type("host", "add", "again", host.uri).refused(4, "is known as h1 already")
    console.type("host", "add", "again", host.uri, "--pool", "attic").refused(4, "attic")
    assert everything(fleet) == rows


@pytest.mark.parametrize("down", [Host.kill_libvirtd, Host.hang_libvirtd])
def test_a_host_is_down(console: Console, fleet: Fleet, down: Callable[[Host], None]) -> None:
    assert console.type("instance", "adopt", "h1", "web").code == 0
    rows = everything(fleet)
    for name in ("h2", "h1"):
        host = fleet.lab.host(name)
        down(host)
        try:
            console.type("resize", "web", "--flavor", "big", "--host", "h2").refused(4, name, "does not answer")
            console.type("instance", "adopt", name, "other").refused(4, name, "does not answer")
        finally:
            host.start_libvirtd()
    assert everything(fleet) == rows
