"""What a definition says."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lxml import etree

from resizeflow.drivers.definition.elements import attribute, memory_bytes, needed, parse, text
from resizeflow.drivers.definition.mark import Mark, mark_of


@dataclass(frozen=True)
class Disk:
    """A `<disk>` of a domain. `path` is None for an empty drive, a network disk, one named by its pool."""

    device: str
    kind: str
    """`disk`, `cdrom`, `floppy`, `lun`."""
    path: str | None
    format: str
    network: bool
    readonly: bool


@dataclass(frozen=True)
class Nic:
    """An `<interface>`. `bridge` is None unless it is plugged into a bridge by name."""

    mac: str
    kind: str
    bridge: str | None
    model: str | None


LEFT_BEHIND = {
    "devices/tpm": "a TPM",
    "devices/filesystem": "a directory of its host",
    "devices/memory[@model='nvdimm']": "persistent memory",
    "devices/memory[@model='virtio-pmem']": "persistent memory",
}
"""Elements whose content is neither in the definition nor on a disk."""


@dataclass(frozen=True)
class Definition:
    """A domain definition, read."""

    uuid: str
    name: str
    domain_type: str
    machine: str
    vcpus: int
    memory_mb: int
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    host_devices: int
    left_behind: tuple[str, ...]
    """What it keeps on its host beside its disks: it would be lost by a move."""
    mark: Mark | None


def read(xml: str) -> Definition:
    """Reads a definition. Raises ValueError if it is not a domain's."""
    root = parse(xml)
    nics = root.findall("devices/interface")
    return Definition(
        uuid=text(root, "uuid"),
        name=text(root, "name"),
        domain_type=root.get("type", ""),
        machine=attribute(root, "os/type", "machine") or "",
        vcpus=int(root.findtext("vcpu", "1")),
        memory_mb=math.ceil(memory_bytes(needed(root, "memory")) / 2**20),
        disks=tuple(disk_of(element) for element in root.findall("devices/disk")),
        nics=tuple(_nic(element) for element in nics),
        host_devices=len(root.findall("devices/hostdev")) + sum(n.get("type") == "hostdev" for n in nics),
        left_behind=tuple(what for path, what in LEFT_BEHIND.items() if root.find(path) is not None),
        mark=mark_of(root),
    )


def disk_of(element: etree._Element) -> Disk:
    """A `<disk>`, read."""
    kind = element.get("type", "file")
    return Disk(
        device=attribute(element, "target", "dev") or "",
        kind=element.get("device", "disk"),
        path=attribute(element, "source", {"block": "dev", "dir": "dir"}.get(kind, "file")),
        format=attribute(element, "driver", "type") or "raw",
        network=kind == "network",
        readonly=element.find("readonly") is not None,
    )


def _nic(element: etree._Element) -> Nic:
    kind = element.get("type", "")
    return Nic(
        mac=attribute(element, "mac", "address") or "",
        kind=kind,
        bridge=attribute(element, "source", "bridge") if kind == "bridge" else None,
        model=attribute(element, "model", "type"),
    )
