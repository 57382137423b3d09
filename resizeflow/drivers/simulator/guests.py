"""Machines of a simulated world as tests arrange them: their definitions, Cinder volumes and Neutron ports."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Callable, Mapping
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from resizeflow.drivers.definition import Connected, connected, volumes, without_disk, without_nic
from resizeflow.drivers.network import PortBinding, plug_of
from resizeflow.drivers.simulator import attachments, bindings
from resizeflow.drivers.simulator.cinder import connection_of


def guest_xml(*, name: str, uuid: str, vcpus: int, memory_mb: int, devices: str, cpu: str) -> str:
    """A machine's definition; `cpu` is the `<cpu>` element."""
    return (
        f"<domain type='qemu'><name>{escape(name)}</name><uuid>{uuid}</uuid>"
        f"<memory unit='MiB'>{memory_mb}</memory><currentMemory unit='MiB'>{memory_mb}</currentMemory>"
        f"<vcpu>{vcpus}</vcpu><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>"
        f"{cpu}<devices>{devices}</devices></domain>"
    )


def disks_xml(files: Mapping[str, str], disk_format: str) -> str:
    """A disk for each device and its file."""
    return "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type={quoteattr(disk_format)}/>"
        f"<source file={quoteattr(path)}/><target dev={quoteattr(device)} bus='virtio'/></disk>"
        for device, path in files.items()
    )


def mac_of(uuid: str) -> str:
    """The address of a machine's NIC on a bridge."""
    return ":".join(("52:54:00", uuid[0:2], uuid[2:4], uuid[4:6]))


def nic_xml(uuid: str, bridge: str) -> str:
    """A NIC on a bridge."""
    return (
        f"<interface type='bridge'><mac address='{mac_of(uuid)}'/><source bridge={quoteattr(bridge)}/>"
        f"<model type='virtio'/></interface>"
    )


def port_xml(port: sqlite3.Row) -> str:
    """A NIC that is a port of Neutron's, on the bridge of its agent."""
    plug = plug_of(bindings.shown_port(port), PortBinding("", active=True, vif_type="ovs", bridge=bindings.BRIDGE))
    return (
        f"<interface type='bridge'><mac address='{plug.mac}'/><source bridge='{plug.bridge}'/>"
        f"<virtualport type='openvswitch'><parameters interfaceid='{plug.interface_id}'/></virtualport>"
        f"<target dev='{plug.device}'/><mtu size='{plug.mtu}'/><model type='virtio'/></interface>"
    )


def plug_in(db: sqlite3.Connection, host: str, uuid: str, port_id: str) -> None:
    """A machine gets a port as it is, running or not."""
    bindings.give(db, port_id, uuid, host)
    nic = etree.fromstring(port_xml(bindings.port(db, port_id)))

    def added(xml: str) -> str:
        root = etree.fromstring(xml)
        root.findall("devices")[0].append(copy.deepcopy(nic))
        return etree.tostring(root, encoding="unicode")

    _change(db, host, uuid, added)


def unplug(db: sqlite3.Connection, host: str, uuid: str, port_id: str) -> None:
    """A machine loses a port as it is: the NIC goes, then Neutron is told."""
    mac = bindings.port(db, port_id)["mac"]
    _change(db, host, uuid, lambda xml: without_nic(xml, mac))
    bindings.take(db, port_id)


def attached(db: sqlite3.Connection, host: str, uuid: str, volume_id: str) -> Connected:
    """A machine has a volume on its host, as if somebody had attached it long ago: the one attachment, and the secret
    that it needs there."""
    initiator = f"iqn.2026-11.dev.resizeflow:{_uuid_of(db, host)}"
    attachment_id = attachments.reserve(db, volume_id, uuid)
    attachments.connect(db, attachment_id, {"host": host, "initiator": initiator})
    attachments.complete(db, attachment_id)
    connection = connection_of(attachments.attachment(db, attachment_id))
    if connection.secret is not None:
        key = db.execute("SELECT ceph_key FROM cinder").fetchone()["ceph_key"]
        value = key if connection.password is None else connection.password.encode()
        db.execute(
            "INSERT OR IGNORE INTO secrets VALUES (?, ?, ?, NULL, ?)",
            (host, connection.secret.uuid, connection.secret.kind, value),
        )
    return Connected(connection, volume_id, initiator)


def with_volume(xml: str, device: str, volume: Connected) -> str:
    """The definition with one more disk, which is a volume, in the order of the devices' names."""
    root = etree.fromstring(xml)
    disk = etree.Element("disk", {"type": "network", "device": "disk"})
    etree.SubElement(disk, "target", {"dev": device, "bus": "virtio"})
    after = [target.getparent() for target in root.iterfind("devices/disk/target") if target.get("dev", "") > device]
    place = next((later for later in after if later is not None), None)
    if place is None:
        root.findall("devices")[0].append(disk)
    else:
        place.addprevious(disk)
    return connected(etree.tostring(root, encoding="unicode"), {device: volume})


def attach(db: sqlite3.Connection, host: str, uuid: str, volume_id: str, device: str) -> None:
    """A machine gets a volume as it is, running or not; one that runs writes on it at once."""
    volume = attached(db, host, uuid, volume_id)
    _change(db, host, uuid, lambda xml: with_volume(xml, device, volume))
    if db.execute("SELECT 1 FROM domains WHERE host = ? AND uuid = ? AND state = 'running'", (host, uuid)).fetchone():
        where = (f" run:{host}", volume_id)
        db.execute("UPDATE cinder_volumes SET content = content || ? WHERE id = ?", where)


def detach(db: sqlite3.Connection, host: str, uuid: str, volume_id: str) -> None:
    """A machine loses a volume as it is: the disk goes, then the attachment with which it was used."""
    _change(db, host, uuid, lambda xml: _without_volume(xml, volume_id))
    for row in attachments.attachments_of(db, volume_id):
        if row["instance"] == uuid and row["status"] == "attached":
            attachments.delete(db, row["id"])


def _without_volume(xml: str, volume_id: str) -> str:
    for device, known in volumes(xml).items():
        if known == volume_id:
            return without_disk(xml, device)
    return xml


def _change(db: sqlite3.Connection, host: str, uuid: str, change: Callable[[str], str]) -> None:
    row = db.execute("SELECT * FROM domains WHERE host = ? AND uuid = ?", (host, uuid)).fetchone()
    for column in ("inactive_xml", "live_xml"):
        xml = row[column]
        if xml is not None:
            where = (change(xml), host, uuid)
            db.execute(f"UPDATE domains SET {column} = ? WHERE host = ? AND uuid = ?", where)  # noqa: S608 - our names


def _uuid_of(db: sqlite3.Connection, host: str) -> str:
    return str(db.execute("SELECT uuid FROM hosts WHERE name = ?", (host,)).fetchone()["uuid"])
