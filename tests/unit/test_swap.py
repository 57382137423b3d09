"""Swap: never copied, made anew at the flavor's size, and back as it was by a revert. Nova's swap tests, ported."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path

import pytest

from resizeflow.chaos.cloud import SWAP, SWAP_UUID, Cloud
from resizeflow.doctor import Doctor
from resizeflow.drivers.definition import read
from resizeflow.drivers.simulator.disks import swap_in
from resizeflow.drivers.swap import PAGE, Swap, write
from resizeflow.drivers.swap import read as read_page
from resizeflow.errors import FlavorImageConflict
from resizeflow.persistence.models import Disk
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from tests.console import Console

pytestmark = pytest.mark.slow

MIB = 2**20
HOSTS = pytest.mark.parametrize("host", ["h1", "h2"], ids=["same host", "another host"])
RUNS = pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])


def done(cloud: Cloud, job: Submitted) -> Submitted:
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    return job


def swap_disk(cloud: Cloud) -> Disk | None:
    """The machine's swap by the records."""
    with cloud.database.read() as tx:
        return next((disk for disk in tx.instances.get("web").disks if disk.role == "swap"), None)


def has_swap(cloud: Cloud, host: str, megabytes: int) -> bool:
    """Whether records, definition and file agree that the machine on a host has so much swap; 0 is none."""
    disk = swap_disk(cloud)
    if not megabytes:
        return disk is None and devices(cloud, host) == {"vda"}
    assert disk is not None
    seen = cloud.world.snapshot()["hosts"][host]["domains"][cloud.uuid]
    files = {found.device: (found.path, found.format) for found in read(seen["inactive"]).disks}
    swap = swap_in(cloud.world.content(host, disk.volume))
    assert swap is not None
    return (disk.capacity, swap.size, files[disk.device]) == (megabytes * MIB, megabytes * MIB, (disk.path, "raw"))


def devices(cloud: Cloud, host: str) -> set[str]:
    seen = cloud.world.snapshot()["hosts"][host]["domains"][cloud.uuid]
    return {disk.device for disk in read(seen["inactive"]).disks}


def volumes(cloud: Cloud, host: str) -> set[str]:
    return set(cloud.world.snapshot()["storages"][host])


def breaches(cloud: Cloud) -> list[str]:
    report = Doctor(cloud.database, cloud.settings, connections=cloud.connections).examine()
    return [str(breach) for breach in report.breaches]


# --- Nova's tests ----------------------------------------------------------------------------------------


def confirmed(folder: Path, connection: str | None, host: str, running: bool, sizes: tuple[int, int]) -> None:
    cloud = Cloud(folder, connection=connection).build(running=running, swap_mb=sizes)
    assert has_swap(cloud, "h1", sizes[0])
    done(cloud, cloud.service.resize("web", "big", host=host))
    assert has_swap(cloud, host, sizes[1])
    assert breaches(cloud) == []
    done(cloud, cloud.service.confirm("web"))
    assert has_swap(cloud, host, sizes[1])
    assert breaches(cloud) == []
    assert len(volumes(cloud, host)) == (2 if sizes[1] else 1)
    assert host == "h1" or volumes(cloud, "h1") == set()


def reverted(folder: Path, connection: str | None, host: str, running: bool, sizes: tuple[int, int]) -> None:
    cloud = Cloud(folder, connection=connection).build(running=running, swap_mb=sizes)
    files = volumes(cloud, "h1")
    done(cloud, cloud.service.resize("web", "big", host=host))
    assert has_swap(cloud, host, sizes[1])
    done(cloud, cloud.service.revert("web"))
    assert has_swap(cloud, "h1", sizes[0])
    assert (volumes(cloud, "h1"), volumes(cloud, "h2")) == (files, set())
    assert breaches(cloud) == []


@HOSTS
def test_swap_expand_0_to_0_confirm(memory_path: Path, host: str) -> None:
    confirmed(memory_path, None, host, True, (0, 0))


@HOSTS
def test_swap_expand_0_to_1024_confirm(memory_path: Path, thorough_connection: str | None, host: str) -> None:
    confirmed(memory_path, thorough_connection, host, True, (0, 1024))


@HOSTS
def test_swap_expand_0_to_1024_revert(memory_path: Path, host: str) -> None:
    reverted(memory_path, None, host, True, (0, 1024))


@HOSTS
@RUNS
def test_swap_expand_1024_to_2048_confirm(memory_path: Path, host: str, running: bool) -> None:
    confirmed(memory_path, None, host, running, (1024, 2048))


@HOSTS
@RUNS
def test_swap_expand_1024_to_2048_revert(memory_path: Path, host: str, running: bool) -> None:
    reverted(memory_path, None, host, running, (1024, 2048))


@HOSTS
def test_swap_expand_2048_to_2048_confirm(memory_path: Path, host: str) -> None:
    confirmed(memory_path, None, host, True, (2048, 2048))


@HOSTS
def test_swap_shrink_1024_to_0_confirm(memory_path: Path, host: str) -> None:
    confirmed(memory_path, None, host, True, (1024, 0))


@HOSTS
def test_swap_shrink_1024_to_0_revert(memory_path: Path, thorough_connection: str | None, host: str) -> None:
    reverted(memory_path, thorough_connection, host, True, (1024, 0))


@HOSTS
def test_swap_shrink_2048_to_1024_confirm(memory_path: Path, host: str) -> None:
    confirmed(memory_path, None, host, True, (2048, 1024))


@HOSTS
def test_swap_shrink_2048_to_1024_revert(memory_path: Path, host: str) -> None:
    reverted(memory_path, None, host, True, (2048, 1024))


# --- what beside its size matters ------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", ["direct", "stream"])
def test_swap_is_never_copied_and_is_called_as_before(memory_path: Path, transfer: str) -> None:
    """fstab names it by UUID or label; what it held is worth nothing."""
    cloud = Cloud(memory_path, transfer=transfer).build(swap_mb=(64, 128))
    job = done(cloud, cloud.service.resize("web", "big", host="h2"))
    disk = swap_disk(cloud)
    assert disk is not None
    words = cloud.world.content("h2", disk.volume).split()
    assert swap_in(words[0]) == Swap(SWAP_UUID, 128 * MIB, "swap")
    assert set(words[1:]) == {"run:h2"}
    moved = {row.device: row for row in cloud.migration(job).disks}
    assert moved["vda"].copied_at is not None and moved[SWAP].copied_at is None
    assert cloud.migration(job).bytes_total in {2**30, moved["vda"].source_allocation}


def test_new_swap_has_an_identity_that_stays(memory_path: Path) -> None:
    """The machine's own, so that a retry makes the same; and it stays through later moves."""
    cloud = Cloud(memory_path).build(swap_mb=(0, 64))
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    done(cloud, cloud.service.confirm("web"))
    disk = swap_disk(cloud)
    assert disk is not None and disk.device == "vdb"
    first = swap_in(cloud.world.content("h2", disk.volume))
    assert first == Swap(str(uuid.uuid5(uuid.UUID(cloud.uuid), "vdb")), 64 * MIB)
    done(cloud, cloud.service.migrate("web", host="h1"))
    moved = swap_disk(cloud)
    assert moved is not None and swap_in(cloud.world.content("h1", moved.volume)) == first


def test_a_cold_migration_keeps_the_size_of_swap(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(swap_mb=(64, 128))
    done(cloud, cloud.service.migrate("web", host="h2"))
    assert has_swap(cloud, "h2", 64)
    done(cloud, cloud.service.revert("web"))
    assert has_swap(cloud, "h1", 64)


def test_swap_of_an_odd_size_is_covered_in_whole_pages(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build()
    path = cloud.world.create_volume("h1", "odd.raw", 10 * MIB + 513, "made:odd")
    disk = (
        f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{path}'/>"
        "<target dev='vdb' bus='virtio'/></disk>"
    )
    cloud.world.create_guest("h1", "odd", 1, 512, {"vda": 1}, devices=disk)
    assert cloud.inventory.adopt("h1", "odd", swap="vdb").flavor.swap_mb == 11
    job = done(cloud, cloud.service.migrate("odd", host="h2"))
    moved = next(row for row in cloud.migration(job).disks if row.role == "swap")
    assert moved.new_capacity == 10 * MIB + 513
    swap = swap_in(cloud.world.content("h2", moved.dest_volume or ""))
    assert swap is not None and swap.size == 10 * MIB
    assert breaches(cloud) == []


def test_swap_without_a_signature_gets_one(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(disks=("vda", "vdb"))
    cloud.inventory.create_flavor("swapped", vcpus=1, memory_mb=512, root_gb=1, swap_mb=512)
    cloud.service.remove("web")
    adopted = cloud.inventory.adopt("h1", "web", swap="vdb")
    assert (adopted.flavor.swap_mb, adopted.flavor.ephemeral_gb) == (1024, 0)
    done(cloud, cloud.service.resize("web", "swapped", host="h2"))
    assert has_swap(cloud, "h2", 512)


@pytest.mark.parametrize(("device", "told"), [("vda", "no disk vda that could be"), ("vdz", "no disk vdz that could")])
def test_what_cannot_be_swap_is_refused(memory_path: Path, device: str, told: str) -> None:
    cloud = Cloud(memory_path).build()
    cloud.service.remove("web")
    before = cloud.state()
    Console(cloud.folder / "resizeflow.conf").type("instance", "adopt", "h1", "web", "--swap", device).refused(4, told)
    assert cloud.state() == before


def test_the_plan_tells_what_becomes_of_swap(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(swap_mb=(64, 128))
    cloud.inventory.create_flavor("without", vcpus=1, memory_mb=512, root_gb=1)
    console = Console(cloud.folder / "resizeflow.conf")
    for flavor, way, size in (("big", "made anew", 128 * MIB), ("without", "removed", 0)):
        words = ("resize", "web", "--flavor", flavor, "--host", "h2", "--dry-run")
        plan = console.ask(*words)
        disks = {disk["device"]: disk for disk in plan["disks"]}
        assert (disks[SWAP]["way"], disks[SWAP]["new_capacity"], disks[SWAP]["bytes_to_move"]) == (way, size, 0)
        assert plan["bytes_to_move"] == disks["vda"]["bytes_to_move"] > 0
        assert f"{SWAP} (swap)" in console.type(*words).out


def test_the_plan_tells_of_swap_that_is_added(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(swap_mb=(0, 64))
    disk = cloud.service.plan("web", "big", host="h1").disks[-1]
    assert (disk.device, disk.role, disk.way, disk.new_capacity) == ("vdb", "swap", "made anew", 64 * MIB)
    assert cloud.service.plan("web", "big", host="h1").bytes_to_move == 0


@HOSTS
def test_a_pool_without_room_for_the_swap_is_refused(memory_path: Path, host: str) -> None:
    cloud = Cloud(memory_path).build(swap_mb=(0, 1024))
    cloud.world.set_free_bytes(host, 900 * MIB)
    before = cloud.state()
    console = Console(cloud.folder / "resizeflow.conf")
    console.type("resize", "web", "--flavor", "big", "--host", host, "--detach").refused(4, "900 MiB free")
    assert cloud.state() == before


def test_old_swap_needs_no_room_at_the_destination(memory_path: Path) -> None:
    """1 GiB of swap, all written, shrinks to 64 MiB: only the rest is copied."""
    cloud = Cloud(memory_path).build(swap_mb=(1024, 64))
    cloud.world.set_free_bytes("h2", 300 * MIB)
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    assert has_swap(cloud, "h2", 64)


def test_a_hibernated_guest_is_not_moved(memory_path: Path) -> None:
    """Its memory is in its swap."""
    cloud = Cloud(memory_path).build(swap_mb=(64, 128), running=False)
    world = sqlite3.connect(cloud.world.path)
    world.execute("UPDATE volumes SET content = replace(content, 'swap:', 'hibernated:')")
    world.commit()
    world.close()
    before = cloud.state()
    job = done(cloud, cloud.service.resize("web", "big", host="h2"))
    assert cloud.migration(job).status is MigrationStatus.ERROR
    assert f"web is suspended to its swap disk {SWAP}" in cloud.story(job)
    assert cloud.state(job) == before


def test_a_machine_without_room_for_another_disk_is_refused(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(disks=("hda", "hdb", "hdc", "hdd"), swap_mb=(0, 64))
    before = cloud.state()
    with pytest.raises(FlavorImageConflict, match="no room for another disk beside hda"):
        cloud.service.plan("web", "big")
    assert cloud.state() == before


def test_half_made_swap_is_made_again(memory_path: Path) -> None:
    """Killed between the file and its signature: the next run finishes it."""
    cloud = Cloud(memory_path).build(swap_mb=(0, 64), running=False)
    job = cloud.service.resize("web", "big", host="h2")
    cloud.run_in_child(job, "TransferDisks.make_swap#1.checked")
    assert swap_disk(cloud) is None
    done(cloud, job)
    assert has_swap(cloud, "h2", 64)


def test_a_rollback_leaves_no_swap_behind(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(swap_mb=(64, 128), running=False)
    before = cloud.state()
    job = cloud.service.resize("web", "big", host="h1")
    cloud.run_in_child(job, "DefineDestination.define#1.after")
    cloud.service.rollback(job.migration_id)
    done(cloud, job)
    assert cloud.state(job) == before


def test_the_doctor_sees_swap_that_is_not_the_flavors(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(swap_mb=(64, 128))
    with cloud.database.write() as tx:
        tx.flavors.get(tx.instances.get("web").flavor.name).swap_mb = 128
    assert any("64 MiB of swap disk" in told and "128 MiB" in told for told in breaches(cloud))


def test_the_doctor_finds_old_swap_that_stayed(memory_path: Path) -> None:
    """On the same host too, where a confirm leaves all other old disks in use."""
    cloud = Cloud(memory_path).build(swap_mb=(64, 128), running=False)
    done(cloud, cloud.service.resize("web", "big", host="h1"))
    done(cloud, cloud.service.confirm("web"))
    assert breaches(cloud) == []
    cloud.world.create_volume("h1", f"web-{SWAP}.raw", 64 * MIB, "left")
    assert [f"web-{SWAP}.raw" in told and "confirmed" in told for told in breaches(cloud)] == [True]


def test_a_machine_that_is_no_longer_managed_keeps_its_swap(memory_path: Path) -> None:
    """Its file carries a migration's id, but is nobody's leftover."""
    cloud = Cloud(memory_path).build(swap_mb=(64, 128), running=False)
    done(cloud, cloud.service.resize("web", "big", host="h1"))
    done(cloud, cloud.service.confirm("web"))
    cloud.service.remove("web")
    connection = cloud.connections.to(cloud.world.uri("h1"))
    connection.open(5)
    connection.call("undefine", (cloud.uuid,), timeout=5)
    assert breaches(cloud) == []


# --- the signature ---------------------------------------------------------------------------------------


def test_the_signature_is_that_of_mkswap() -> None:
    """The page that `mkswap -U 6f1e2d3c-0000-4000-8000-00000000005a -L swappy` writes into 64 MiB."""
    page = write(Swap(SWAP_UUID, 64 * MIB, "swappy"))
    assert len(page) == PAGE
    header = (1).to_bytes(4, "little") + (16383).to_bytes(4, "little") + bytes(4) + uuid.UUID(SWAP_UUID).bytes
    assert page == bytes(1024) + header + b"swappy".ljust(16, b"\0") + bytes(PAGE - 1068 - 10) + b"SWAPSPACE2"


@pytest.mark.parametrize("label", ["", "swap", "a label", "sixteen letters!", "größe"])
def test_a_signature_reads_back(label: str) -> None:
    swap = Swap(SWAP_UUID, 10 * MIB, label)
    assert read_page(write(swap)) == swap


def test_a_hibernated_guest_is_known_by_its_swap() -> None:
    """Linux puts its own word at the place of mkswap's (kernel/power/swap.c)."""
    page = write(Swap(SWAP_UUID, MIB))[:-10] + b"S1SUSPEND\0"
    assert read_page(page) == Swap(SWAP_UUID, MIB, hibernated=True)


@pytest.mark.parametrize("page", [b"", bytes(PAGE), b"SWAPSPACE2".rjust(PAGE - 1), b"SWAP-SPACE".rjust(PAGE, b"\0")])
def test_what_is_no_signature(page: bytes) -> None:
    assert read_page(page) is None
