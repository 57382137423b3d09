"""A simulated world as it is now, comparable with another moment and another run: without ids that a run makes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lxml import etree

from resizeflow.drivers.simulator.attachments import attachments_of
from resizeflow.drivers.simulator.disks import Shelf
from resizeflow.drivers.simulator.exports import name_of
from resizeflow.drivers.simulator.network_disks import openers
from resizeflow.drivers.simulator.taps import shown

GONE = "an attachment that is gone"
"""What an iSCSI volume's secret is for that nobody needs any more."""


@dataclass(frozen=True)
class SeenVolume:
    """A Cinder volume."""

    status: str
    attachments: tuple[tuple[str, str, str], ...]
    """Of each the machine, the status, and the host that it is connected to (`no host`)."""
    open_at: tuple[str, ...]
    content: str
    """A word for each write, oldest first."""


@dataclass(frozen=True)
class SeenPort:
    """A port of Neutron's."""

    instance: str
    """The machine that has it; empty if none."""
    status: str
    bindings: tuple[tuple[str, str, str], ...]
    """Of each the host, the status, and the vif_type."""


def snapshot(db: sqlite3.Connection, *, contents: bool) -> dict[str, Any]:
    """The whole world; without `contents` what guests wrote is left out."""
    hosts = db.execute("SELECT * FROM hosts JOIN places USING (name) ORDER BY name").fetchall()
    volumes = db.execute("SELECT * FROM cinder_volumes").fetchall()
    ports = db.execute("SELECT * FROM neutron_ports").fetchall()
    known = _attachments(db)
    return {
        "hosts": {host["name"]: _host(db, host, known) for host in hosts},
        "storages": {host["storage"]: _storage(Shelf.of(db, host["name"]), contents) for host in hosts},
        "cinder": {row["id"]: _volume(db, row, contents) for row in volumes},
        "neutron": {row["id"]: asdict(see_port(db, row)) for row in ports},
        "jobs": [
            f"{kind} of {row['uuid']} on {row['host']}"
            for kind in ("transfers", "merges")
            for row in db.execute(f"SELECT host, uuid FROM {kind} ORDER BY 1, 2")  # noqa: S608 - our names
        ],
    }


def see_volume(db: sqlite3.Connection, volume: sqlite3.Row) -> SeenVolume:
    """A Cinder volume as it is now."""
    rows = attachments_of(db, volume["id"])
    return SeenVolume(
        status=volume["status"],
        attachments=tuple(sorted((row["instance"], row["status"], _connected_to(row)) for row in rows)),
        open_at=tuple(host for host, _uuid in openers(db, name_of(volume["kind"], volume["id"]))),
        content=volume["content"],
    )


def see_port(db: sqlite3.Connection, port: sqlite3.Row) -> SeenPort:
    """A port of Neutron's as it is now; its bindings also when Neutron would not list them."""
    rows = db.execute("SELECT * FROM neutron_bindings WHERE port = ? ORDER BY host", (port["id"],)).fetchall()
    return SeenPort(
        instance=port["instance"],
        status=port["status"],
        bindings=tuple((row["host"], row["status"], row["vif_type"]) for row in rows),
    )


def _volume(db: sqlite3.Connection, volume: sqlite3.Row, contents: bool) -> dict[str, Any]:
    shown = asdict(see_volume(db, volume))
    if not contents:
        del shown["content"]
    return shown


def _attachments(db: sqlite3.Connection) -> Mapping[str, str]:
    """In place of the id of each attachment, what it is."""
    rows = db.execute("SELECT * FROM attachments").fetchall()
    return {row["id"]: f"an attachment that is {row['status']} to {_connected_to(row)}" for row in rows}


def _connected_to(attachment: sqlite3.Row) -> str:
    return "no host" if attachment["connector"] is None else str(json.loads(attachment["connector"])["host"])


def _host(db: sqlite3.Connection, host: sqlite3.Row, known: Mapping[str, str]) -> dict[str, Any]:
    domains = db.execute("SELECT * FROM domains WHERE host = ? ORDER BY uuid", (host["name"],))
    secrets = db.execute("SELECT * FROM secrets WHERE host = ?", (host["name"],))
    return {
        "up": bool(host["up"]),
        "domains": {
            row["uuid"]: {
                "name": row["name"],
                "state": row["state"],
                "autostart": bool(row["autostart"]),
                "incoming": bool(row["incoming"]),
                "inactive": _canonical(row["inactive_xml"], known),
                "live": _canonical(row["live_xml"], known),
            }
            for row in domains
        },
        "vlans": shown(db, host["name"]),
        "secrets": sorted(
            (row["kind"], _of(row["kind"], row["uuid"], known), row["migration"] or "") for row in secrets
        ),
    }


def _storage(shelf: Shelf, contents: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for volume in shelf.volumes():
        shown[volume.name] = {
            "capacity": volume.capacity,
            "format": volume.format,
            "backing": volume.backing_path,
        }
        if contents:
            shown[volume.name] |= {
                "allocation": volume.allocation,
                "content": shelf.content(volume.path),
            }
    return shown


def _of(kind: str, secret: str, known: Mapping[str, str]) -> str:
    """What a secret is for: that of a Ceph user is the same in every run; that of an iSCSI volume has the id of its
    attachment."""
    return secret if kind == "ceph" else known.get(secret, GONE)


def _canonical(xml: str | None, known: Mapping[str, str]) -> str | None:
    if xml is None:
        return None
    root = etree.fromstring(xml)
    for auth in root.iterfind("devices/disk//auth"):
        for secret in auth.iterfind("secret[@type='iscsi']"):
            secret.set("uuid", _of("iscsi", secret.get("uuid", ""), known))
            auth.set("username", "whom the target knows")
    return str(etree.canonicalize(etree.tostring(root, encoding="unicode"), strip_text=True))
