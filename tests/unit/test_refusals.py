"""Bad input: one clear sentence, the documented exit code, no traceback, and nothing changed in any table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from resizeflow import errors
from resizeflow.chaos.cloud import Cloud
from resizeflow.connections import Connections
from resizeflow.drivers.interface import Connection
from resizeflow.errors import Conflict, NotFound, ResizeflowError, RuleError, UsageError
from resizeflow.service import Service
from tests.console import Console, everything
from tests.refused import BLOCK, OTHERS, REQUESTS, Refusal, by_hand, locked, over_quota
from tests.spread import spread

HOST_DEVICE = (
    "<hostdev mode='subsystem' type='pci' managed='yes'>"
    "<source><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source></hostdev>"
)
ELSEWHERE = (
    "<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
    "<source file='/srv/elsewhere/data.raw'/><target dev='vdz' bus='virtio'/></disk>"
)
BY_POOL = (
    "<disk type='volume' device='disk'><source pool='default' volume='data'/><target dev='vdz' bus='virtio'/></disk>"
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


GENERAL = {UsageError: (400, 2), NotFound: (404, 2), RuleError: (400, 4), Conflict: (409, 4)}
"""HTTP and exit codes of errors that have no name of Nova's."""


def documented() -> dict[str, tuple[int, int]]:
    """Per error the HTTP code and the exit code that docs/reference.md promises."""
    text = Path("docs/reference.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `(\w+)` \| (\d{3}) \| (\d) \|$", text, re.MULTILINE)
    promised: dict[str, tuple[int, int]] = {}
    for name, http_code, exit_code in rows:
        codes = int(http_code), int(exit_code)
        assert promised.setdefault(name, codes) == codes, name
    return promised


def named_by_nova() -> set[type[ResizeflowError]]:
    """Every error of a request: the ends of the branches of `RuleError` and `NotFound`."""
    found, left = set(), [*RuleError.__subclasses__(), *NotFound.__subclasses__()]
    while left:
        kind = left.pop()
        left.extend(kind.__subclasses__())
        if not kind.__subclasses__():
            found.add(kind)
    return found


@pytest.mark.parametrize(
    "refusal", spread([*REQUESTS, *OTHERS], 4, pytest.mark.slow), ids=lambda r: f"{r.error.__name__}-{r.words}-{r.told}"
)
def test_refused(console: Console, cloud: Cloud, refusal: Refusal) -> None:
    arranged = refusal.arrange(cloud)
    words = refusal.words.format(migration=arranged.migration_id if arranged else "").split()
    http_code, exit_code = documented().get(refusal.error.__name__) or GENERAL[refusal.error]
    before, world = everything(cloud), cloud.world.snapshot()
    console.type(*words).refused(exit_code, refusal.told)
    with pytest.raises(ResizeflowError) as raised:
        console.type("--debug", *words)
    assert (type(raised.value), raised.value.http_code) == (refusal.error, http_code)
    assert everything(cloud) == before
    assert cloud.world.snapshot() == world


def test_every_refusal_of_a_request_is_in_the_table() -> None:
    # A lost race needs two: test_lost_races.py.
    tried = {refusal.error for refusal in REQUESTS} | {errors.InstanceUpdateConflict}
    assert tried == named_by_nova()
    assert set(documented()) == {kind.__name__ for kind in tried}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("resize web --flavor none --host h9", "no host 'h9'"),
        ("migrate web --host h9", "no host 'h9'"),
        ("resize web --flavor huge", "Quota exceeded"),
        ("resize web --flavor flat", "zero disk"),
    ],
)
def test_of_two_faults_nova_s_first_is_told(console: Console, cloud: Cloud, words: str, told: str) -> None:
    over_quota(cloud)
    by_hand("UPDATE domains SET snapshots = 1")(cloud)
    console.type(*words.split()).refused(2 if "h9" in words else 4, told)
    cloud.world.set_up("h1", False)
    console.type(*words.split()).refused(4, "host h1 does not answer")
    locked(cloud)
    console.type(*words.split()).refused(4, "is locked")


def test_nobody_waits_for_a_host_to_be_told_what_records_say(cloud: Cloud) -> None:
    def unreachable(_uri: str) -> Connection:
        raise AssertionError("No host is to be asked.")

    locked(cloud)
    service = Service(cloud.database, cloud.settings, connections=Connections(unreachable))
    with pytest.raises(errors.InstanceIsLocked):
        service.resize("web", "big")


def test_a_host_is_added_twice(console: Console, cloud: Cloud) -> None:
    before = everything(cloud)
    console.type("host", "add", "again", cloud.world.uri("h1")).refused(4, "is known as h1 already")
    console.type("host", "add", "h3", cloud.world.uri("h1"), "--pool", "attic").refused(4, "attic")
    assert everything(cloud) == before


@pytest.mark.parametrize(
    ("devices", "state", "told"),
    [
        ("", {"snapshots": 2}, "2 snapshot(s)"),
        ("", {"managed_save": True}, "managed save"),
        (HOST_DEVICE, {}, "host device"),
        ("<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>", {}, "has a TPM"),
        (ELSEWHERE, {}, "vdz (/srv/elsewhere/data.raw) is not in pool default"),
        (CDROM, {}, "eject it"),
        (BLOCK, {}, "odd's disk vdz is /dev/sdz, a block device of its host"),
        (BY_POOL, {}, "odd's disk vdz names no file"),
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
