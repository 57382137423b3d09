"""Disks of a definition: put on a file, added and removed."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from lxml import etree

from resizeflow.drivers.definition.elements import attribute, drop, made, needed, parse, portable, written
from resizeflow.drivers.definition.reading import disk_of, read

_Where = TypeVar("_Where")


@dataclass(frozen=True)
class Placement:
    """A disk's file on the host it is to run on."""

    path: str
    format: str
    bypass_cache: bool = False
    """For a carrier: read without the host's page cache, which makes a transfer about a third faster."""


def free_device(xml: str, beside: str) -> str:
    """A device name that no disk has, on the bus of the disk `beside`. Raises ValueError if there is none."""
    taken = {disk.device for disk in read(xml).disks}
    prefix = beside[: 3 if beside.startswith("xvd") else 2]
    for letter in "abcd" if prefix == "hd" else string.ascii_lowercase:  # an IDE controller has four drives
        if prefix + letter not in taken:
            return prefix + letter
    raise ValueError(f"The machine has no room for another disk beside {beside}.")


def with_disk(xml: str, device: str, beside: str) -> str:
    """The definition with one more disk, on the bus of the disk `beside` and without a file yet."""
    root = parse(xml)
    others = {disk_of(element).device: element for element in root.findall("devices/disk")}
    if device in others or beside not in others:
        raise ValueError(f"The machine has a disk {device} already, or none that is {beside}.")
    target = {"dev": device, "bus": attribute(others[beside], "target", "bus") or "virtio"}
    disk = etree.Element("disk", {"type": "file", "device": "disk"})
    etree.SubElement(disk, "target", target)
    list(others.values())[-1].addnext(disk)
    return written(root)


def with_disk_of(xml: str, other_xml: str, device: str) -> str:
    """The definition with one more disk, taken from another definition of the same machine.

    It comes without its address, for which this definition may have another use, and with the controllers of its bus
    that are missing here: libvirt would make one, but of a model that the guest may not know.
    """
    root, other = parse(xml), parse(other_xml)
    disks = {disk_of(element).device: element for element in root.findall("devices/disk")}
    found = [element for element in other.findall("devices/disk") if disk_of(element).device == device]
    if device in disks or not found:
        raise ValueError(f"The machine has a disk {device} already, or the other definition has none.")
    devices = needed(root, "devices")
    controllers = f"controller[@type='{attribute(found[0], 'target', 'bus')}']"
    present = {controller.get("index") for controller in devices.findall(controllers)}
    missing = [one for one in other.findall(f"devices/{controllers}") if one.get("index") not in present]
    devices.extend(portable(element) for element in (*found, *missing))
    return written(root)


def without_disk(xml: str, device: str) -> str:
    """The definition without that disk; one that is not there is fine."""
    root = parse(xml)
    devices = needed(root, "devices")
    for element in devices.findall("disk"):
        if disk_of(element).device == device:
            devices.remove(element)
    return written(root)


def chosen(root: etree._Element, disks: Mapping[str, _Where]) -> list[tuple[etree._Element, _Where]]:
    """The `<disk>` of each named device and where it is to be. Raises ValueError for a device that is not there."""
    found = {disk_of(element).device: element for element in root.findall("devices/disk")}
    strangers = sorted(disks.keys() - found.keys())
    if strangers:
        raise ValueError(f"The machine has no disk {', '.join(strangers)}.")
    return [(element, disks[device]) for device, element in found.items() if device in disks]


def place(disk: etree._Element, placement: Placement) -> None:
    """Puts a disk on its file. What described the old file goes."""
    disk.set("type", "file")
    driver, source = made(disk, "driver"), made(disk, "source")
    driver.attrib.update({"name": "qemu", "type": placement.format})
    drop(source, "dev", "pool", "volume", "mode", "index")
    source.set("file", placement.path)
    for parent in (disk, source):
        for child in parent.findall("*"):
            if child.tag in ("backingStore", "mirror", "seclabel", "privateData"):
                parent.remove(child)
