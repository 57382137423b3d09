"""A simulated Cinder: its attachments, its errors, and what is left of a call in whose middle it was killed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from resizeflow.drivers.interface import Missing, Refused
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.simulator import attachments
from resizeflow.drivers.simulator.network_disks import openers
from resizeflow.drivers.simulator.session import Session
from resizeflow.drivers.volume import (
    Attachment,
    CinderVolume,
    ServiceFacts,
    VolumeConnection,
    VolumeService,
    read_connection,
)

CINDER = "cinder"
"""Its name among the places of a world."""


class SimulatedCinder(VolumeService):
    """Cinder, for the length of a call. Its acts are logged by the volume that they are about."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # --- looks -------------------------------------------------------------------------------------------

    def service(self) -> ServiceFacts:
        with self._session.looking("service"):
            return ServiceFacts(newest="3.71", oldest="3.0")

    def cinder_volume(self, volume_id: str) -> CinderVolume | None:
        with self._session.looking("cinder_volume") as db:
            try:
                row = attachments.volume(db, volume_id)
            except Missing:
                return None
        return CinderVolume(row["id"], row["name"], row["status"], row["gib"], multiattach=bool(row["multiattach"]))

    def attachment(self, attachment_id: str) -> Attachment | None:
        with self._session.looking("attachment") as db:
            try:
                return _shown(attachments.attachment(db, attachment_id))
            except Missing:
                return None

    def attachments(self, instance_id: str | None, volume_id: str | None = None) -> tuple[Attachment, ...]:
        with self._session.looking("attachments") as db:
            rows = db.execute(
                "SELECT * FROM attachments WHERE coalesce(?, instance) IS instance AND coalesce(?, volume) = volume "
                "ORDER BY id",
                (instance_id, volume_id),
            )
            return tuple(_shown(row) for row in rows)

    def connection(self, attachment_id: str) -> VolumeConnection:
        with self._session.looking("connection") as db:
            return connection_of(attachments.attachment(db, attachment_id))

    def watchers(self, connection: VolumeConnection, key: Secret | None) -> tuple[str, ...]:
        with self._session.looking("watchers") as db:
            if key is None or key.value != db.execute("SELECT ceph_key FROM cinder").fetchone()["ceph_key"]:
                raise Refused(f"Ceph cannot be asked who has {connection.name} open: the key of its user is needed")
            return tuple(dict.fromkeys(host for host, _uuid in openers(db, connection.name)))

    # --- acts --------------------------------------------------------------------------------------------

    def create_attachment(self, volume_id: str, instance_id: str) -> str:
        with self._session.acting("create_attachment", volume_id, instance_id) as db:
            return attachments.reserve(db, volume_id, instance_id)

    def update_attachment(self, attachment_id: str, connector: Mapping[str, Any]) -> None:
        with self._session.acting("update_attachment", self._volume_of(attachment_id), connector) as db:
            attachments.connect(db, attachment_id, connector)

    def complete_attachment(self, attachment_id: str) -> None:
        with self._session.acting("complete_attachment", self._volume_of(attachment_id)) as db:
            attachments.complete(db, attachment_id)

    def delete_attachment(self, attachment_id: str) -> None:
        with self._session.acting("delete_attachment", self._volume_of(attachment_id)) as db:
            attachments.delete(db, attachment_id)

    def reset_volume(self, volume_id: str, status: str, attach_status: str) -> None:
        with self._session.acting("reset_volume", volume_id, status, attach_status) as db:
            attachments.reset(db, volume_id, status, attach_status)

    def _volume_of(self, attachment_id: str) -> str:
        """Before the call, so nothing is refused yet."""
        row = self._session.store.row("SELECT volume FROM attachments WHERE id = ?", (attachment_id,))
        return attachment_id if row is None else str(row["volume"])


def connection_of(attachment: sqlite3.Row) -> VolumeConnection:
    """How QEMU opens an attachment. Raises `Refused` for one that is not connected."""
    if attachment["connection_info"] is None:
        raise Refused(f"Attachment {attachment['id']} is {attachment['status']}, connected to no host.")
    return read_connection(attachment["id"], json.loads(attachment["connection_info"]))


def _shown(row: sqlite3.Row) -> Attachment:
    half = row["status"] != "reserved" and row["connection_info"] is None
    return Attachment(row["id"], row["volume"], row["instance"], row["status"], half)
