"""The machine that carries disks from one host to another."""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from resizeflow.drivers.definition.disks import Placement, chosen
from resizeflow.drivers.definition.elements import attribute, attributes_of, needed, parse, text, written
from resizeflow.drivers.definition.mark import Mark, set_mark

_CARRIER_MEMORY_MB = 32


def carrier(xml: str, *, disks: Mapping[str, Placement], mark: Mark) -> str:
    """The machine reduced to 32 MiB, one vCPU and the given disks, under its own name and UUID: no NIC, no
    kernel, no boot device, nothing of the guest's that another host would have to provide."""
    root = parse(xml)
    reduced = etree.Element("domain", {"type": root.get("type", "")})
    for name in ("name", "uuid"):
        etree.SubElement(reduced, name).text = text(root, name)
    etree.SubElement(reduced, "memory", {"unit": "MiB"}).text = str(_CARRIER_MEMORY_MB)
    etree.SubElement(reduced, "vcpu").text = "1"
    machine = needed(root, "os/type")
    kept = {name: value for name, value in attributes_of(machine).items() if name in ("arch", "machine")}
    etree.SubElement(etree.SubElement(reduced, "os"), "type", kept).text = "hvm"
    devices = etree.SubElement(reduced, "devices")
    etree.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    etree.SubElement(devices, "memballoon", {"model": "none"})
    for element, placement in chosen(root, disks):
        disk = etree.SubElement(devices, "disk", {"type": "file", "device": "disk"})
        bypass = {"cache": "none", "io": "native"} if placement.bypass_cache else {}
        etree.SubElement(disk, "driver", {"name": "qemu", "type": placement.format, **bypass})
        etree.SubElement(disk, "source", {"file": placement.path})
        device = attribute(element, "target", "dev") or ""
        etree.SubElement(disk, "target", {"dev": device, "bus": "virtio"})
        # On one bus libvirt would call vda and sda alike.
        etree.SubElement(disk, "alias", {"name": f"ua-{device}"})
    set_mark(reduced, mark)
    return written(reduced)
