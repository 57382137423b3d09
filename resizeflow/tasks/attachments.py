"""Steps on Cinder's attachments of a migration's volumes.

Cinder knows no key against repetition and no fence. So an id is stored right after its attachment was made, and what an
interrupted run (or a call that arrived late) made besides is found by volume and machine: a blank one that no record
names is taken for the next that is needed, or deleted. And where an attachment may have been sent for deletion, the way
back never uses it again: a deletion that arrives late finds nothing that is in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from resizeflow.drivers.definition import Connected
from resizeflow.drivers.interface import Missing, Refused
from resizeflow.drivers.volume import Attachment
from resizeflow.handover import Waiting
from resizeflow.persistence.models import Host, Migration, MovedVolume, Volume
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks import secrets
from resizeflow.tasks.base import WAIT_FOR_HOST, MoveTask
from resizeflow.volumes import AttachedVolume, connector_of, initiator_of, is_used

Which = Literal["source_attachment", "dest_attachment", "return_attachment", "onward_attachment"]
KINDS: tuple[Which, ...] = ("source_attachment", "dest_attachment", "return_attachment", "onward_attachment")
STILL_OPEN_LOOKS = 5
"""How often, a second apart, a volume that is still open somewhere is looked at before the job waits for it."""


def current(migration: Migration) -> list[MovedVolume]:
    """The volumes that the machine has: without those that were detached at the destination since."""
    return [volume for volume in migration.volumes if not volume.detached]


def record_volumes(tx: Transaction, instance_id: str, found: Sequence[AttachedVolume]) -> None:
    """The instance's record has exactly the volumes that were found."""
    instance = tx.instances.get(instance_id)
    known = {row.volume_id: row for row in instance.volumes}
    for one in found:
        row = known.pop(one.volume_id, None)
        if row is None:
            row = Volume(volume_id=one.volume_id)
            instance.volumes.append(row)
        row.device, row.size_gb, row.attachment_id = one.device, one.size_gb, one.attachment_id
    for gone in known.values():
        instance.volumes.remove(gone)


def use_attachments(tx: Transaction, migration: Migration, which: Which) -> None:
    """The instance's record names these attachments of the migration as those that the machine uses."""
    ids = {volume.volume_id: getattr(volume, which) for volume in current(tx.migrations.get(migration.id))}
    for row in tx.instances.get(migration.instance_id).volumes:
        row.attachment_id = ids.get(row.volume_id) or row.attachment_id


class Attachments:
    """The attachments of one volume of a migration, at Cinder and in the records."""

    def __init__(self, task: MoveTask, migration: Migration, volume: MovedVolume) -> None:
        self.task = task
        self.migration = migration
        self.volume = volume
        self.cinder = task.gate.volumes()

    def __str__(self) -> str:
        return f"{self.volume.device} (volume {self.volume.volume_id})"

    def reserve(self, which: Which) -> None:
        """There is a blank attachment, and its id is stored."""
        if self._found(which) is not None:
            return
        self.task.ensure(
            lambda: bool(self._strays()),
            lambda: self.cinder.create_attachment(self.volume.volume_id, self.migration.instance_id),
            f"an attachment that reserves {self}",
        )
        made = self._strays()[0]
        with self.task.world.intent("attachment") as tx:
            setattr(tx.session.get_one(MovedVolume, self.volume.id), which, made.id)
        setattr(self.volume, which, made.id)
        self.task.tell(f"{self} is reserved by attachment {made.id}")

    def connect(self, which: Which, host: Host) -> None:
        """The attachment is connected to a host; one that somebody deleted is made anew."""
        self.reserve(which)
        self.task.ensure(
            lambda: (found := self._found(which)) is not None and found.connected,
            lambda: self.cinder.update_attachment(getattr(self.volume, which), connector_of(host)),
            f"connection of {self} to {host.name}",
        )
        self.task.tell(f"{self} is connected to {host.name} by attachment {getattr(self.volume, which)}")

    def complete(self, which: Which) -> None:
        """The machine uses the attachment, and Cinder knows."""

        def completed() -> bool:
            found, volume = self._found(which), self.cinder.cinder_volume(self.volume.volume_id)
            return found is not None and found.attached and volume is not None and is_used(volume)

        self.task.ensure(
            completed, lambda: self.cinder.complete_attachment(getattr(self.volume, which)), f"attachment of {self}"
        )

    def disconnect(self, which: Which, *, off: bool) -> None:
        """The attachment is gone, once nobody has the volume open by it. `off` says that the machine is known to be off
        at that end; else what cannot be looked at is waited for."""
        found = self._found(which)
        if found is not None and found.connected:
            self._require_closed(found, off=off)
        self.remove(which)

    def remove(self, which: Which) -> None:
        """The attachment is gone."""
        if self._found(which) is not None:
            self._delete(getattr(self.volume, which))

    def sweep(self) -> None:
        """No blank attachment is left that the records do not name."""
        for stray in self._strays():
            self.task.tell(f"an attachment of {self} that was made and forgotten is removed")
            self._delete(stray.id)

    def _found(self, which: Which) -> Attachment | None:
        known = getattr(self.volume, which)
        return self.cinder.attachment(known) if known else None

    def _strays(self) -> list[Attachment]:
        known = {getattr(self.volume, kind) for kind in KINDS}
        found = self.cinder.attachments(self.migration.instance_id, self.volume.volume_id)
        return [one for one in found if one.blank and one.id not in known]

    def _delete(self, attachment_id: str) -> None:
        self.task.ensure(
            lambda: self.cinder.attachment(attachment_id) is None,
            lambda: self.cinder.delete_attachment(attachment_id),
            f"end of attachment {attachment_id} of {self}",
        )
        self.task.tell(f"attachment {attachment_id} of {self} is deleted")

    def _require_closed(self, attachment: Attachment, *, off: bool) -> None:
        """Raises Waiting while a QEMU somewhere has the image open. RBD tells who, and cuts nobody off; where a volume
        is attached to several machines nobody can tell whose QEMU it is."""
        volume = self.cinder.cinder_volume(self.volume.volume_id)
        try:
            connection = self.cinder.connection(attachment.id)
        except Missing:
            return  # its deletion has just arrived, and was sent when nobody had the volume open any more
        if connection.kind != "rbd" or volume is None or volume.multiattach:
            return
        key = secrets.ceph_key(self.task, self.migration, connection)
        try:
            for _ in range(STILL_OPEN_LOOKS):
                watchers = self.cinder.watchers(connection, key)
                if not watchers:
                    return
                self.task.gate.pause(1)
        except Refused as error:
            if off:
                return
            raise Waiting(f"{self} may still be open elsewhere: {error}", delay=WAIT_FOR_HOST) from error
        where = ", ".join(watchers)
        raise Waiting(
            f"{self.volume.device} is still open at {where}: volume {self.volume.volume_id}", delay=WAIT_FOR_HOST
        )


def each(task: MoveTask, migration: Migration, volumes: Iterable[MovedVolume]) -> list[Attachments]:
    """The volumes with their attachments; says so if there are none. Cinder is not asked for a machine without."""
    found = [Attachments(task, migration, volume) for volume in volumes]
    if not found:
        task.tell(f"{migration.instance_name} has no volumes")
    return found


def complete(task: MoveTask, migration: Migration, which: Which) -> None:
    """All volumes' attachments are in use: after the machine was started, before its CPUs run."""
    for volume in current(migration):
        Attachments(task, migration, volume).complete(which)


def connections(task: MoveTask, migration: Migration, which: Which, host: Host) -> Mapping[str, Connected]:
    """How QEMU on a host opens the volumes by these attachments, by device; those without one are left out. Passwords
    are in it."""
    return {
        volume.device: Connected(
            task.gate.volumes().connection(attachment), volume_id=volume.volume_id, initiator=initiator_of(host)
        )
        for volume in current(migration)
        if (attachment := getattr(volume, which))
    }
