"""Definitions whose disks are opened over the network: Cinder's volumes, and those that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from resizeflow.drivers.definition import (
    Connected,
    Disk,
    Mark,
    Placement,
    carrier,
    connected,
    difference,
    free_device,
    marked,
    read,
    resized,
    restored,
    retired,
    volumes,
    with_disk,
    with_disk_of,
    without_disk,
)
from resizeflow.drivers.volume import SecretUse, VolumeConnection

EXAMPLES = Path(__file__).parent / "definitions"
MACHINE = (EXAMPLES / "volumes.xml").read_text()
CONNECTED = (EXAMPLES / "volumes-connected.xml").read_text()
LOCAL = (EXAMPLES / "machine.xml").read_text()

MARK = Mark(migration="0e6c1b5e-77aa-4b1e-93a5-2d7d4f2f9c01", epoch=7, role="retired")
PREFIX = f"RETIRED-{MARK.migration}-"
ROOT, LUN, FILE = (f"c0ffee00-0000-4000-8000-00000000000{letter}" for letter in "abc")
INITIATOR = "iqn.2026-11.dev.resizeflow:h2"

RBD = VolumeConnection(
    kind="rbd",
    name=f"volumes/volume-{ROOT}",
    hosts=(("203.0.113.1", 3300), ("2001:db8::1", 3300)),
    user="cinder",
    secret=SecretUse("bbbbbbbb-0000-4000-8000-000000000001", "ceph"),
)
ISCSI = VolumeConnection(
    kind="iscsi",
    name=f"iqn.2010-10.org.openstack:volume-{LUN}/1",
    hosts=(("203.0.113.2", 3260),),
    user="chap2",
    secret=SecretUse("bbbbbbbb-0000-4000-8000-000000000002", "iscsi"),
    password="chap-s3cret",  # noqa: S106 - it has to appear nowhere
    readonly=True,
)
NFS = VolumeConnection(
    kind="nfs", name=f"/export/volumes/volume-{FILE}", hosts=(("203.0.113.3", None),), format="qcow2"
)
DISKS = {
    "vda": Connected(RBD, ROOT, INITIATOR),
    "sda": Connected(ISCSI, LUN, INITIATOR),
    "vdb": Connected(NFS, FILE, INITIATOR),
}


def canonical(xml: str) -> str:
    return str(etree.canonicalize(xml, strip_text=True))


def disk(xml: str, device: str) -> etree._Element:
    found = etree.fromstring(xml).find(f"devices/disk/target[@dev='{device}']/..")
    assert found is not None, device
    return found


# --- read ------------------------------------------------------------------------------------------------


def test_network_disks_are_read() -> None:
    root, lun, file, scratch, iso = read(MACHINE).disks
    assert root == Disk(
        "vda", "disk", None, "raw", network=True, readonly=False,
        serial=ROOT.upper(), protocol="rbd", source_name=f"volumes/volume-{ROOT}",
    )  # fmt: skip
    assert (lun.kind, lun.protocol, lun.source_name) == ("lun", "iscsi", ISCSI.name)
    assert (file.protocol, file.source_name) == ("nfs", NFS.name)
    assert (scratch.protocol, scratch.source_name, scratch.serial) == ("nbd", None, "scratch")
    assert (iso.protocol, iso.source_name, iso.serial) == ("https", "iso/debian.iso", None)


def test_a_cinder_volume_is_known_by_its_serial() -> None:
    assert [found.volume_id for found in read(MACHINE).disks] == [ROOT, LUN, FILE, None, None]
    assert volumes(MACHINE) == {"vda": ROOT, "sda": LUN, "vdb": FILE}


@pytest.mark.parametrize("serial", ["", "ROOT-0001", ROOT.replace("-", ""), f"{{{ROOT}}}", f"{ROOT}0"])
def test_other_serials_are_no_volume(serial: str) -> None:
    assert volumes(MACHINE.replace(f"<serial>{ROOT.upper()}<", f"<serial>{serial}<")) == {"sda": LUN, "vdb": FILE}


def test_a_local_disk_with_a_volume_s_serial_is_no_volume() -> None:
    assert volumes(LOCAL.replace("ROOT-0001", ROOT)) == {}
    assert read(LOCAL.replace("ROOT-0001", ROOT)).disks[0].serial == ROOT


def test_the_secrets_that_disks_name_wherever_they_do() -> None:
    assert read(MACHINE).secrets == {
        "aaaaaaaa-0000-4000-8000-000000000001",
        "aaaaaaaa-0000-4000-8000-000000000002",
    }
    assert read(LOCAL).secrets == frozenset()


# --- connected -------------------------------------------------------------------------------------------


def test_connected_replaces_sources_and_keeps_what_the_operator_set() -> None:
    assert canonical(connected(MACHINE, DISKS)) == canonical(CONNECTED)
    assert canonical(connected(CONNECTED, DISKS)) == canonical(CONNECTED)


def test_connected_leaves_the_other_disks_alone() -> None:
    one = connected(MACHINE, {"vda": DISKS["vda"]})
    assert canonical(without_disk(one, "vda")) == canonical(without_disk(MACHINE, "vda"))
    assert connected(MACHINE, {}) == etree.tostring(etree.fromstring(MACHINE), encoding="unicode")


def test_connected_shows_no_password() -> None:
    assert "chap-s3cret" not in connected(MACHINE, DISKS)
    assert "chap-s3cret" not in repr(DISKS)


def test_a_connection_without_credentials_has_no_auth() -> None:
    plain = VolumeConnection(kind="iscsi", name=ISCSI.name, hosts=ISCSI.hosts)
    xml = connected(MACHINE, {"sda": Connected(plain, LUN, INITIATOR)})
    assert disk(xml, "sda").find(".//auth") is None
    assert disk(xml, "sda").find("driver[@discard]") is None


def test_nfs_always_has_the_identity_that_libvirt_s_schema_asks_for() -> None:
    source = disk(connected(MACHINE, {"vda": Connected(NFS, ROOT, INITIATOR)}), "vda").find("source")
    assert source is not None
    assert [child.tag for child in source] == ["host", "identity"]
    assert not source[1].attrib


def test_a_volume_that_moved_to_another_backend_takes_no_identity_along() -> None:
    assert disk(connected(MACHINE, {"vdb": Connected(RBD, FILE, INITIATOR)}), "vdb").find(".//identity") is None


def test_a_volume_s_encryption_is_the_operator_s() -> None:
    luks = (
        "<encryption format='luks'><secret type='passphrase' uuid='cccccccc-0000-4000-8000-000000000001'/></encryption>"
    )
    xml = connected(MACHINE.replace("<config file='/etc/ceph/old.conf'/>", luks), DISKS)
    assert disk(xml, "vda").find("source/encryption/secret") is not None
    assert "cccccccc-0000-4000-8000-000000000001" in read(xml).secrets


def test_connecting_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="vdz"):
        connected(MACHINE, {"vdz": DISKS["vda"]})


# --- retirement ------------------------------------------------------------------------------------------


def test_retired_takes_every_network_disk_out_of_reach() -> None:
    assert [found.source_name for found in read(retired(MACHINE, MARK)).disks] == [
        f"volumes/{PREFIX}volume-{ROOT}",
        f"{PREFIX}/{ISCSI.name}",
        f"/export/volumes/{PREFIX}volume-{FILE}",
        PREFIX,
        f"iso/{PREFIX}debian.iso",
    ]


@pytest.mark.parametrize("xml", [MACHINE, CONNECTED, LOCAL], ids=["old", "connected", "mixed"])
def test_restored_undoes_retired_exactly(xml: str) -> None:
    assert etree.canonicalize(restored(retired(xml, MARK))) == etree.canonicalize(xml)
    assert difference(xml, retired(xml, MARK)) is None


def test_a_volume_attached_to_a_retired_machine_keeps_its_name() -> None:
    fewer = retired(without_disk(MACHINE, "vda"), MARK)
    more = with_disk_of(fewer, MACHINE, "vda")
    assert read(restored(more)).disks[-1].source_name == f"volumes/volume-{ROOT}"


_NAMES = st.one_of(
    st.text("ab/.:-", min_size=1, max_size=8),
    st.sampled_from([PREFIX, f"{PREFIX}x", f"{PREFIX}/iqn.a:b/1", f"/{PREFIX}{PREFIX}x", f"p/{PREFIX}"]),
)


@st.composite
def _machines(draw: st.DrawFn) -> str:
    disks = []
    for letter in "abcd"[: draw(st.integers(0, 4))]:
        kind = draw(st.sampled_from(["file", "block", "network"]))
        name = draw(_NAMES)
        source = f"<source {'dev' if kind == 'block' else 'file'}={quoteattr('/' + name)}/>"
        if kind == "network":
            protocol = draw(st.sampled_from(["rbd", "iscsi", "nfs", "nbd"]))
            named = "" if protocol == "nbd" and draw(st.booleans()) else f"name={quoteattr(name)}"
            source = f"<source protocol='{protocol}' {named}><host name='h'/></source>"
        if draw(st.integers(0, 5)) == 0:
            source = ""  # an empty drive
        device = draw(st.sampled_from(["disk", "disk", "cdrom", "lun"]))
        readonly = "<readonly/>" if draw(st.booleans()) else ""
        disks.append(
            f"<disk type='{kind}' device='{device}'>{source}<target dev='vd{letter}' bus='virtio'/>{readonly}</disk>"
        )
    return (
        "<domain type='qemu'><name>m</name><uuid>5bb0b9a4-8a52-4b6e-9d8b-0a5b3c7f1a12</uuid><memory>1024</memory>"
        f"<os><type>hvm</type></os><devices>{''.join(disks)}</devices></domain>"
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(_machines(), st.sampled_from([None, Mark(MARK.migration, 3, "destination")]))
def test_retiring_is_undone_exactly_whatever_a_machine_s_disks_are_called(xml: str, mark: Mark | None) -> None:
    xml = marked(xml, mark)
    there = retired(xml, MARK)
    again = retired(there, MARK)
    assert again == there
    assert etree.canonicalize(restored(there)) == etree.canonicalize(marked(xml, None))
    for before, after in zip(read(xml).disks, read(there).disks, strict=True):
        if before.network and before.protocol:
            assert after.source_name != before.source_name
            assert MARK.migration in (after.source_name or "")


# --- disks that come and go ------------------------------------------------------------------------------


def test_a_volume_is_taken_over_from_another_definition_of_the_machine() -> None:
    live = MACHINE.replace("<alias name='ua-root'/>", "<alias name='virtio-disk0'/>")
    fewer = without_disk(MACHINE, "vda")
    more = with_disk_of(fewer, live, "vda")
    taken = disk(more, "vda")
    assert [child.tag for child in taken] == ["driver", "source", "target", "iotune", "serial", "boot"]
    assert disk(more, "vda").find("source[@index]") is None
    assert volumes(more) == volumes(MACHINE)
    assert canonical(without_disk(more, "vda")) == canonical(fewer)
    kept = with_disk_of(fewer, MACHINE, "vda")
    assert disk(kept, "vda").find("alias[@name='ua-root']") is not None


def test_a_volume_brings_the_controllers_of_its_bus_that_are_missing() -> None:
    bare = without_disk(MACHINE, "sda")
    bare = bare.replace(bare[bare.index("<controller") : bare.index("</controller>") + 13], "")
    more = etree.fromstring(with_disk_of(bare, MACHINE, "sda"))
    (controller,) = more.findall("devices/controller")
    assert (controller.get("type"), controller.get("index"), controller.get("model")) == ("scsi", "0", "virtio-scsi")
    assert len(controller) == 0
    again = with_disk_of(without_disk(MACHINE, "sda"), MACHINE, "sda")
    assert len(etree.fromstring(again).findall("devices/controller")) == 1
    assert "<controller" not in with_disk_of(without_disk(bare, "vdb"), MACHINE, "vdb")


def test_a_volume_that_cannot_be_taken_over() -> None:
    with pytest.raises(ValueError, match="vda"):
        with_disk_of(MACHINE, MACHINE, "vda")
    with pytest.raises(ValueError, match="vdz"):
        with_disk_of(MACHINE, MACHINE, "vdz")


def test_a_machine_without_local_disks_can_get_one() -> None:
    device = free_device(MACHINE, beside="vda")
    assert device == "vdd"
    xml = resized(
        with_disk(MACHINE, device, beside="vda"),
        vcpus=1,
        memory_mb=512,
        disks={device: Placement("/new/swap", "raw")},
        mark=MARK,
    )
    assert [found.path for found in read(xml).disks if found.path] == ["/new/swap"]
    assert volumes(xml) == volumes(MACHINE)


def test_a_carrier_has_no_volumes() -> None:
    assert read(carrier(MACHINE, disks={}, mark=MARK)).disks == ()
    mixed = carrier(LOCAL, disks={"vda": Placement("/new/root", "raw")}, mark=MARK)
    assert [found.device for found in read(mixed).disks] == ["vda"]
    assert "secret" not in mixed


# --- difference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "same",
    [
        lambda xml: xml.replace("<cookie name='session'>s3cret</cookie>", "<cookie name='session'>0ther</cookie>"),
        lambda xml: xml.replace(xml[xml.index("<cookies>") : xml.index("</cookies>") + 10], ""),
        lambda xml: xml.replace(" index='2'", ""),
    ],
)
def test_no_difference(same: Callable[[str], str]) -> None:
    assert same(MACHINE) != MACHINE
    assert difference(MACHINE, same(MACHINE)) is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name='198.51.100.6'", "name='203.0.113.3'", "disk vdb source host name: 198.51.100.6 -> 203.0.113.3"),
        ("username='chap'", "username='other'", "disk sda auth username: chap -> other"),
        (f"volumes/volume-{ROOT}", "volumes/x", f"disk vda source name: volumes/volume-{ROOT} -> volumes/x"),
        (f"<serial>{FILE}", "<serial>x", f"disk vdb serial: {FILE} -> x"),
    ],
)
def test_a_difference_in_a_few_words(old: str, new: str, words: str) -> None:
    assert difference(MACHINE, MACHINE.replace(old, new, 1)) == words


def test_a_difference_shows_no_cookie() -> None:
    other = MACHINE.replace("mirror.example.org", "other.example.org").replace("s3cret", "0ther")
    assert difference(MACHINE, other) == "disk sdb source host name: mirror.example.org -> other.example.org"
