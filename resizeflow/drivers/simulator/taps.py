"""What the bridges of simulated hosts consist of: one uplink each, and the taps of what runs on the host.

A tap has its name from its NIC's MAC, and belongs to no VLAN when its machine starts, as on a bridge whose
`vlan_default_pvid` is 0.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from lxml import etree

from resizeflow.drivers.bridge import BridgeLink, Member
from resizeflow.drivers.definition import Nic, read

UPLINK = "uplink0"


def device_of(nic: Nic) -> str:
    """The name of a NIC's tap."""
    return nic.device or f"tap{nic.mac.replace(':', '')}"[:15]


@lru_cache(maxsize=64)
def with_devices(live_xml: str) -> str:
    """The definition of what runs with the names of its taps, as libvirt shows it."""
    if "<interface" not in live_xml:
        return live_xml
    names = [device_of(nic) for nic in read(live_xml).nics]
    root = etree.fromstring(live_xml)
    for interface, name in zip(root.iterfind("devices/interface"), names, strict=True):
        if interface.find("target") is None:
            etree.SubElement(interface, "target", {"dev": name})
    return etree.tostring(root, encoding="unicode")


def new_taps(db: sqlite3.Connection, host: str, nics: tuple[Nic, ...]) -> None:
    """A machine starts: nobody has put its taps into a VLAN."""
    for nic in nics:
        db.execute("DELETE FROM tap_vlans WHERE host = ? AND device = ?", (host, device_of(nic)))


def put(db: sqlite3.Connection, host: str, device: str, vlan: int) -> None:
    """A tap is in a VLAN from now on."""
    db.execute("REPLACE INTO tap_vlans VALUES (?, ?, ?)", (host, device, vlan))


def filter_vlans(db: sqlite3.Connection, host: str, bridge: str) -> None:
    """A bridge filters VLANs from now on."""
    db.execute("INSERT OR IGNORE INTO vlan_bridges VALUES (?, ?)", (host, bridge))


def place(db: sqlite3.Connection, host: str, uuid: str, vlan: int) -> None:
    """All that a machine has on bridges of its host that filter VLANs is in one, as if somebody had put it there."""
    row = db.execute("SELECT inactive_xml FROM domains WHERE host = ? AND uuid = ?", (host, uuid)).fetchone()
    filtering = [row["bridge"] for row in db.execute("SELECT bridge FROM vlan_bridges WHERE host = ?", (host,))]
    plugged = dict(taps(db, host))
    for nic in read(row["inactive_xml"]).nics:
        if nic.bridge in filtering:
            db.execute("INSERT OR IGNORE INTO uplink_vlans VALUES (?, ?, ?)", (host, nic.bridge, vlan))
            if device_of(nic) in plugged:
                put(db, host, device_of(nic), vlan)


def carried_by(db: sqlite3.Connection, host: str, bridge: str) -> list[int]:
    """The VLANs that a bridge's uplink is in."""
    rows = db.execute("SELECT vlan FROM uplink_vlans WHERE host = ? AND bridge = ? ORDER BY vlan", (host, bridge))
    return [row["vlan"] for row in rows]


def shown(db: sqlite3.Connection, host: str) -> dict[str, Any]:
    """The VLANs of a host's bridges that filter them, and of the taps there; for `snapshot`."""
    bridges = [row["bridge"] for row in db.execute("SELECT bridge FROM vlan_bridges WHERE host = ?", (host,))]
    inside = {device: tap(db, host, device).pvid for device, nic in taps(db, host) if nic.bridge in bridges}
    return {"uplinks": {bridge: carried_by(db, host, bridge) for bridge in bridges}, "taps": inside}


def taps(db: sqlite3.Connection, host: str) -> Iterator[tuple[str, Nic]]:
    """The taps of a host, by name, each with its NIC."""
    rows = db.execute("SELECT live_xml FROM domains WHERE host = ? AND live_xml IS NOT NULL", (host,)).fetchall()
    return ((device_of(nic), nic) for row in rows for nic in read(row["live_xml"]).nics)


def tap(db: sqlite3.Connection, host: str, device: str) -> BridgeLink:
    """A tap with the VLAN that it is in."""
    row = db.execute("SELECT vlan FROM tap_vlans WHERE host = ? AND device = ?", (host, device)).fetchone()
    if row is None:
        return BridgeLink(device, Member.TAP)
    own = frozenset({int(row["vlan"])})
    return BridgeLink(device, Member.TAP, own, own, int(row["vlan"]))
