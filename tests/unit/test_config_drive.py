"""The config drive: a small image in the pool that goes along as it is, and stays where the machine stays. And the
other disks: several ephemerals, of which the first one grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from resizeflow.chaos.cloud import CONFIG_DRIVE, Cloud
from resizeflow.doctor import Doctor
from resizeflow.drivers.definition import Disk, read
from resizeflow.persistence import models
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.console import Console

pytestmark = pytest.mark.slow

GIB = 2**30
ISO = "web-config.iso"


def done(cloud: Cloud, job: Submitted) -> Submitted:
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    return job


def drive(cloud: Cloud, host: str) -> Disk:
    """The config drive in the machine's definition on a host."""
    seen = cloud.world.snapshot()["hosts"][host]["domains"][cloud.uuid]
    return next(disk for disk in read(seen["inactive"]).disks if disk.device == CONFIG_DRIVE)


def record(cloud: Cloud) -> models.Disk:
    with cloud.database.read() as tx:
        return next(disk for disk in tx.instances.get("web").disks if disk.role == "config")


def volumes(cloud: Cloud, host: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.world.snapshot()["storages"][host]
    return found


def healthy(cloud: Cloud) -> bool:
    return not Doctor(cloud.database, cloud.settings, connections=cloud.connections).examine().breaches


# --- the config drive goes along -------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", ["direct", "stream"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_it_is_copied_as_it_is(memory_path: Path, transfer: str, running: bool) -> None:
    cloud = Cloud(memory_path, transfer=transfer).build(running=running, config_drive=True)
    before = drive(cloud, "h1")
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    there = drive(cloud, "h2")
    assert (there.kind, there.readonly, there.format) == (before.kind, before.readonly, before.format)
    row = record(cloud)
    assert (row.path, row.capacity, row.format) == (there.path, 2**19, "raw")
    copy = volumes(cloud, "h2")[row.volume]
    assert (copy["capacity"], copy["format"], copy["backing"], copy["content"]) == (2**19, "raw", None, "config")
    assert ISO in volumes(cloud, "h1") and healthy(cloud)
    done(cloud, cloud.service.confirm("web"))
    assert volumes(cloud, "h1") == {} and row.volume in volumes(cloud, "h2") and healthy(cloud)


def test_it_comes_back_with_a_revert(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(config_drive=True)
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    done(cloud, cloud.service.revert("web"))
    assert volumes(cloud, "h2") == {} and healthy(cloud)
    assert record(cloud).volume == ISO and drive(cloud, "h1").path == record(cloud).path


@pytest.mark.parametrize("decision", ["confirm", "revert"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_on_the_same_host_it_is_the_same_file(memory_path: Path, decision: str, running: bool) -> None:
    cloud = Cloud(memory_path).build(running=running, config_drive=True)
    before = drive(cloud, "h1")
    job = done(cloud, cloud.service.resize("web", "big", host="h1"))
    assert [disk.device for disk in cloud.migration(job).disks] == ["vda"]
    assert drive(cloud, "h1") == before and healthy(cloud)
    done(cloud, getattr(cloud.service, decision)("web"))
    assert drive(cloud, "h1") == before and healthy(cloud)
    assert volumes(cloud, "h1")[ISO]["content"] == "config" and len(volumes(cloud, "h1")) == 2


def test_it_counts_for_no_quota_and_no_flavor(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(config_drive=True)
    with cloud.database.read() as tx:
        flavor = tx.instances.get("web").flavor
        assert (flavor.root_gb, flavor.ephemeral_gb, flavor.swap_mb) == (1, 0, 0)
    gigabytes = next(quota for quota in cloud.inventory.quotas("default") if quota.resource == "gigabytes")
    assert gigabytes.in_use == 1


def test_the_plan_tells_what_becomes_of_it(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(config_drive=True)
    for host, way in (("h1", "kept"), ("h2", "host to host")):
        ways = {disk.role: disk.way for disk in cloud.service.plan("web", "big", host=host).disks}
        assert ways["config"] == way


def test_an_ejected_one_is_found_before_the_machine_is_powered_off(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(config_drive=True)
    _eject(cloud)
    effects = len(cloud.world.effects())
    job = done(cloud, cloud.service.resize("web", "big", host="h2"))
    assert cloud.migration(job).status is MigrationStatus.ERROR
    assert f"has no disk {CONFIG_DRIVE}" in cloud.story(job)
    assert len(cloud.world.effects()) == effects and cloud.world.running(cloud.uuid) == ("h1",)


def test_a_cd_that_was_inserted_later_is_found_before_the_machine_is_powered_off(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(config_drive=True)
    with cloud.database.write() as tx:
        row = tx.instances.get("web")
        row.disks.remove(next(disk for disk in row.disks if disk.role == "config"))
    job = done(cloud, cloud.service.resize("web", "big", host="h2"))
    assert cloud.migration(job).status is MigrationStatus.ERROR
    assert "inserted" in cloud.story(job) and cloud.world.running(cloud.uuid) == ("h1",)
    same = done(cloud, cloud.service.resize("web", "big", host="h1"))
    assert cloud.migration(same).status is MigrationStatus.FINISHED


def _eject(cloud: Cloud) -> None:
    """As `virsh change-media --eject --config` does it."""
    connection = cloud.connections.to(cloud.world.uri("h1"))
    connection.open(5)
    root = etree.fromstring(connection.call("definition_with_secrets", (cloud.uuid,), timeout=5))
    for disk in root.findall("devices/disk[@device='cdrom']"):
        disk.remove(disk.findall("source")[0])
    connection.call("define", (etree.tostring(root, encoding="unicode"),), timeout=5)


# --- what is no config drive -----------------------------------------------------------------------------


def cdrom(path: str) -> str:
    return (
        f"<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{path}'/>"
        "<target dev='sda' bus='sata'/><readonly/></disk>"
    )


def adopting(cloud: Cloud, devices: str) -> Any:
    cloud.world.create_guest("h1", "other", 1, 512, {"vda": 1}, running=False, devices=devices)
    return Console(cloud.folder / "resizeflow.conf").type("instance", "adopt", "h1", "other")


def test_one_outside_the_pool_is_refused(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build()
    adopting(cloud, cdrom("/srv/iso/rescue.iso")).refused(4, "/srv/iso/rescue.iso inserted", "eject it")


def test_one_that_is_too_large_is_refused(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build()
    path = cloud.world.create_volume("h1", "debian.iso", 600 * 2**20, "debian")
    adopting(cloud, cdrom(path)).refused(4, "more than 64 MiB", "eject it")


def test_one_that_another_machine_has_too_is_refused(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build()
    path = cloud.world.create_volume("h1", "shared.iso", 2**19, "shared")
    cloud.world.create_guest("h1", "first", 1, 512, {"vda": 1}, running=False, devices=cdrom(path))
    adopting(cloud, cdrom(path)).refused(4, "shared.iso", "another domain's as well")


def test_a_small_disk_that_cannot_be_written_is_one_too(memory_path: Path) -> None:
    """Nova's config drive on vfat is a disk."""
    cloud = Cloud(memory_path).build()
    path = cloud.world.create_volume("h1", "vfat.img", 64 * 2**20, "vfat")
    xml = cdrom(path).replace("cdrom", "disk").replace("sda", "vdb").replace("sata", "virtio")
    cloud.world.create_guest("h1", "other", 1, 512, {"vda": 1}, running=False, devices=xml)
    adopted = cloud.inventory.adopt("h1", "other")
    with cloud.database.read() as tx:
        disks = {disk.device: disk.role for disk in tx.instances.get(adopted.id).disks}
    assert disks == {"vda": "root", "vdb": "config"}
    job = done(cloud, cloud.service.resize("other", "big", host="h2"))
    moved = {disk.device: disk for disk in cloud.migration(job).disks}
    assert moved["vdb"].new_capacity == 64 * 2**20 and healthy(cloud)


# --- ephemeral disks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["h1", "h2"], ids=["same host", "another host"])
@pytest.mark.parametrize("decision", ["confirm", "revert"])
def test_the_first_ephemeral_disk_grows_by_what_the_flavor_has_more(
    memory_path: Path, host: str, decision: str
) -> None:
    """Nova leaves it as it was: bug 1558880."""
    cloud = Cloud(memory_path).build(disks=("vda", "vdb", "vdc"))
    cloud.inventory.create_flavor("wide", vcpus=1, memory_mb=512, root_gb=1, ephemeral_gb=5)
    job = done(cloud, cloud.service.resize("web", "wide", host=host))
    assert [disk.new_capacity for disk in cloud.migration(job).disks] == [GIB, 4 * GIB, GIB]
    assert sizes(cloud, host) == {"vda": GIB, "vdb": 4 * GIB, "vdc": GIB} and healthy(cloud)
    done(cloud, getattr(cloud.service, decision)("web"))
    expected = {"vda": GIB, "vdb": (4 if decision == "confirm" else 1) * GIB, "vdc": GIB}
    assert sizes(cloud, host if decision == "confirm" else "h1") == expected and healthy(cloud)


def sizes(cloud: Cloud, host: str) -> dict[str, int]:
    """What the guest's disks have, by the files that its definition names."""
    seen = cloud.world.snapshot()["hosts"][host]["domains"][cloud.uuid]
    by_path = {disk.device: Path(disk.path or "").name for disk in read(seen["inactive"]).disks}
    return {device: volumes(cloud, host)[name]["capacity"] for device, name in by_path.items()}
