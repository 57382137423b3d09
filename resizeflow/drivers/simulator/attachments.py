"""Cinder's rules for volumes and their attachments, within a transaction of the simulated world.

Sources, Cinder 29: cinder/volume/api.py (`_attachment_reserve`, `attachment_update`), cinder/volume/manager.py
(`_connection_create`), cinder/db/api.py (`volume_attached`, `volume_detached`), cinder/api/v3/attachments.py
(`complete`), cinder/api/contrib/admin_actions.py (`_reset_status`). The messages are its own.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping
from typing import Any

from resizeflow.drivers.interface import Missing, Refused
from resizeflow.drivers.simulator import exports

_VOLUME_STATUS = {"attached": "in-use", "detached": "available"}
"""Where a volume's status is another word than that of its attachments."""


def volume(db: sqlite3.Connection, volume_id: str) -> sqlite3.Row:
    """A volume. Raises `Missing`."""
    row: sqlite3.Row | None = db.execute("SELECT * FROM cinder_volumes WHERE id = ?", (volume_id,)).fetchone()
    if row is None:
        raise Missing(f"Volume {volume_id} could not be found.")
    return row


def attachment(db: sqlite3.Connection, attachment_id: str) -> sqlite3.Row:
    """An attachment. Raises `Missing`."""
    row: sqlite3.Row | None = db.execute("SELECT * FROM attachments WHERE id = ?", (attachment_id,)).fetchone()
    if row is None:
        raise Missing(f"Volume attachment could not be found with filter: attachment_id = {attachment_id}.")
    return row


def attachments_of(db: sqlite3.Connection, volume_id: str) -> list[sqlite3.Row]:
    """All attachments of a volume, oldest first."""
    return db.execute("SELECT * FROM attachments WHERE volume = ? ORDER BY number", (volume_id,)).fetchall()


def reserve(db: sqlite3.Connection, volume_id: str, instance_id: str) -> str:
    """Makes a blank attachment, one more each time; its id."""
    found = volume(db, volume_id)
    status = found["status"]
    if "error" in status:
        raise Refused(
            f"Invalid volume: Volume attachments can not be created if the volume is in an error state. "
            f"The Volume {volume_id} currently has a status of: {status}"
        )
    free = ("available", "in-use", "downloading") if found["multiattach"] else ("available", "downloading")
    if status in free:
        db.execute("UPDATE cinder_volumes SET status = 'reserved' WHERE id = ?", (volume_id,))
    elif status not in ("in-use", "reserved") or not _has_attachment(db, volume_id, instance_id):
        raise Refused(
            f"Invalid volume: Volume {volume_id} status must be {' or '.join(free)} to reserve, "
            f"but the current status is {status}."
        )
    attachment_id = str(uuid.uuid4())
    db.execute(
        "INSERT INTO attachments (id, volume, instance, status) VALUES (?, ?, ?, 'reserved')",
        (attachment_id, volume_id, instance_id),
    )
    return attachment_id


def connect(db: sqlite3.Connection, attachment_id: str, connector: Mapping[str, Any]) -> None:
    """Exports the volume for a connector's host. Of a volume that is not for several machines no attachment may be
    connected, this one included, unless it is the only one."""
    row = attachment(db, attachment_id)
    found = volume(db, row["volume"])
    if "error" in found["status"]:
        raise Refused(
            f"Resource conflict: Volume attachments can not be updated if the volume is in an error state. "
            f"The Volume {found['id']} currently has a status of: {found['status']}"
        )
    others = attachments_of(db, found["id"])
    if len(others) > 1 and not found["multiattach"] and any(other["connection_info"] for other in others):
        raise Refused(f"Resource conflict: duplicate connectors detected on volume {found['id']}")
    info = exports.export(db, found, attachment_id, connector)
    db.execute(
        "UPDATE attachments SET status = 'attaching', connector = ?, connection_info = ? WHERE id = ?",
        (json.dumps(dict(connector)), json.dumps(info), attachment_id),
    )
    _set_status(db, found["id"], "attaching", "attaching")


def complete(db: sqlite3.Connection, attachment_id: str) -> None:
    """The attachment is in use: nothing is checked, a blank one is completed as well."""
    row = attachment(db, attachment_id)
    db.execute("UPDATE attachments SET status = 'attached' WHERE id = ?", (attachment_id,))
    _set_status(db, row["volume"], "in-use", "attached")


def delete(db: sqlite3.Connection, attachment_id: str) -> None:
    """Ends an attachment, and the export with the last that is connected. The volume is what the others make it."""
    row = attachment(db, attachment_id)
    db.execute("DELETE FROM attachments WHERE id = ?", (attachment_id,))
    left = attachments_of(db, row["volume"])
    if row["status"] != "reserved" and not any(other["connection_info"] for other in left):
        exports.end(db, row["volume"])
    statuses = sorted(other["status"] for other in left)  # attached before attaching before reserved
    attach_status = statuses[0] if statuses else "detached"
    _set_status(db, row["volume"], _VOLUME_STATUS.get(attach_status, attach_status), attach_status)


def reset(db: sqlite3.Connection, volume_id: str, status: str, attach_status: str) -> None:
    """Sets what Cinder believes; a volume that is said to be detached loses its attachments."""
    volume(db, volume_id)
    left = attachments_of(db, volume_id)
    if status == "in-use" and not left:
        raise Refused("Cannot reset-state to in-use because volume does not have any attachments.")
    _set_status(db, volume_id, status, attach_status)
    if attach_status == "detached":
        for row in left:
            delete(db, row["id"])


def _has_attachment(db: sqlite3.Connection, volume_id: str, instance_id: str) -> bool:
    return any(row["instance"] == instance_id for row in attachments_of(db, volume_id))


def _set_status(db: sqlite3.Connection, volume_id: str, status: str, attach_status: str) -> None:
    where = (status, attach_status, volume_id)
    db.execute("UPDATE cinder_volumes SET status = ?, attach_status = ? WHERE id = ?", where)
