"""What resizeflow asks of Cinder, in calls of python-cinderclient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cinderclient.exceptions import NotFound

from resizeflow.drivers.cinder import rbd
from resizeflow.drivers.interface import Refused, Unknown
from resizeflow.drivers.secret import Secret
from resizeflow.drivers.volume import (
    Attachment,
    CinderVolume,
    ServiceFacts,
    VolumeConnection,
    VolumeService,
    read_connection,
)

EVERYWHERE = {"all_tenants": 1}
"""Machines belong to many projects. Cinder listens to it from an administrator, else takes the caller's project."""
LEAD = 0.5
"""Seconds before the end of a call in which a command of ours still tells why it failed."""


class CinderService(VolumeService):
    """Cinder, for one call. What cinderclient raises is translated by who makes the call."""

    def __init__(self, client: Any, facts: ServiceFacts, timeout: float) -> None:
        self._client = client
        self._facts = facts
        self._timeout = timeout

    # --- looks -------------------------------------------------------------------------------------------

    def service(self) -> ServiceFacts:
        """That it answers what all tasks ask first, under the whole of its endpoint."""
        try:
            self._client.attachments.list(search_opts=EVERYWHERE, limit=1)
        except NotFound as error:
            raise Refused(f"Cinder's endpoint is wrong, or its project: {error.message}.") from None
        return self._facts

    def cinder_volume(self, volume_id: str) -> CinderVolume | None:
        """A volume."""
        try:
            found = self._client.volumes.get(volume_id)
        except NotFound:
            return None
        return CinderVolume(
            id=found.id,
            name=found.name or "",
            status=found.status,
            size_gb=found.size,
            multiattach=found.multiattach,
            encrypted=found.encrypted,
        )

    def attachment(self, attachment_id: str) -> Attachment | None:
        """An attachment."""
        try:
            return _attachment(self._client.attachments.show(attachment_id))
        except NotFound:
            return None

    def attachments(self, instance_id: str | None, volume_id: str | None = None) -> tuple[Attachment, ...]:
        """Page after page: Cinder ends a list after `osapi_max_limit` of them without a word."""
        wanted = {**EVERYWHERE, "instance_id": instance_id, "volume_id": volume_id}
        found: list[Attachment] = []
        try:
            while page := self._client.attachments.list(True, wanted, marker=found[-1].id if found else None):
                found += [_attachment(each) for each in page]
        except NotFound:
            raise Unknown("Cinder: attachments were deleted while they were listed.") from None
        return tuple(sorted(found, key=lambda each: each.id))

    def connection(self, attachment_id: str) -> VolumeConnection:
        """How QEMU opens it."""
        info = self._client.attachments.show(attachment_id).connection_info
        if not info:
            raise Refused(f"Attachment {attachment_id} is not connected.")
        return read_connection(attachment_id, info)

    def watchers(self, connection: VolumeConnection, key: Secret | None) -> tuple[str, ...]:
        """Who has an image open, as Ceph knows it."""
        return rbd.watchers(connection, key, self._timeout - LEAD)

    # --- acts --------------------------------------------------------------------------------------------

    def create_attachment(self, volume_id: str, instance_id: str) -> str:
        """A blank attachment."""
        return str(self._client.attachments.create(volume_id, None, instance_id)["id"])

    def update_attachment(self, attachment_id: str, connector: Mapping[str, Any]) -> None:
        """Connects it."""
        self._client.attachments.update(attachment_id, dict(connector))

    def complete_attachment(self, attachment_id: str) -> None:
        """Completes it."""
        self._client.attachments.complete(attachment_id)

    def delete_attachment(self, attachment_id: str) -> None:
        """Deletes it."""
        self._client.attachments.delete(attachment_id)

    def reset_volume(self, volume_id: str, status: str, attach_status: str) -> None:
        """Sets both states of a volume."""
        self._client.volumes.reset_state(volume_id, status, attach_status)


def _attachment(found: Any) -> Attachment:
    half = found.status != "reserved" and not found.connection_info
    return Attachment(found.id, found.volume_id, found.instance, found.status, half)
