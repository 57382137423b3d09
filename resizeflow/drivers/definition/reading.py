"""What a definition says."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from functools import lru_cache

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
    block: bool = False
    """It is a block device of its host."""
    serial: str | None = None
    protocol: str | None = None
    """Of a network disk: `rbd`, `iscsi`, `nfs` or another of libvirt's."""
    source_name: str | None = None
    """Of a network disk: its name at the other end, such as `pool/image`."""
    initiator: str | None = None
    """The name by which it logs in to an iSCSI target, where the definition says one."""

    @property
    def volume_id(self) -> str | None:
        """The Cinder volume it is, None if it is none: Nova writes the volume's id as the serial of its disk."""
        return _uuid(self.serial or "") if self.network else None


@dataclass(frozen=True)
class Nic:
    """An `<interface>`. `bridge` is None unless it is plugged into a bridge by name."""

    mac: str
    kind: str
    bridge: str | None
    model: str | None
    interface_id: str | None = None
    """What Open vSwitch tells Neutron's agent: the port's id."""
    device: str | None = None
    """The name of its tap device; libvirt names one that runs and has none."""


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
    secrets: frozenset[str]
    """UUIDs of the libvirt secrets that its disks name."""

    @property
    def first_disk(self) -> str:
        """The device of its first disk: the one that it boots from, unless it says otherwise. Raises ValueError."""
        for disk in self.disks:
            if disk.kind == "disk":
                return disk.device
        raise ValueError(f"The machine {self.name} has no disk.")


@lru_cache(maxsize=64)
def read(xml: str) -> Definition:
    """Reads a definition, of which a flow looks at the same few again and again. Raises ValueError if it is not a
    domain's."""
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
        secrets=frozenset(
            secret.get("uuid", "").lower() for secret in root.iterfind("devices/disk//secret") if secret.get("uuid")
        ),
    )


def volumes(xml: str) -> dict[str, str]:
    """The Cinder volumes of a machine, as their ids by device."""
    return {disk.device: disk.volume_id for disk in read(xml).disks if disk.volume_id is not None}


def disk_of(element: etree._Element) -> Disk:
    """A `<disk>`, read."""
    kind = element.get("type", "file")
    network = kind == "network"
    return Disk(
        device=attribute(element, "target", "dev") or "",
        kind=element.get("device", "disk"),
        path=attribute(element, "source", {"block": "dev", "dir": "dir"}.get(kind, "file")),
        format=attribute(element, "driver", "type") or "raw",
        network=network,
        readonly=element.find("readonly") is not None,
        block=kind == "block",
        serial=(element.findtext("serial") or "").strip() or None,
        protocol=attribute(element, "source", "protocol") if network else None,
        source_name=attribute(element, "source", "name") if network else None,
        initiator=attribute(element, "source/initiator/iqn", "name"),
    )


def _uuid(text: str) -> str | None:
    """A UUID in its canonical form, None for any other text."""
    try:
        found = str(uuid.UUID(text))
    except ValueError:
        return None
    return found if found == text.lower() else None


def _nic(element: etree._Element) -> Nic:
    kind = element.get("type", "")
    return Nic(
        mac=(attribute(element, "mac", "address") or "").lower(),
        kind=kind,
        bridge=attribute(element, "source", "bridge") if kind == "bridge" else None,
        model=attribute(element, "model", "type"),
        interface_id=attribute(element, "virtualport/parameters", "interfaceid"),
        device=attribute(element, "target", "dev"),
    )
