"""The bridges of a simulated host that filter VLANs."""

from __future__ import annotations

import json
import sqlite3

from resizeflow.drivers.bridge import BridgeLink, Member
from resizeflow.drivers.interface import Missing, Refused
from resizeflow.drivers.simulator.host_session import HostSession
from resizeflow.drivers.simulator.taps import UPLINK, carried_by, put, tap, taps


def links(session: HostSession, bridge: str) -> tuple[BridgeLink, ...]:
    """The members of a bridge."""
    with session.looking("bridge_links") as db:
        _require(db, session, bridge)
        carried = frozenset(carried_by(db, session.name, bridge))
        plugged = dict(taps(db, session.name))
        found = [BridgeLink(bridge, Member.SELF), BridgeLink(UPLINK, Member.UPLINK, carried)]
        found += [tap(db, session.name, device) for device, nic in plugged.items() if nic.bridge == bridge]
        return tuple(sorted(found, key=lambda link: link.device))


def carry(session: HostSession, bridge: str, vlan: int) -> None:
    """The uplink is in the VLAN."""
    with session.acting("carry_vlan", f"{bridge}/{vlan}") as db:
        _require(db, session, bridge)
        if vlan not in carried_by(db, session.name, bridge):
            db.execute("INSERT INTO uplink_vlans VALUES (?, ?, ?)", (session.name, bridge, vlan))


def drop(session: HostSession, bridge: str, vlan: int) -> None:
    """The uplink is no more."""
    with session.acting("drop_vlan", f"{bridge}/{vlan}") as db:
        _require(db, session, bridge)
        where = (session.name, bridge, vlan)
        db.execute("DELETE FROM uplink_vlans WHERE host = ? AND bridge = ? AND vlan = ?", where)


def set_access(session: HostSession, device: str, vlan: int) -> None:
    """A tap is in the VLAN and in no other."""
    with session.acting("set_access_vlan", device, vlan) as db:
        if device == UPLINK:
            raise Refused(f"{device} is no machine's")
        if device not in dict(taps(db, session.name)):
            raise Missing(f'Cannot find device "{device}"')
        if tap(db, session.name, device).pvid != vlan:
            put(db, session.name, device, vlan)


def _require(db: sqlite3.Connection, session: HostSession, bridge: str) -> None:
    if bridge not in json.loads(session.host(db)["bridges"]):
        raise Missing(f"There is no bridge {bridge}")
    where = (session.name, bridge)
    if db.execute("SELECT 1 FROM vlan_bridges WHERE host = ? AND bridge = ?", where).fetchone() is None:
        raise Refused(f"Bridge {bridge} does not filter VLANs")
