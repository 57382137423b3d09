"""Disks that QEMU opens over the network: where Cinder says that a volume is, in libvirt's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from resizeflow.drivers.definition.disks import chosen
from resizeflow.drivers.definition.elements import made, parse, written
from resizeflow.drivers.volume import VolumeConnection


@dataclass(frozen=True)
class Connected:
    """A volume as a host is to open it; `initiator` is the name under which it logs in to iSCSI targets."""

    connection: VolumeConnection
    volume_id: str
    initiator: str


def connected(xml: str, disks: Mapping[str, Connected]) -> str:
    """The definition with the named devices on their volumes. How a guest sees and uses them stays as it was; what
    described the old source goes. Raises ValueError for a device that is not there.

    Shapes: libvirt's formatdomain, "Hard drives, floppy disks, CDROMs". Secrets are named, never contained.
    """
    root = parse(xml)
    for disk, to in chosen(root, disks):
        _connect(disk, to)
    return written(root)


def _connect(disk: etree._Element, to: Connected) -> None:
    disk.set("type", "network")
    driver = made(disk, "driver")
    driver.attrib.update({"name": "qemu", "type": to.connection.format})
    source = _source(to)
    for element in disk.findall("*"):
        if element.tag == "source":
            source.extend(_kept(element, to.connection.kind))
        if element.tag in ("source", "auth", "backingStore", "mirror", "privateData"):
            disk.remove(element)
    if to.connection.kind == "nfs":
        made(source, "identity")  # libvirt's schema wants it there, empty if need be
    driver.addnext(source)
    made(disk, "serial").text = to.volume_id
    if to.connection.readonly:
        made(disk, "readonly")


def _source(to: Connected) -> etree._Element:
    connection = to.connection
    source = etree.Element("source", {"protocol": connection.kind, "name": connection.name})
    for address, port in connection.hosts:
        etree.SubElement(source, "host", {"name": address} if port is None else {"name": address, "port": str(port)})
    if connection.kind == "iscsi":
        etree.SubElement(etree.SubElement(source, "initiator"), "iqn", {"name": to.initiator})
    if connection.user is not None and connection.secret is not None:
        auth = etree.SubElement(source, "auth", {"username": connection.user})
        etree.SubElement(auth, "secret", {"type": connection.secret.kind, "uuid": connection.secret.uuid})
    return source


def _kept(source: etree._Element, kind: str) -> list[etree._Element]:
    """What a source says of the volume's content, and as whom NFS is asked for it: Cinder knows nothing of either."""
    return [*source.findall("encryption"), *(source.findall("identity") if kind == "nfs" else ())]
