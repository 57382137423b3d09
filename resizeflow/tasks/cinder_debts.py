"""Debts at Cinder, paid: an attachment that nothing accounts for, and a volume of which Cinder does not say that the
machine has it as its definition does.

All is looked at again, as much may have happened since it was written down. What is not as it was is left: the doctor
finds it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from resizeflow.drivers import definition
from resizeflow.drivers.interface import Refused
from resizeflow.drivers.volume import Attachment, CinderVolume
from resizeflow.persistence.models import Debt, Host, Instance, Migration, Volume
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import TERMINAL
from resizeflow.tasks.base import MoveTask
from resizeflow.volumes import AVAILABLE, RESERVED, connector_of, is_used


def pay(task: MoveTask, debt: Debt) -> str:
    """Settles a debt at Cinder; what became of it, for the log. Raises Away."""
    try:
        return _delete_orphan(task, debt) if debt.kind == "attachment" else _set_right(task, debt)
    except Refused as error:
        return f"{debt.kind} {debt.object} is left as it is: {error}"


def _delete_orphan(task: MoveTask, debt: Debt) -> str:
    """Deletes an attachment if it is still blank and named by no record."""
    cinder = task.gate.volumes(patience=0)
    found = cinder.attachment(debt.object)
    if found is None:
        return f"attachment {debt.object} is gone"
    with task.world.database.read() as tx:
        managed = tx.session.get(Instance, debt.instance_id) is not None
        spoken_for = debt.object in _accounted(tx, debt.instance_id)
    if not managed or spoken_for or not found.blank or found.instance_id != debt.instance_id:
        return f"attachment {debt.object} is {found.status} and may be needed: it stays"
    task.forget(lambda: cinder.delete_attachment(debt.object))
    return f"attachment {debt.object} is deleted"


def _set_right(task: MoveTask, debt: Debt) -> str:
    """Resets a volume that is reserved by nobody, attaches it again if the machine's definition has it, and records it
    as it is."""
    with task.world.database.read() as tx:
        instance = tx.session.get(Instance, debt.instance_id)
        if instance is None:
            return f"volume {debt.object} is left as it is: its machine is not managed any more"
        host, accounted = instance.host, _accounted(tx, instance.id)
    domain = task.gate.host(host, patience=0).domain(instance.id)
    volume = task.gate.volumes(patience=0).cinder_volume(debt.object)
    if domain is None or volume is None:
        return f"volume {debt.object} is left as it is: {'Cinder' if domain else host.name} does not know it any more"
    disks = {disk.volume_id: disk for disk in definition.read(domain.inactive_xml).disks}
    return _Repair(task, instance, host, volume, disks.get(volume.id), accounted).carry_out()


@dataclass(frozen=True)
class _Repair:
    """A volume, the machine whose it is by debt, and the disk that it is in the machine's definition."""

    task: MoveTask
    instance: Instance
    host: Host
    volume: CinderVolume
    disk: definition.Disk | None
    accounted: frozenset[str]
    """Attachments that a migration's way back needs."""

    def carry_out(self) -> str:
        """Sets it right; what became of it."""
        cinder = self.task.gate.volumes()
        everybodys = cinder.attachments(None, self.volume.id)
        mine = [one for one in everybodys if one.instance_id == self.instance.id]
        used = [one for one in mine if not one.blank]
        if len(used) > 1 or (len(mine) < len(everybodys) and not self.volume.multiattach):
            return f"volume {self.volume.id} is left as it is: it is attached elsewhere"
        if self.volume.status == RESERVED and not everybodys:
            self.task.ensure(
                lambda: (now := cinder.cinder_volume(self.volume.id)) is not None and now.status == AVAILABLE,
                lambda: cinder.reset_volume(self.volume.id, AVAILABLE, "detached"),
                f"reset of volume {self.volume.id}",
            )
        if self.disk is not None:
            attachment = used[0] if used else self._reserve()
            self._attach(attachment)
            self.task.world.work.record(lambda tx: self._record(tx, attachment.id))
            return f"volume {self.volume.id} is attached to {self.instance.name} on {self.host.name}, and recorded"
        if used:
            return (
                f"volume {self.volume.id} is left as it is: it is attached, and {self.instance.name} does not have it"
            )
        self.task.world.work.record(self._forget)
        return f"volume {self.volume.id} is not recorded any more: {self.instance.name} does not have it"

    def _reserve(self) -> Attachment:
        """A blank attachment: one that an interrupted run has made, or a new one."""
        cinder = self.task.gate.volumes()

        def blanks() -> list[Attachment]:
            mine = cinder.attachments(self.instance.id, self.volume.id)
            return [one for one in mine if one.blank and one.id not in self.accounted]

        self.task.ensure(
            lambda: bool(blanks()),
            lambda: cinder.create_attachment(self.volume.id, self.instance.id),
            f"an attachment that reserves volume {self.volume.id}",
        )
        return blanks()[0]

    def _attach(self, attachment: Attachment) -> None:
        """Connected to the machine's host and completed."""
        cinder = self.task.gate.volumes()

        def found() -> Attachment | None:
            return cinder.attachment(attachment.id)

        self.task.ensure(
            lambda: (now := found()) is not None and now.connected,
            lambda: cinder.update_attachment(attachment.id, self._connector()),
            f"connection of volume {self.volume.id} to {self.host.name}",
        )
        self.task.ensure(
            lambda: (now := found()) is not None and now.attached and self._is_used(),
            lambda: cinder.complete_attachment(attachment.id),
            f"attachment of volume {self.volume.id}",
        )

    def _connector(self) -> Mapping[str, Any]:
        """The host's, under the name by which the machine's disk logs in to an iSCSI target."""
        connector = connector_of(self.host)
        if self.disk is None or self.disk.initiator is None:
            return connector
        return {**connector, "initiator": self.disk.initiator}

    def _is_used(self) -> bool:
        now = self.task.gate.volumes().cinder_volume(self.volume.id)
        return now is not None and is_used(now)

    def _record(self, tx: Transaction, attachment_id: str) -> None:
        instance = tx.instances.get(self.instance.id)
        row = next((row for row in instance.volumes if row.volume_id == self.volume.id), None)
        if row is None:
            row = Volume(volume_id=self.volume.id)
            instance.volumes.append(row)
        device = self.disk.device if self.disk else ""
        row.device, row.size_gb, row.attachment_id = device, self.volume.size_gb, attachment_id

    def _forget(self, tx: Transaction) -> None:
        instance = tx.instances.get(self.instance.id)
        for row in [row for row in instance.volumes if row.volume_id == self.volume.id]:
            instance.volumes.remove(row)


def _accounted(tx: Transaction, instance_id: str) -> frozenset[str]:
    """The attachments of a machine that its record and its open migration name."""
    still_open = sa.select(Migration).where(Migration.instance_id == instance_id, Migration.status.not_in(TERMINAL))
    moved = [row for migration in tx.session.scalars(still_open) for row in migration.volumes]
    recorded = tx.session.scalars(sa.select(Volume.attachment_id).where(Volume.instance_id == instance_id))
    return frozenset(recorded).union(*(row.attachments for row in moved))
