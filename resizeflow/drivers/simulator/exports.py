"""Where the back ends of a simulated Cinder keep volumes, and how a QEMU opens them: Ceph, an iSCSI target, NFS.

Ceph lets in whoever has its key. A target is there while an attachment is connected, for the initiator of the
connector, with credentials of its own. An NFS server asks nothing.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping
from typing import Any

from resizeflow.drivers.interface import Refused

KINDS = ("rbd", "iscsi", "nfs")
CEPH_USER = "cinder"
CEPH_SECRET = "457eb676-33da-42ec-9a8c-9293d545c337"  # noqa: S105 - its UUID, not its value
KEY, PASSWORD = "SIMULATED-CEPH-KEY-", "SIMULATED-CHAP-"
"""What the secret values of a simulated world begin with: wherever that is found, one has leaked."""
_PREFIXES = {"rbd": "volumes/volume-", "iscsi": "iqn.2010-10.org.openstack:volume-", "nfs": "/export/volume-"}
_ADDRESS = "198.51.100.2"


def new_key() -> bytes:
    """A Ceph user's key."""
    return f"{KEY}{secrets.token_hex(8)}".encode()


def name_of(kind: str, volume_id: str) -> str:
    """A volume's name in a disk's definition."""
    return f"{_PREFIXES[kind]}{volume_id}" + ("/1" if kind == "iscsi" else "")


def named(db: sqlite3.Connection, name: str) -> sqlite3.Row | None:
    """The volume that a disk's definition names, None if there is none of that name."""
    rows = db.execute("SELECT * FROM cinder_volumes").fetchall()
    return next((row for row in rows if name_of(row["kind"], row["id"]) == name), None)


def export(
    db: sqlite3.Connection, volume: sqlite3.Row, attachment_id: str, connector: Mapping[str, Any]
) -> dict[str, Any]:
    """Exports a volume; the connection_info, as Cinder stores it. Raises `Refused` for a connector that lacks the
    initiator of a target."""
    kind = volume["kind"]
    info = {"rbd": _rbd, "iscsi": _iscsi, "nfs": _nfs}[kind](db, volume, connector)
    return info | {
        "driver_volume_type": kind,
        "qos_specs": None,
        "access_mode": "rw",
        "encrypted": False,
        "cacheable": False,
        "attachment_id": attachment_id,
        "enforce_multipath": False,
    }


def end(db: sqlite3.Connection, volume_id: str) -> None:
    """Nobody is connected any more: a target is gone, with its credentials."""
    db.execute("UPDATE cinder_volumes SET chap_user = NULL, chap_password = NULL WHERE id = ?", (volume_id,))


def _rbd(_db: sqlite3.Connection, volume: sqlite3.Row, _connector: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name_of("rbd", volume["id"]),
        "hosts": [_ADDRESS],
        "ports": ["6789"],
        "cluster_name": "ceph",
        "auth_enabled": True,
        "auth_username": CEPH_USER,
        "secret_type": "ceph",
        "secret_uuid": CEPH_SECRET,
        "volume_id": volume["id"],
        "discard": True,
    }


def _iscsi(db: sqlite3.Connection, volume: sqlite3.Row, connector: Mapping[str, Any]) -> dict[str, Any]:
    if "initiator" not in connector:
        raise Refused("Invalid input received: Connector doesn't have required information: initiator")
    user, password = volume["chap_user"], volume["chap_password"]
    if user is None:
        user, password = secrets.token_hex(10), PASSWORD + secrets.token_hex(8)
        where = (user, password, volume["id"])
        db.execute("UPDATE cinder_volumes SET chap_user = ?, chap_password = ? WHERE id = ?", where)
    target, _, lun = name_of("iscsi", volume["id"]).rpartition("/")
    return {
        "target_discovered": False,
        "target_portal": f"{_ADDRESS}:3260",
        "target_iqn": target,
        "target_lun": int(lun),
        "volume_id": volume["id"],
        "auth_method": "CHAP",
        "auth_username": user,
        "auth_password": password,
    }


def _nfs(_db: sqlite3.Connection, volume: sqlite3.Row, _connector: Mapping[str, Any]) -> dict[str, Any]:
    folder, _, name = name_of("nfs", volume["id"]).rpartition("/")
    return {
        "export": f"{_ADDRESS}:{folder}",
        "name": name,
        "options": None,
        "format": "raw",
        "mount_point_base": "/var/lib/cinder/mnt",
    }
