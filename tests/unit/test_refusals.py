"""Bad input: one clear sentence, the documented exit code, no traceback, and nothing changed in any table."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud
from tests.console import Console, everything

HOST_DEVICE = (
    "<hostdev mode='subsystem' type='pci' managed='yes'>"
    "<source><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source></hostdev>"
)
ELSEWHERE = (
    "<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
    "<source file='/srv/elsewhere/data.raw'/><target dev='vdz' bus='virtio'/></disk>"
)
CDROM = "<disk type='file' device='cdrom'><source file='/srv/iso/rescue.iso'/><target dev='sda' bus='sata'/></disk>"


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build()


@pytest.fixture
def console(cloud: Cloud) -> Console:
    console = Console(cloud.folder / "resizeflow.conf")
    for name, vcpus, ram, disk in (("flat", 2, 1024, 0), ("huge", 2, 10**6, 1), ("twin", 1, 512, 1)):
        cloud.inventory.create_flavor(name, vcpus=vcpus, memory_mb=ram, root_gb=disk)
    return console


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("resize nobody --flavor big", 2, "no managed instance 'nobody'"),
        ("resize web --flavor none", 2, "no flavor 'none'"),
        ("resize web --flavor big --host h9", 2, "no host 'h9'"),
        ("resize web --flavor flat", 4, "a disk cannot shrink"),
        ("resize web --flavor adopted-1-512-1-0", 4, "has flavor adopted-1-512-1-0 already"),
        ("resize web --flavor huge", 4, "h2: memory: needs 1000000 MiB, has 15872 MiB"),
        ("migrate web --host h1", 4, "is on host h1 already"),
        ("migrate nobody", 2, "no managed instance"),
        ("confirm web", 4, "has not been resized"),
        ("revert web", 4, "has not been resized"),
        ("confirm nobody", 2, "no managed instance"),
        ("migration show 1234", 2, "no migration '1234'"),
        ("migration history 1234", 2, "no migration"),
        ("migration watch 1234", 2, "no migration"),
        ("migration resume 1234", 2, "no migration"),
        ("migration rollback 1234", 2, "no migration"),
        ("migration list --instance nobody", 2, "no managed instance"),
        ("instance show nobody", 2, "no managed instance"),
        ("instance lock nobody", 2, "no managed instance"),
        ("instance remove nobody", 2, "no managed instance"),
        ("instance adopt h9 web", 2, "no host 'h9'"),
        ("instance adopt h1 nobody", 2, "has no domain 'nobody'"),
        ("instance adopt h1 web", 4, "managed already"),
        ("host show h9", 2, "no host"),
        ("host set h9 --disable", 2, "no host"),
        ("host drain h9", 2, "no host"),
        ("host remove h9", 2, "no host"),
        ("host remove h1", 4, "has managed instances: web"),
        ("host add h3 qemu+nonsense://nowhere/system", 4, "Check the URI"),
        ("host add h3 sim:///nowhere/world?host=h3", 4, "Check the URI"),
        ("host add h1 sim:///nowhere/world?host=h1", 4, "There is a host 'h1' already"),
        ("flavor show none", 2, "no flavor"),
        ("flavor delete none", 2, "no flavor"),
        ("flavor create big --vcpus 1 --ram 1 --disk 1", 4, "There is a flavor 'big' already"),
        ("flavor create nil --vcpus 0 --ram 1 --disk 1", 2, "at least 1 vCPU"),
        ("quota set default", 2, "Nothing to set"),
        ("quota set default --cores -7", 2, "-1 or more"),
    ],
)
def test_refused(console: Console, cloud: Cloud, words: str, code: int, told: str) -> None:
    before, world = everything(cloud), cloud.world.snapshot()
    console.type(*words.split()).refused(code, told)
    assert everything(cloud) == before
    assert cloud.world.snapshot() == world


def test_a_host_is_added_twice(console: Console, cloud: Cloud) -> None:
    before = everything(cloud)
    console.type("host", "add", "again", cloud.world.uri("h1")).refused(4, "is known as h1 already")
    console.type("host", "add", "h3", cloud.world.uri("h1"), "--pool", "attic").refused(4, "attic")
    assert everything(cloud) == before


def test_a_host_is_down(console: Console, cloud: Cloud) -> None:
    before = everything(cloud)
    cloud.world.set_up("h2", False)
    console.type("resize", "web", "--flavor", "big", "--host", "h2").refused(4, "h2", "does not answer")
    console.type("migrate", "web", "--dry-run").refused(4, "h2", "does not answer")
    console.type("instance", "adopt", "h2", "web").refused(4, "h2", "does not answer")
    cloud.world.set_up("h1", False)
    console.type("resize", "web", "--flavor", "big").refused(4, "h1", "does not answer", "Nothing was changed")
    console.type("host", "add", "h3", cloud.world.uri("h2")).refused(4, "does not answer")
    assert everything(cloud) == before


def test_a_pool_is_full(console: Console, cloud: Cloud) -> None:
    before = everything(cloud)
    cloud.world.set_free_bytes("h2", 2**20)
    console.type("resize", "web", "--flavor", "big", "--host", "h2").refused(4, "1 MiB free")
    assert everything(cloud) == before


def test_the_quota_is_exceeded(console: Console, cloud: Cloud) -> None:
    assert console.type("quota", "set", "default", "--cores", "1").code == 0
    cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1})
    before = everything(cloud)
    console.type("resize", "web", "--flavor", "big").refused(4, "Quota exceeded for cores: Requested 1")
    console.type("resize", "web", "--flavor", "big", "--dry-run").refused(4, "Quota exceeded for cores")
    console.type("instance", "adopt", "h1", "db").refused(4, "Quota exceeded for cores")
    assert everything(cloud) == before


def test_the_instance_is_busy(console: Console, cloud: Cloud) -> None:
    migration = console.ask("resize", "web", "--flavor", "big", "--detach")["migration"]
    before = everything(cloud)
    for words in ("resize web --flavor twin", "migrate web", "confirm web", "revert web", "instance remove web"):
        console.type(*words.split()).refused(4, "web")
    assert everything(cloud) == before
    assert console.type("worker", "--drain").code == 0
    before = everything(cloud)
    console.type("resize", "web", "--flavor", "twin").refused(4, "confirm or revert first")
    console.type("migration", "resume", migration).refused(4, "no job of it is left")
    console.type("migration", "rollback", migration).refused(4, "no job of it is left")
    assert everything(cloud) == before


@pytest.mark.parametrize(
    ("devices", "state", "told"),
    [
        ("", {"snapshots": 2}, "2 snapshot(s)"),
        ("", {"managed_save": True}, "managed save"),
        (HOST_DEVICE, {}, "host device"),
        (ELSEWHERE, {}, "vdz (/srv/elsewhere/data.raw) is not in pool default"),
        (CDROM, {}, "eject it"),
    ],
)
def test_a_domain_that_cannot_be_moved(
    console: Console, cloud: Cloud, devices: str, state: dict[str, int], told: str
) -> None:
    uuid = cloud.world.create_guest("h1", "odd", 1, 256, {"vda": 1}, running=False, devices=devices)
    cloud.world.set_domain("h1", uuid, **state)  # type: ignore[arg-type]
    before, world = everything(cloud), cloud.world.snapshot()
    console.type("instance", "adopt", "h1", "odd").refused(4, told)
    assert everything(cloud) == before
    assert cloud.world.snapshot() == world


def test_a_snapshot_made_after_the_adoption(console: Console, cloud: Cloud) -> None:
    cloud.world.set_domain("h1", cloud.uuid, snapshots=1)
    before = everything(cloud)
    console.type("resize", "web", "--flavor", "big").refused(4, "1 snapshot(s)")
    assert everything(cloud) == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "missing.conf"),
        (b"[DEFAULT]\ntransfer = carrier pigeon\n", "transfer"),
        (b"[worker]\nlease_seconds = soon\n", "lease_seconds"),
        (b"[worker]\nlease_seconds = 10\nact_timeout = 30\n", "too short"),
        (b"no section\n", "resizeflow.conf"),
        (b"\xff\xfe\x00\x01", "resizeflow.conf"),
        (b"[database]\nconnection = over the hills\n", "not an SQLAlchemy URL"),
        (b"[database]\nconnection = postgresql://nobody:secret@127.0.0.1:1/none\n", "cannot be opened"),
        (b"[database]\nconnection = nosuch://u:secret@h/d\n", "cannot be opened"),
        (b"[database]\nconnection = sqlite:////dev/null/state/db.sqlite\n", "/dev/null"),
        (b"[database]\nconnection = sqlite:////etc/passwd\n", "/etc/passwd"),
    ],
)
def test_a_configuration_that_cannot_be_used(tmp_path: Path, text: bytes | None, told: str) -> None:
    config = tmp_path / ("missing.conf" if text is None else "resizeflow.conf")
    if text is not None:
        config.write_bytes(text)
    answer = Console(config).type("host", "list")
    answer.refused(2, told)
    assert "secret" not in answer.err


def test_a_configuration_that_is_a_folder(tmp_path: Path) -> None:
    Console(tmp_path).type("host", "list").refused(2, str(tmp_path))


@pytest.mark.parametrize("command", ["host list", "resize web --flavor big", "worker --drain", "db upgrade"])
def test_a_database_newer_than_the_program(console: Console, cloud: Cloud, command: str) -> None:
    with cloud.database.write() as tx:
        tx.session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    before = everything(cloud)
    console.type(*command.split()).refused(2, "9999", "newer than the program")
    assert everything(cloud) == before
