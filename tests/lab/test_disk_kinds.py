"""Swap and the config drive on real hosts: the guest's kernel takes its swap, the host's tools know it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.guest import DiskSpec
from lab.lab import Lab
from resizeflow.service import Submitted
from resizeflow.states import JobState
from tests.fleet import Fleet
from tests.lab import checks

pytestmark = pytest.mark.lab

MIB = 1024**2
PAGE = 4096
SWAP_UUID = "6f1e2d3c-0000-4000-8000-00000000005a"
Maker = Callable[..., Fleet]


@pytest.fixture
def make(lab: Lab, tmp_path: Path) -> Iterator[Maker]:
    """Makes the machine `web` with a root disk, swap of `swap_mb[0]` MiB (vdb) and, if asked, a config drive (sda);
    flavor `big` has swap of `swap_mb[1]`."""
    made: list[Fleet] = []

    def build(
        *, swap_mb: tuple[int, int], swap_format: str = "raw", config_drive: bool = False, **settings: str
    ) -> Fleet:
        fleet = Fleet(tmp_path, lab, **settings)
        made.append(fleet)
        fleet.know_hosts()
        host = lab.host("h1")
        fleet.guest.create(host, vcpus=1, memory_mb=256, disks=[DiskSpec(1, "qcow2")], start=False)
        if swap_mb[0]:
            image = _swap_image(host.pool_path / f"web-vdb.{swap_format}", swap_mb[0])
            host.virsh("pool-refresh", host.pool)
            host.virsh("attach-disk", "web", str(image), "vdb", "--subdriver", swap_format, "--config")
        if config_drive:
            image = host.pool_path / "web-config.iso"
            image.write_bytes(ISO)
            host.virsh("pool-refresh", host.pool)
            drive = ("--type", "cdrom", "--targetbus", "sata", "--mode", "readonly", "--config")
            host.virsh("attach-disk", "web", str(image), "sda", *drive)
        fleet.guest.start(host)
        fleet.guest.wait_report(boots=1)
        fleet.uuid = fleet.guest.uuid
        fleet.inventory.adopt("h1", "web", swap="vdb" if swap_mb[0] else None)
        fleet.inventory.create_flavor("big", vcpus=2, memory_mb=384, root_gb=2, swap_mb=swap_mb[1])
        return fleet

    yield build
    for fleet in made:
        fleet.clean()


ISO = (b"\1CD001\1".rjust(16 * 2048 + 7, b"\0") + b"config-2").ljust(374 * 1024, b"\7")
"""What libvirt takes for a CD's image."""


def _swap_image(path: Path, megabytes: int) -> Path:
    """As an operator makes one, with mkswap(8); a qcow2 image is made of it."""
    raw = path.with_suffix(".mkswap")
    raw.write_bytes(bytes(megabytes * MIB))
    raw.chmod(0o600)
    subprocess.run(["mkswap", "-U", SWAP_UUID, "-L", "swap", raw], check=True, capture_output=True)
    target = "qcow2" if path.suffix == ".qcow2" else "raw"
    subprocess.run(["qemu-img", "convert", "-O", target, raw, path], check=True)
    raw.unlink()
    return path


def done(fleet: Fleet, job: Submitted) -> Submitted:
    assert fleet.run(job) is JobState.DONE, fleet.story(job)
    return job


def has_swap(fleet: Fleet, host: str, boots: int, megabytes: int) -> None:
    """The guest's kernel uses so much; the host's blkid finds the signature in the file."""
    report = fleet.guest.wait_report(boots=boots)
    assert report["host"] == host and report["checksum_ok"], report
    assert report["disks"].get("vdb", 0) == megabytes * MIB
    assert report["swap"] == ({"vdb": megabytes * MIB - PAGE} if megabytes else {})
    with fleet.database.read() as tx:
        swap = [disk for disk in tx.instances.get("web").disks if disk.role == "swap"]
    assert [disk.capacity for disk in swap] == ([megabytes * MIB] if megabytes else [])
    if swap:
        path = fleet.lab.host(host).pool_path / swap[0].volume
        if swap[0].format == "raw":
            found = subprocess.run(["blkid", "-p", "-o", "export", path], check=True, capture_output=True, text=True)
            words = dict(line.split("=", 1) for line in found.stdout.splitlines())
            assert (words["TYPE"], words["VERSION"]) == ("swap", "1")
    checks.healthy(fleet)


def identity(fleet: Fleet, host: str) -> tuple[str, str]:
    """UUID and label of the machine's swap, by swaplabel(8)."""
    with fleet.database.read() as tx:
        swap = next(disk for disk in tx.instances.get("web").disks if disk.role == "swap")
    path = fleet.lab.host(host).pool_path / swap.volume
    told = subprocess.run(["swaplabel", path], check=True, capture_output=True, text=True).stdout
    words = dict(line.split(":", 1) for line in told.splitlines())
    return words["UUID"].strip(), words.get("LABEL", "").strip()


def files(fleet: Fleet, host: str) -> list[str]:
    return sorted(path.name for path in fleet.lab.host(host).pool_path.iterdir())


def test_swap_is_added_and_removed_by_a_revert(make: Maker) -> None:
    fleet = make(swap_mb=(0, 64))
    state, before = fleet.state(), fleet.guest.wait_report()
    done(fleet, fleet.service.resize("web", "big", host="h2"))
    has_swap(fleet, "h2", 2, 64)
    revert = done(fleet, fleet.service.revert("web"))
    checks.is_as_before(fleet, revert, state, before)
    checks.nothing_left_on(fleet, "h2")


@pytest.mark.parametrize("swap_format", [pytest.param("raw", marks=pytest.mark.certify), "qcow2"])
def test_swap_grows_and_is_called_as_before(make: Maker, swap_format: str) -> None:
    """Beside a config drive; once the hosts move the disks, once the worker."""
    transfer = "direct" if swap_format == "raw" else "stream"
    fleet = make(swap_mb=(64, 128), swap_format=swap_format, config_drive=True, transfer=transfer)
    has_swap(fleet, "h1", 1, 64)
    done(fleet, fleet.service.resize("web", "big", host="h2"))
    has_swap(fleet, "h2", 2, 128)
    assert identity(fleet, "h2") == (SWAP_UUID, "swap")
    done(fleet, fleet.service.confirm("web"))
    checks.nothing_left_on(fleet, "h1")
    checks.healthy(fleet)
    with fleet.database.read() as tx:
        drive = next(disk for disk in tx.instances.get("web").disks if disk.role == "config")
    assert (fleet.lab.host("h2").pool_path / drive.volume).read_bytes() == ISO
    listed = fleet.lab.host("h2").virsh("domblklist", "web", "--details", "--inactive")
    assert any(line.split()[1:4] == ["cdrom", "sda", drive.path] for line in listed.splitlines()[2:])


@pytest.mark.parametrize("decision", ["confirm", pytest.param("revert", marks=pytest.mark.certify)])
def test_swap_goes_on_the_same_host_and_the_config_drive_stays(make: Maker, decision: str) -> None:
    fleet = make(swap_mb=(64, 0), config_drive=True)
    host, state, before = fleet.lab.host("h1"), fleet.state(), fleet.guest.wait_report()
    done(fleet, fleet.service.resize("web", "big", host="h1"))
    has_swap(fleet, "h1", 2, 0)
    job = done(fleet, getattr(fleet.service, decision)("web"))
    if decision == "confirm":
        assert files(fleet, "h1") == ["web-config.iso", "web-vda.qcow2"]
        checks.healthy(fleet)
    else:
        checks.is_as_before(fleet, job, state, before)
    assert (host.pool_path / "web-config.iso").read_bytes() == ISO
