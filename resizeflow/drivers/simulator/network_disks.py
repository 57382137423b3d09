"""The network disks of a simulated host's domains: what QEMU needs to open one, who has one open, what it writes."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from lxml import etree

from resizeflow.drivers.interface import Refused
from resizeflow.drivers.simulator.attachments import attachments_of
from resizeflow.drivers.simulator.effects import Cause, Origin, log
from resizeflow.drivers.simulator.exports import named
from resizeflow.drivers.simulator.store import boottime

SHARED = "shared"
"""As an effect on a volume: a domain opened it for writing while another domain had it open."""


@dataclass(frozen=True)
class NetworkDisk:
    """A disk of type `network`, as QEMU is told of it."""

    name: str
    user: str | None
    secret: str | None
    """The UUID of a libvirt secret."""
    initiator: str | None
    readonly: bool


def network_disks(xml: str) -> tuple[NetworkDisk, ...]:
    """The network disks of a definition."""
    return tuple(_read(disk) for disk in etree.fromstring(xml).findall("devices/disk[@type='network']"))


def open_all(db: sqlite3.Connection, host: str, uuid: str, xml: str) -> None:
    """A domain that starts opens its network disks; in a world without Cinder all but retired ones are opened.

    Raises `Refused` as QEMU does. That another domain has the volume open does not stop it: RBD's lock goes to the
    last who writes, the others have none. That is an effect in the log.
    """
    with_cinder = db.execute("SELECT 1 FROM cinder").fetchone() is not None
    for disk in network_disks(xml):
        if "RETIRED-" in disk.name:
            raise Refused(f"cannot open '{disk.name}': No such file or directory")
        if with_cinder:
            _open(db, host, uuid, disk)


def write_all(db: sqlite3.Connection, host: str, xml: str) -> None:
    """A guest's CPUs run with these disks: they are not what they were."""
    for disk in network_disks(xml):
        volume = named(db, disk.name)
        if volume is not None and not disk.readonly:
            words = f"{volume['content']} run:{host}"
            db.execute("UPDATE cinder_volumes SET content = ? WHERE id = ?", (words, volume["id"]))


def openers(db: sqlite3.Connection, name: str) -> list[tuple[str, str]]:
    """The hosts and UUIDs of the domains that have a volume open by its name, on hosts that do not answer as well. A
    target cuts off those that it does not admit any more."""
    volume = named(db, name)
    admitted = None if volume is None or volume["kind"] != "iscsi" else _admitted(db, volume)
    live = db.execute("SELECT host, uuid, live_xml FROM domains WHERE live_xml IS NOT NULL ORDER BY host").fetchall()
    return [
        (row["host"], row["uuid"])
        for row in live
        for disk in network_disks(row["live_xml"])
        if disk.name == name and (admitted is None or disk.initiator in admitted)
    ]


def _open(db: sqlite3.Connection, host: str, uuid: str, disk: NetworkDisk) -> None:
    volume = named(db, disk.name)
    if volume is None:
        raise Refused(f"cannot open '{disk.name}': No such file or directory")
    if volume["kind"] == "rbd":
        key = db.execute("SELECT ceph_key FROM cinder").fetchone()["ceph_key"]
        if _secret(db, host, disk) != key:
            raise Refused(f"error connecting to '{disk.name}': Operation not permitted")
    elif volume["kind"] == "iscsi":
        _log_in(db, host, disk, volume)
    if disk.readonly or volume["multiattach"]:
        return
    for other in openers(db, disk.name):
        if other != (host, uuid):
            by = Origin(caused=Cause.WORLD)
            log(db, by, time=boottime(), host=host, method=SHARED, subject=volume["id"], digest=other[0])


def _log_in(db: sqlite3.Connection, host: str, disk: NetworkDisk, volume: sqlite3.Row) -> None:
    """Raises `Refused` unless there is a target, for this initiator, which is the host's, and the password is right."""
    own = db.execute("SELECT uuid FROM hosts WHERE name = ?", (host,)).fetchone()["uuid"]
    initiator = disk.initiator or ""
    if not initiator.endswith(own) or initiator not in _admitted(db, volume):
        raise Refused(f"iSCSI: Failed to connect to LUN '{disk.name}': Target not found")
    value = _secret(db, host, disk)
    if disk.user != volume["chap_user"] or value != volume["chap_password"].encode():
        raise Refused(f"iSCSI: Failed to connect to LUN '{disk.name}': Authentication failure(513)")


def _admitted(db: sqlite3.Connection, volume: sqlite3.Row) -> set[str]:
    """The initiators that a target admits."""
    connected = (row["connector"] for row in attachments_of(db, volume["id"]) if row["connection_info"])
    return {json.loads(connector)["initiator"] for connector in connected}


def _secret(db: sqlite3.Connection, host: str, disk: NetworkDisk) -> bytes:
    where = (host, disk.secret)
    row = db.execute("SELECT value FROM secrets WHERE host = ? AND uuid = ?", where).fetchone()
    if row is None:
        raise Refused(f"Secret not found: no secret with matching uuid '{disk.secret}'")
    if row["value"] is None:
        raise Refused(f"Secret not found: secret '{disk.secret}' does not have a value")
    return bytes(row["value"])


def _read(disk: etree._Element) -> NetworkDisk:
    source, auth, iqn = disk.find("source"), disk.find(".//auth"), disk.find("source/initiator/iqn")
    secret = None if auth is None else auth.find("secret")
    return NetworkDisk(
        name="" if source is None else source.get("name", ""),
        user=None if auth is None else auth.get("username"),
        secret=None if secret is None else secret.get("uuid"),
        initiator=None if iqn is None else iqn.get("name"),
        readonly=disk.find("readonly") is not None,
    )
