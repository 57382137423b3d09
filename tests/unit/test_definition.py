"""Definitions read and transformed, on a machine as `virsh dumpxml --inactive --security-info` shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree

from resizeflow.drivers.definition import (
    NAMESPACE,
    Disk,
    Mark,
    Nic,
    Placement,
    carrier,
    difference,
    free_device,
    marked,
    read,
    resized,
    restored,
    retired,
    with_disk,
    without_disk,
)

UUID = "5bb0b9a4-8a52-4b6e-9d8b-0a5b3c7f1a11"

EXAMPLES = Path(__file__).parent / "definitions"
MACHINE = (EXAMPLES / "machine.xml").read_text()
BARE = (EXAMPLES / "bare.xml").read_text()

MARK = Mark(migration="0e6c1b5e-77aa-4b1e-93a5-2d7d4f2f9c01", epoch=7, role="retired")
TARGET = Mark(migration=MARK.migration, epoch=8, role="destination")
PLACES = {"vda": Placement("/new/root", "raw"), "vdb": Placement("/new/ephemeral", "qcow2")}


def canonical(xml: str) -> str:
    return str(etree.canonicalize(xml, strip_text=True))


def grown(xml: str = MACHINE, *, vcpus: int = 6, memory_mb: int = 3072) -> str:
    return resized(xml, vcpus=vcpus, memory_mb=memory_mb, disks=PLACES, mark=TARGET)


def one(xml: str, path: str) -> etree._Element:
    element = etree.fromstring(xml).find(path)
    assert element is not None, path
    return element


def attributes(element: etree._Element) -> dict[str, str]:
    return {str(name): str(value) for name, value in element.attrib.items()}


def without(xml: str, *paths: str) -> str:
    """The canonical definition with some elements cut out, to compare all the others."""
    root = etree.fromstring(xml)
    for path in paths:
        for element in root.findall(path):
            parent = element.getparent()
            assert parent is not None
            parent.remove(element)
    return canonical(etree.tostring(root, encoding="unicode"))


# --- read ------------------------------------------------------------------------------------------------


def test_a_definition_is_read() -> None:
    found = read(MACHINE)
    assert (found.uuid, found.name, found.domain_type) == (UUID, "shop-db-1", "kvm")
    assert (found.machine, found.vcpus, found.memory_mb) == ("pc-q35-7.2", 4, 2048)
    assert found.host_devices == 1
    assert found.mark is None
    assert found.disks == (
        Disk("vda", "disk", "/srv/pool a/shop-db-1.qcow2", "qcow2", network=False, readonly=False, serial="ROOT-0001"),
        Disk("vdb", "disk", "/srv/pool a/shop-db-1.ephemeral", "raw", network=False, readonly=False),
        Disk("vdc", "disk", None, "raw", network=True, readonly=False, protocol="rbd", source_name="volumes/volume-1"),
        Disk("sda", "cdrom", "/srv/iso/debian.iso", "raw", network=False, readonly=True),
        Disk("sdb", "cdrom", None, "raw", network=False, readonly=True),
    )
    assert found.nics == (
        Nic("52:54:00:6b:3c:58", "bridge", "br-shop", "virtio", "0a1b2c3d-0000-4000-8000-000000000001"),
        Nic("52:54:00:6b:3c:59", "network", None, None),
    )


def test_a_block_device_has_a_path_too() -> None:
    assert [disk.path for disk in read(BARE).disks] == ["/dev/sdx", "/p/one"]


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ("<memory>524288</memory>", 512),
        ("<memory unit='KiB'>524288</memory>", 512),
        ("<memory unit='k'>524288</memory>", 512),
        ("<memory unit='MiB'>512</memory>", 512),
        ("<memory unit='G'>2</memory>", 2048),
        ("<memory unit='GiB'>2</memory>", 2048),
        ("<memory unit='bytes'>1048576</memory>", 1),
        ("<memory unit='MB'>1000</memory>", 954),
    ],
)
def test_memory_units(memory: str, expected: int) -> None:
    assert read(BARE.replace("<memory unit='GiB'>1</memory>", memory)).memory_mb == expected


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "no xml",
        "<network/>",
        "<domain type='kvm'/>",
        BARE.replace("GiB", "stone"),
        BARE.replace("<uuid>", "<id>").replace("</uuid>", "</id>"),
        '<!DOCTYPE domain [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + BARE.replace("bare", "&x;"),
    ],
)
def test_what_is_no_definition_is_refused(xml: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)definition|xml|memory"):
        read(xml)


# --- marks and retirement --------------------------------------------------------------------------------


@pytest.mark.parametrize("xml", [MACHINE, BARE])
def test_a_mark_is_read_replaced_and_removed(xml: str) -> None:
    once = marked(xml, MARK)
    assert read(once).mark == MARK
    twice = marked(once, TARGET)
    assert read(twice).mark == TARGET
    assert len(etree.fromstring(twice).findall(f"metadata/{{{NAMESPACE}}}move")) == 1
    assert etree.canonicalize(marked(twice, None)) == etree.canonicalize(xml)


@pytest.mark.parametrize("xml", [MACHINE, BARE])
def test_restored_undoes_retired_exactly(xml: str) -> None:
    assert etree.canonicalize(restored(retired(xml, MARK))) == etree.canonicalize(xml)


def test_retired_renames_the_machine_s_own_files_only() -> None:
    prefix = f"RETIRED-{MARK.migration}-"
    assert [disk.path for disk in read(retired(MACHINE, MARK)).disks] == [
        f"/srv/pool a/{prefix}shop-db-1.qcow2",
        f"/srv/pool a/{prefix}shop-db-1.ephemeral",
        None,
        "/srv/iso/debian.iso",
        None,
    ]
    assert [disk.path for disk in read(retired(BARE, MARK)).disks] == ["/dev/sdx", f"/p/{prefix}one"]


def test_retiring_again_takes_the_new_epoch_only() -> None:
    once = retired(MACHINE, MARK)
    later = Mark(MARK.migration, 9, "retired")
    assert retired(once, MARK) == once
    assert canonical(retired(once, later)) == canonical(marked(once, later))
    assert canonical(restored(retired(once, later))) == canonical(MACHINE)


def test_another_migration_does_not_take_over_a_retired_definition() -> None:
    with pytest.raises(ValueError, match=MARK.migration):
        retired(retired(MACHINE, MARK), Mark("other", 1, "retired"))


def test_a_destination_is_retired_over_its_mark() -> None:
    there = marked(MACHINE, TARGET)
    assert read(retired(there, MARK)).mark == MARK
    assert canonical(restored(retired(there, MARK))) == canonical(MACHINE)


def test_restored_leaves_others_as_they_are() -> None:
    assert restored(MACHINE) == MACHINE
    named_alike = marked(MACHINE.replace("shop-db-1.qcow2", f"RETIRED-{MARK.migration}-x"), TARGET)
    assert restored(named_alike) == named_alike


# --- resized ---------------------------------------------------------------------------------------------


def test_resized_touches_only_what_it_must() -> None:
    changed = (
        "maxMemory",
        "memory",
        "currentMemory",
        "vcpu",
        "vcpus",
        "cpu/topology",
        "cpu/numa",
        f"metadata/{{{NAMESPACE}}}move",
        "devices/disk[target]/driver",
        "devices/disk[target]/source",
        "devices/disk[target]/backingStore",
    )
    assert without(grown(), *changed) == without(MACHINE, *changed)


def test_resized_sets_the_flavor() -> None:
    xml = grown()
    found = read(xml)
    assert (found.vcpus, found.memory_mb, found.mark) == (6, 3072, TARGET)
    assert one(xml, "currentMemory").text == one(xml, "memory").text == str(3072 * 1024)
    assert attributes(one(xml, "memory")) == {"unit": "KiB", "dumpCore": "off"}
    assert attributes(one(xml, "vcpu")) == {"placement": "static", "cpuset": "0-7"}
    assert etree.fromstring(xml).find("vcpus") is None
    assert attributes(one(xml, "cpu/numa/cell")) == {
        "id": "0",
        "cpus": "0-5",
        "memory": str(3072 * 1024),
        "unit": "KiB",
    }


def test_resized_adds_the_current_memory_where_it_was_implied() -> None:
    xml = resized(BARE, vcpus=2, memory_mb=2048, disks={}, mark=TARGET)
    assert one(xml, "currentMemory").text == str(2048 * 1024)


def test_resized_places_the_named_disks() -> None:
    xml = grown()
    assert [(disk.path, disk.format) for disk in read(xml).disks[:2]] == [
        ("/new/root", "raw"),
        ("/new/ephemeral", "qcow2"),
    ]
    root, swap, volume, *_ = etree.fromstring(xml).findall("devices/disk")
    assert canonical(etree.tostring(root, encoding="unicode")) == canonical(
        """<disk type='file' device='disk'>
        <driver name='qemu' type='raw' cache='none' io='native' discard='unmap'/><source file='/new/root'/>
        <target dev='vda' bus='virtio'/><serial>ROOT-0001</serial>
        <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/></disk>""".replace(
            "<disk", "<disk xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"
        )
    )
    assert swap.find("address") is not None
    assert volume.find("source/host") is not None


def test_a_block_disk_becomes_a_file() -> None:
    xml = resized(BARE, vcpus=2, memory_mb=1024, disks={"vda": PLACES["vda"]}, mark=TARGET)
    disk = one(xml, "devices/disk")
    assert disk.get("type") == "file"
    assert attributes(one(xml, "devices/disk/source")) == {"file": "/new/root"}
    assert attributes(one(xml, "devices/disk/driver")) == {"name": "qemu", "type": "raw"}


def test_a_disk_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="vdz"):
        resized(MACHINE, vcpus=4, memory_mb=2048, disks={"vdz": PLACES["vda"]}, mark=TARGET)
    with pytest.raises(ValueError, match="vdz"):
        carrier(MACHINE, disks={"vdz": PLACES["vda"]}, mark=TARGET)


@pytest.mark.parametrize(
    ("topology", "vcpus", "expected"),
    [
        ("sockets='2' dies='1' cores='2' threads='1'", 4, "sockets='2' dies='1' cores='2' threads='1'"),
        ("sockets='2' dies='1' cores='2' threads='1'", 6, "sockets='6' dies='1' cores='1' threads='1'"),
        ("sockets='1' dies='2' cores='2' threads='1'", 2, "sockets='2' dies='1' cores='1' threads='1'"),
        ("sockets='4' cores='1' threads='1'", 2, "sockets='2' cores='1' threads='1'"),
        ("sockets='1' clusters='2' cores='2' threads='1'", 8, "sockets='8' cores='1' threads='1'"),
        (
            "sockets='1' clusters='2' cores='2' threads='1'",
            4,
            "sockets='1' clusters='2' cores='2' threads='1'",
        ),
    ],
)
def test_topology_fits_the_vcpus(topology: str, vcpus: int, expected: str) -> None:
    xml = grown(MACHINE.replace("sockets='2' dies='1' cores='2' threads='1'", topology), vcpus=vcpus)
    wanted = etree.fromstring(f"<topology {expected}/>")
    assert attributes(one(xml, "cpu/topology")) == attributes(wanted)


@pytest.mark.parametrize(("memory_mb", "limit_mb"), [(1024, 8192), (4096, 8192), (8192, 14336), (16384, 22528)])
def test_the_memory_limit_stays_above_the_memory(memory_mb: int, limit_mb: int) -> None:
    limit = one(grown(memory_mb=memory_mb), "maxMemory")
    assert limit.text == str(limit_mb * 1024)
    assert limit.get("slots") == "4"


def test_memory_modules_are_part_of_the_memory() -> None:
    module = "<memory model='dimm'><target><size unit='MiB'>512</size><node>0</node></target></memory>"
    with_module = MACHINE.replace("<memballoon", module + "<memballoon")
    assert one(grown(with_module, memory_mb=3072), "cpu/numa/cell").get("memory") == str(2560 * 1024)
    with pytest.raises(ValueError, match="memory modules"):
        grown(with_module, memory_mb=512)


def test_several_numa_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="2 NUMA cells"):
        grown(MACHINE.replace("</numa>", "<cell id='1' cpus='4' memory='1' unit='KiB'/></numa>"))


def test_resizing_a_resized_machine_again_changes_nothing() -> None:
    assert canonical(grown(grown())) == canonical(grown())


# --- carrier ---------------------------------------------------------------------------------------------


def test_a_carrier_has_the_machine_s_identity_and_disks_and_nothing_else() -> None:
    mark = Mark(MARK.migration, 3, "carrier")
    xml = carrier(retired(MACHINE, MARK), disks=PLACES, mark=mark)
    assert canonical(marked(xml, None)) == canonical(
        f"""<domain type='kvm'><name>shop-db-1</name><uuid>{UUID}</uuid><memory unit='MiB'>32</memory>
        <vcpu>1</vcpu><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
        <devices><controller type='usb' model='none'/><memballoon model='none'/>
        <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/new/root'/>
        <target dev='vda' bus='virtio'/><alias name='ua-vda'/></disk>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/new/ephemeral'/>
        <target dev='vdb' bus='virtio'/><alias name='ua-vdb'/></disk></devices></domain>"""
    )
    assert read(xml).mark == mark


def test_both_ends_of_a_transfer_differ_in_their_files_only() -> None:
    mark = Mark(MARK.migration, 3, "carrier")
    here = carrier(MACHINE, disks=PLACES, mark=mark)
    there = carrier(MACHINE, disks={name: Placement("/there", p.format) for name, p in PLACES.items()}, mark=mark)
    assert without(here, "devices/disk/source") == without(there, "devices/disk/source")


# --- disks that come and go ------------------------------------------------------------------------------


def test_a_disk_is_added_on_the_bus_of_another_and_under_the_next_free_name() -> None:
    taken = {disk.device for disk in read(MACHINE).disks}
    device = free_device(MACHINE, beside="vda")
    assert device.startswith("vd") and device not in taken
    assert all(f"vd{letter}" in taken for letter in "abcdefghijklmnopqrstuvwxyz"[: ord(device[-1]) - ord("a")])
    more = with_disk(MACHINE, device, beside="vda")
    added = etree.fromstring(more).find(f"devices/disk/target[@dev='{device}']")
    assert added is not None and added.get("bus") == "virtio"
    placed = resized(more, vcpus=1, memory_mb=512, disks={device: Placement("/new/swap", "raw")}, mark=MARK)
    assert [(disk.path, disk.format) for disk in read(placed).disks if disk.device == device] == [("/new/swap", "raw")]
    assert canonical(without_disk(more, device)) == canonical(MACHINE)
    assert canonical(without_disk(MACHINE, device)) == canonical(MACHINE)


def test_what_cannot_be_added_is_refused() -> None:
    full = MACHINE
    for device in ("hda", "hdb", "hdc", "hdd"):
        full = with_disk(full, device, beside="vda")
    with pytest.raises(ValueError, match="no room for another disk beside hda"):
        free_device(full, beside="hda")
    with pytest.raises(ValueError, match="vda"):
        with_disk(MACHINE, "vda", beside="vda")


# --- difference ------------------------------------------------------------------------------------------


def reordered(xml: str) -> str:
    """libvirt puts controllers elsewhere when a domain is redefined."""
    root = etree.fromstring(xml)
    for path in ("metadata", "devices/controller[1]"):
        element = root.find(path)
        assert element is not None
        parent = element.getparent()
        assert parent is not None
        parent.append(element)
    return etree.tostring(root, encoding="unicode")


@pytest.mark.parametrize(
    "same",
    [
        lambda xml: xml,
        reordered,
        lambda xml: retired(xml, MARK),
        lambda xml: marked(xml, TARGET),
        lambda xml: xml.replace("\n", "\n\n   "),
        lambda xml: xml.replace("<memory unit='KiB' dumpCore='off'>2097152<", "<memory unit='GiB' dumpCore='off'>2<"),
        lambda xml: xml.replace(" passwd='s3cret'", ""),
        lambda xml: xml.replace(" index='3'", ""),
        lambda xml: xml.replace("<target dev='vda'", "<alias name='virtio-disk0'/><target dev='vda'"),
        lambda xml: without(xml, "devices/disk/backingStore"),
        lambda xml: xml.replace("<domain ", "<domain id='4' "),
        lambda xml: xml.replace("      <!-- asked for in ticket 4711 -->\n", ""),
    ],
)
def test_no_difference(same: Callable[[str], str]) -> None:
    assert difference(MACHINE, same(MACHINE)) is None
    assert difference(same(MACHINE), MACHINE) is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("current='2'>4</vcpu>", "current='2'>6</vcpu>", "vcpu: 4 -> 6"),
        ("'off'>2097152<", "'off'>4194304<", "memory: 2097152 KiB -> 4194304 KiB"),
        (
            "/srv/pool a/shop-db-1.ephemeral",
            "/srv/other",
            "disk vdb source file: /srv/pool a/shop-db-1.ephemeral -> /srv/other",
        ),
        ("br-shop", "br-other", "interface 52:54:00:6b:3c:58 source bridge: br-shop -> br-other"),
        ("<vmport state='off'/>", "", "features changed"),
        ('centre="42"', 'centre="43"', "metadata changed"),
        ("listen='127.0.0.1' passwd", "listen='0.0.0.0' passwd", "graphics vnc changed"),
        ("string=t0ken", "string=0ther", "commandline changed"),
        ("type='kvm'", "type='qemu'", "domain changed"),
        (
            "<boot dev='hd'/>\n    <boot dev='network'/>",
            "<boot dev='network'/><boot dev='hd'/>",
            "os changed",
        ),
        (
            "52:54:00:6b:3c:59",
            "52:54:00:6b:3c:60",
            "interface 52:54:00:6b:3c:59 removed; interface 52:54:00:6b:3c:60 added",
        ),
        ("<memballoon model='virtio'/>", "", "memballoon removed"),
    ],
)
def test_a_difference_in_a_few_words(old: str, new: str, words: str) -> None:
    assert old in MACHINE
    assert difference(MACHINE, MACHINE.replace(old, new, 1)) == words


def test_a_disk_added_or_removed_is_a_difference() -> None:
    fewer = without(MACHINE, "devices/disk[2]")
    assert difference(MACHINE, fewer) == "disk vdb removed"
    assert difference(fewer, MACHINE) == "disk vdb added"


def test_many_differences_are_counted() -> None:
    words = difference(MACHINE, grown(vcpus=1, memory_mb=512)) or ""
    assert words.count(";") == 3
    assert words.endswith("more")


def test_a_difference_shows_no_secret() -> None:
    words = difference(MACHINE, MACHINE.replace("s3cret", "s4cret").replace("t0ken", "0ther")) or ""
    assert words
    assert not any(secret in words for secret in ("s3cret", "s4cret", "t0ken", "0ther"))
