"""Neutron's agents on simulated hosts: each looks for the ports of its host on the bridge there, and tells Neutron.

An agent tells what it sees whenever Neutron is asked something, first that a port has come, later that it is plugged
in. So whoever does not ask, and wait, runs a machine whose ports are dead: that is an effect in the log.
"""

from __future__ import annotations

import sqlite3

from resizeflow.drivers.definition import read
from resizeflow.drivers.network import ACTIVE, UNBOUND
from resizeflow.drivers.simulator.effects import Cause, Origin, log
from resizeflow.drivers.simulator.store import setting

KIND = "Open vSwitch agent"
UNPLUGGED = "unplugged"
"""As an effect on a port: its machine's CPUs ran before it was plugged in; its digest is the host it was bound to."""


def is_alive(db: sqlite3.Connection, host: str) -> bool:
    """Whether a host has an agent that Neutron hears of: not one of a host without power."""
    query = """SELECT 1 FROM neutron_agents WHERE host = ? AND alive
               AND NOT EXISTS (SELECT 1 FROM hosts WHERE name = neutron_agents.host AND booting)"""
    return db.execute(query, (host,)).fetchone() is not None


def report(db: sqlite3.Connection, now: float, *, finished: bool = False) -> None:
    """All agents that are alive tell what they see; `finished`: after as long as it takes."""
    query = """SELECT p.*, b.host, b.vif_type, a.plugs FROM neutron_ports p
               JOIN neutron_bindings b ON b.port = p.id AND b.status = ? JOIN neutron_agents a USING (host)"""
    for row in db.execute(query, (ACTIVE,)).fetchall():
        if not is_alive(db, row["host"]):
            continue
        if not row["plugs"] or row["id"] not in _on_bridge(db, row["host"]):
            _tell(db, row["id"], "DOWN", None)
            continue
        if row["vif_type"] == UNBOUND:
            # An agent asks for the details of what it finds, and Neutron binds it then.
            where = ("ovs", row["id"], row["host"])
            db.execute("UPDATE neutron_bindings SET vif_type = ? WHERE port = ? AND host = ?", where)
        since = now if row["seen_at"] is None else row["seen_at"]
        plugged = finished or now - since >= setting(db, "plug_seconds") or row["status"] == ACTIVE
        _tell(db, row["id"], ACTIVE if plugged else "DOWN", since)


def log_unplugged(db: sqlite3.Connection, host: str, xml: str, now: float) -> None:
    """A guest's CPUs begin to run: logs those of its ports that are not plugged in yet."""
    for port_id in _ports(xml):
        query = """SELECT b.host FROM neutron_ports p LEFT JOIN neutron_bindings b ON b.port = p.id AND b.status = ?
                   WHERE p.id = ? AND (p.status != ? OR b.host IS NOT ?)"""
        for row in db.execute(query, (ACTIVE, port_id, ACTIVE, host)).fetchall():
            by, bound = Origin(caused=Cause.WORLD), row["host"] or ""
            log(db, by, time=now, host=host, method=UNPLUGGED, subject=port_id, digest=bound)


def _tell(db: sqlite3.Connection, port_id: str, status: str, seen_at: float | None) -> None:
    db.execute("UPDATE neutron_ports SET status = ?, seen_at = ? WHERE id = ?", (status, seen_at, port_id))


def _on_bridge(db: sqlite3.Connection, host: str) -> set[str]:
    """The ports of all machines that run, or are paused, on a host."""
    live = db.execute("SELECT live_xml FROM domains WHERE host = ? AND live_xml IS NOT NULL", (host,)).fetchall()
    return {port_id for row in live for port_id in _ports(row["live_xml"])}


def _ports(xml: str) -> list[str]:
    """The ports of a definition, as Open vSwitch is told of them."""
    return [nic.interface_id for nic in read(xml).nics if nic.interface_id is not None]
