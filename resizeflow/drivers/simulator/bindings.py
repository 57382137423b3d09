"""Neutron's rules for ports and their bindings, within a transaction of the simulated world.

Sources, Neutron 29: neutron/plugins/ml2/plugin.py (`create_port_binding`, `activate`, `_commit_port_binding`,
`delete_port_binding`, `_validate_port_supports_multiple_bindings`), neutron/plugins/ml2/drivers/mech_agent.py
(`bind_port`); each answer was seen at a running one. The messages are its own.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from resizeflow.drivers.interface import Exists, Missing, Refused, Unknown
from resizeflow.drivers.network import ACTIVE, BINDING_FAILED, UNBOUND, NetworkPort, PortBinding
from resizeflow.drivers.simulator.agents import is_alive

BRIDGE = "br-int"
"""Into which ports are plugged on every host."""
INACTIVE = "INACTIVE"
_BOUND = "ovs"
_SERVER_ERROR = "Request Failed: internal server error while processing your request."


def port(db: sqlite3.Connection, port_id: str) -> sqlite3.Row:
    """A port. Raises `Missing`."""
    row: sqlite3.Row | None = db.execute("SELECT * FROM neutron_ports WHERE id = ?", (port_id,)).fetchone()
    if row is None:
        raise Missing(f"Port {port_id} could not be found.")
    return row


def bindings_of(db: sqlite3.Connection, port_id: str) -> list[sqlite3.Row]:
    """All bindings of a port, by their hosts. Raises `Missing`, and `Refused` for a port that no machine has."""
    _port_of_a_machine(db, port_id)
    return db.execute("SELECT * FROM neutron_bindings WHERE port = ? ORDER BY host", (port_id,)).fetchall()


def create(db: sqlite3.Connection, port_id: str, host: str, vnic_type: str, profile: Mapping[str, Any]) -> None:
    """Makes a binding: inactive, unless the port has no active one. Raises `Exists`, and `Unknown` where it cannot be
    bound, or there is no such port: Neutron answers 500, and nothing is left."""
    try:
        there = {row["host"] for row in bindings_of(db, port_id)}
    except Missing:
        raise Unknown(_SERVER_ERROR) from None
    if host in there:
        raise Exists(f"Binding for port {port_id} on host {host} already exists.")
    if _bind(db, host, vnic_type) != _BOUND:
        raise Unknown(f"Binding for port {port_id} on host {host} could not be created or updated.")
    status = ACTIVE if _active(db, port_id) is None else INACTIVE
    db.execute(
        "INSERT INTO neutron_bindings VALUES (?, ?, ?, ?, ?, ?)",
        (port_id, host, status, _BOUND, vnic_type, json.dumps(dict(profile))),
    )


def activate(db: sqlite3.Connection, port_id: str, host: str) -> None:
    """Makes a binding the active one, as it is; the one that was active stays, unbound. One that was active before is
    so still, until the host's agent asks for it. Raises `Missing`, `Exists`, and `Unknown` where none is active."""
    hosts = {row["host"] for row in bindings_of(db, port_id)}
    active = _active(db, port_id)
    if active is None:
        raise Unknown(_SERVER_ERROR)
    if active["host"] == host:
        raise Exists(f"Binding for port {port_id} on host {host} is already active.")
    if host not in hosts:
        raise Missing(f"Binding for port {port_id} for host {host} could not be found.")
    _set(db, port_id, active["host"], status=INACTIVE, vif_type=UNBOUND)
    _set(db, port_id, host, status=ACTIVE)
    db.execute("UPDATE neutron_ports SET status = 'DOWN', seen_at = NULL WHERE id = ?", (port_id,))


def delete(db: sqlite3.Connection, port_id: str, host: str) -> None:
    """Deletes a binding, the active one too. Raises `Missing`."""
    if host not in {row["host"] for row in bindings_of(db, port_id)}:
        raise Missing(f"Binding for port {port_id} for host {host} could not be found.")
    db.execute("DELETE FROM neutron_bindings WHERE port = ? AND host = ?", (port_id, host))


def give(db: sqlite3.Connection, port_id: str, instance: str, host: str) -> None:
    """A machine gets the port, as whoever attaches one updates it (neutron/plugins/ml2/plugin.py, `update_port`): the
    active binding is to the host, `binding_failed` where it cannot be bound. Raises `Unknown` if there is an inactive
    one to the host already, and `Refused` if the port is another machine's."""
    if port(db, port_id)["instance"] not in ("", instance):
        raise Refused(f"Port {port_id} is still in use.")
    db.execute("UPDATE neutron_ports SET instance = ? WHERE id = ?", (instance, port_id))
    if any(row["host"] == host for row in bindings_of(db, port_id)):
        raise Unknown(_SERVER_ERROR)
    vif_type = _bind(db, host, "normal")
    db.execute("INSERT INTO neutron_bindings VALUES (?, ?, ?, ?, 'normal', '{}')", (port_id, host, ACTIVE, vif_type))


def take(db: sqlite3.Connection, port_id: str) -> None:
    """The machine that has the port loses it, as whoever detaches one updates it. Inactive bindings
    stay, and nobody can list, activate or delete them until a machine has the port again."""
    port(db, port_id)
    db.execute("DELETE FROM neutron_bindings WHERE port = ? AND status = ?", (port_id, ACTIVE))
    db.execute("UPDATE neutron_ports SET instance = '', status = 'DOWN', seen_at = NULL WHERE id = ?", (port_id,))


def remove(db: sqlite3.Connection, port_id: str) -> None:
    """The port is gone, with all its bindings."""
    port(db, port_id)
    for query in ("DELETE FROM neutron_bindings WHERE port = ?", "DELETE FROM neutron_ports WHERE id = ?"):
        db.execute(query, (port_id,))


def shown_port(row: sqlite3.Row) -> NetworkPort:
    """A port as its driver tells it."""
    return NetworkPort(row["id"], row["mac"], row["instance"], row["status"], row["mtu"])


def shown_binding(row: sqlite3.Row) -> PortBinding:
    """A binding as its driver tells it: one that is not bound has no details."""
    return PortBinding(
        host=row["host"],
        active=row["status"] == ACTIVE,
        vif_type=row["vif_type"],
        vnic_type=row["vnic_type"],
        bridge=BRIDGE if row["vif_type"] == _BOUND else None,
        profile=json.loads(row["profile"]),
    )


def _port_of_a_machine(db: sqlite3.Connection, port_id: str) -> None:
    if not port(db, port_id)["instance"]:
        raise Refused(
            f"Bad port request: Invalid port {port_id}. Operation only valid on compute and shared filesystem ports."
        )


def _active(db: sqlite3.Connection, port_id: str) -> sqlite3.Row | None:
    query = "SELECT * FROM neutron_bindings WHERE port = ? AND status = ?"
    row: sqlite3.Row | None = db.execute(query, (port_id, ACTIVE)).fetchone()
    return row


def _bind(db: sqlite3.Connection, host: str, vnic_type: str) -> str:
    """The vif_type that the mechanism driver finds: only a live agent of the host's binds, and ordinary ports only."""
    return _BOUND if vnic_type == "normal" and is_alive(db, host) else BINDING_FAILED


def _set(db: sqlite3.Connection, port_id: str, host: str, **values: str) -> None:
    columns = ", ".join(f"{column} = ?" for column in values)
    where = (*values.values(), port_id, host)
    db.execute(f"UPDATE neutron_bindings SET {columns} WHERE port = ? AND host = ?", where)  # noqa: S608 - our names
