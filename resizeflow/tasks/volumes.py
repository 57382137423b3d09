"""Cinder volumes: nothing is copied, their attachments go from host to host.

Per volume there are up to four attachments: the one with which the machine left, the destination's, the *return* one
that keeps a way back until the confirm, and in a revert the *onward* one that keeps the way forth until its pivot.
"""

from __future__ import annotations

from resizeflow.connections import HostAway
from resizeflow.persistence.models import Host, Migration, MovedVolume
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks import machine, secrets
from resizeflow.tasks.attachments import current, each, use_attachments
from resizeflow.tasks.base import MoveTask, destination


def is_seen_off(task: MoveTask, migration: Migration, host: Host | None) -> bool:
    """Whether a look at a host says that the machine is off there."""
    if host is None:
        return True
    try:
        return machine.is_off(task.gate.host(host, patience=0).domain(migration.instance_id))
    except HostAway:
        return False


class ReserveVolumes(MoveTask):
    """Reserves each volume for the destination.

    Effect: a blank attachment per volume, beside the source's; its id is stored at once.
    Undo: deletes it, and whatever blank one of this machine's the records do not know.
    Convergent because: an attachment that is stored and still there is left; one that is not stored is found and taken.
    If killed: between making and storing it is found by volume and machine. If Cinder is away: the job waits.
    """

    def do(self, migration: Migration) -> None:
        for volume in each(self, migration, migration.volumes):
            volume.reserve("dest_attachment")

    def undo(self, migration: Migration) -> None:
        for volume in each(self, migration, migration.volumes):
            volume.remove("dest_attachment")
            volume.sweep()
        secrets.remove(self, migration, migration.source_host)


class DetachSourceVolumes(MoveTask):
    """Detaches each volume from the source, keeping it ours.

    Effect: per volume a blank return attachment, stored; then, once nobody has the volume open, the source's own is
        deleted: an iSCSI target ends with it, an RBD image can still be opened by who has the key.
    Undo: where a return attachment is stored it becomes the source's: connected and completed, in place of the source's
        own, which goes even if it is still there, for its deletion may yet arrive. Else nothing was detached.
    Convergent because: an attachment that is gone is not deleted again.
    If killed: the next run goes on with the next volume.
    """

    def do(self, migration: Migration) -> None:
        for volume in each(self, migration, migration.volumes):
            volume.reserve("return_attachment")
            volume.disconnect("source_attachment", off=True)

    def undo(self, migration: Migration) -> None:
        returning = [volume for volume in migration.volumes if volume.return_attachment]
        for volume in each(self, migration, returning):
            volume.disconnect("source_attachment", off=True)
            volume.connect("return_attachment", migration.source_host)
            volume.complete("return_attachment")
        self.world.work.record(lambda tx: use_attachments(tx, migration, "return_attachment"))


class ConnectVolumes(MoveTask):
    """Connects each volume to the destination.

    Effect: the destination's attachment has its host's connector, so Cinder says how the volume is opened there.
    Undo: deletes it, once nobody has the volume open by it: a destination that is away may have a paused QEMU, which is
        ended when it is back; its debt would be paid only after this job.
    Convergent because: a connected attachment is not connected again; one that somebody deleted is made anew.
    If killed: Cinder has done it or not; the next run looks.
    """

    def do(self, migration: Migration) -> None:
        for volume in each(self, migration, migration.volumes):
            volume.connect("dest_attachment", destination(migration))
            volume.sweep()

    def undo(self, migration: Migration) -> None:
        off = self._is_ended(migration) if migration.volumes else True
        for volume in each(self, migration, migration.volumes):
            volume.disconnect("dest_attachment", off=off)

    def _is_ended(self, migration: Migration) -> bool:
        host = migration.dest_host
        if host is None:
            return True
        try:
            domain = self.gate.host(host, patience=0).domain(migration.instance_id)
            if machine.has_role(domain, migration, "destination"):
                machine.end_paused(self, host, migration)
        except HostAway:
            return False
        return is_seen_off(self, migration, host)


class RemoveReturnAttachments(MoveTask):
    """Confirm: gives up the way back of each volume.

    Effect: the return attachments are deleted, with any blank one of this machine's that the records do not know; at
        the destination the secrets of volumes that were detached there since.
    Undo: none, confirm only goes forward. Convergent because: what is gone is fine.
    If killed: the rest is removed by the next run.
    """

    forward_only = True

    def do(self, migration: Migration) -> None:
        for volume in each(self, migration, migration.volumes):
            volume.remove("return_attachment")
            volume.sweep()
        secrets.remove(self, migration, destination(migration))


class DetachDestinationVolumes(MoveTask):
    """Revert: detaches each volume the machine has now from the destination.

    Effect: per volume a blank onward attachment, and a return one where there is none (it was attached since); both
        stored; then the destination's own is deleted.
    Undo: where an onward attachment is stored it becomes the destination's, as in DetachSourceVolumes; a blank one that
        the records do not know is deleted.
    Convergent because: as there. If killed: the next run goes on with the next volume.
    """

    def do(self, migration: Migration) -> None:
        for volume in each(self, migration, current(migration)):
            volume.reserve("onward_attachment")
            volume.reserve("return_attachment")
            volume.disconnect("dest_attachment", off=True)

    def undo(self, migration: Migration) -> None:
        host = destination(migration)
        onward = [volume for volume in current(migration) if volume.onward_attachment]
        for volume in each(self, migration, onward):
            volume.disconnect("dest_attachment", off=True)
            volume.connect("onward_attachment", host)
            volume.complete("onward_attachment")
        for volume in each(self, migration, current(migration)):
            volume.sweep()
        if not onward:
            return

        def is_destination(tx: Transaction) -> None:
            for row in onward:
                moved = tx.session.get_one(MovedVolume, row.id)
                moved.dest_attachment, moved.onward_attachment = row.onward_attachment, None
            use_attachments(tx, migration, "dest_attachment")

        self.world.work.record(is_destination)


class ConnectSourceVolumes(MoveTask):
    """Revert: connects each volume to the source again.

    Effect: the return attachment has the source's connector.
    Undo: it is deleted, once nobody has the volume open by it, and a blank one made in its place; one that is still
        blank as well, for its connection may yet arrive.
    Convergent because: as ConnectVolumes. If killed: as there.
    """

    def do(self, migration: Migration) -> None:
        for volume in each(self, migration, current(migration)):
            volume.connect("return_attachment", migration.source_host)

    def undo(self, migration: Migration) -> None:
        volumes = current(migration)
        off = is_seen_off(self, migration, migration.source_host) if volumes else True
        for volume in each(self, migration, volumes):
            volume.disconnect("return_attachment", off=off)
            volume.reserve("return_attachment")
