"""Invariant 5: per machine and volume one Cinder attachment, attached and recorded; the volume is in use, and the
machine's definition names exactly the volumes that it has.

From a resize that is finished until its decision is carried out, each volume has one more attachment, blank, and
volumes may be attached and detached: what counts then is the definition and Cinder together. While a job goes on only
its tasks know how far the attachments are: then only what holds always is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from resizeflow.doctor.agreement import operation
from resizeflow.doctor.debtors import last_closed
from resizeflow.doctor.report import Breach, Owed, Suspect
from resizeflow.doctor.snapshot import Kept, Records, World, defined
from resizeflow.drivers.volume import Attachment
from resizeflow.persistence.models import Instance
from resizeflow.persistence.transaction import Transaction
from resizeflow.volumes import AVAILABLE, IN_USE, RESERVED, is_used

RESERVED_BY_NOBODY = (
    "reserved by no attachment: Cinder was interrupted between the two writes of making one, and refuses every new one "
    "until its state is reset"
)
ONE = "in-use, attached by one attachment"
BY_HAND = "`resizeflow runbook invalid-volume` says how"
NOTHING = Kept({}, (), frozenset())


@dataclass(frozen=True)
class _Finding:
    """What is wrong with a machine's volume or attachment; `debt` (kind, object) is what a worker could do about it."""

    instance: Instance
    subject: str
    found: str
    expected: str
    debt: tuple[str, str] | None = None
    by_hand: str = BY_HAND
    """What a person does if nothing can be recorded as a debt."""


def find(tx: Transaction, records: Records, world: World) -> Iterator[Suspect]:
    """Invariant 5. A debt needs a closed migration of the machine, which `tx` is asked for."""
    owed = frozenset(debt.object for debt in records.debts if debt.service == "Cinder")
    findings = [
        finding
        for instance in records.instances.values()
        for finding in _Machine(records, world, instance, owed).check()
    ]
    closed = last_closed(tx, {finding.instance.id for finding in findings if finding.debt})
    for finding in findings:
        instance, owner = finding.instance, closed.get(finding.instance.id)
        if finding.debt is None or owner is None:
            expected = f"{finding.expected}; {finding.by_hand}" if finding.debt else finding.expected
            yield Suspect(Breach(5, finding.subject, finding.found, expected), instance.id)
        else:
            kind, key = finding.debt
            repair = f"it is recorded as a debt: a worker {_REPAIRS[kind]}"
            breach = Breach(5, finding.subject, finding.found, finding.expected, repair)
            yield Suspect(breach, instance.id, Owed(owner, instance.host_id, kind, key))


_REPAIRS = {
    "attachment": "deletes it, if it is still blank",
    "volume": "resets its state if nobody has it, attaches it again if the machine's definition has it, and records it",
}


class _Machine:
    """One machine's volumes: as recorded, as defined, as kept by Cinder. Volumes and attachments that are `owed` are
    known, and left out."""

    def __init__(self, records: Records, world: World, instance: Instance, owed: frozenset[str]) -> None:
        job = records.jobs.get(instance.id)
        migration = records.open_migrations.get(instance.id)
        moved = migration.volumes if migration else []
        self.instance = instance
        self.busy = job is not None and operation(job.flow) != "settle"
        self.at_rest = migration is None and not self.busy
        self.asked = instance.id in world.kept
        self.kept = world.kept.get(instance.id, NOTHING)
        self.recorded = {row.volume_id: row.attachment_id for row in instance.volumes}
        self.moving = {row.volume_id for row in moved if not row.detached}
        self.owed = owed
        self.accounted = owed.union(self.recorded.values(), *(row.attachments for row in moved))
        self.defined = defined(world.domain(instance.host_id, instance.id))
        ends = (migration.source_host_id, migration.dest_host_id) if migration else ()
        self.anywhere = [_defined_on(world, host_id, instance.id) for host_id in ends if host_id]
        """By the definitions on both ends of its migration; None where it is not known."""

    def check(self) -> Iterator[_Finding]:
        """All that is wrong."""
        if not self.asked:
            yield from self._check_records()
        for volume_id, volume in self.kept.volumes.items():
            if volume_id in self.owed:
                continue
            mine = [one for one in self.kept.attachments if one.volume_id == volume_id]
            used = [one for one in mine if not one.blank]
            reserved = volume is not None and volume.status == RESERVED
            if len(used) > 1:
                yield self._finding(volume_id, _told(used), f"{ONE}; {BY_HAND}")
            elif reserved and not mine and volume_id not in self.kept.others:
                yield self._reserved_by_nobody(volume_id)
            elif self.busy:
                yield from self._check_in_flight(volume_id, mine)
            elif self.defined is not None:
                yield from self._check_settled(volume_id, mine, has=volume_id in self.defined)

    def _check_records(self) -> Iterator[_Finding]:
        """Without Cinder's answer: a machine at rest has the volumes that are recorded."""
        if self.at_rest and self.defined is not None:
            for volume_id in sorted(self.recorded.keys() ^ self.defined):
                where = "defined, but not recorded" if volume_id in self.defined else "recorded, but not defined"
                yield self._finding(volume_id, f"{where} on {self.instance.host.name}", "both or neither")

    def _reserved_by_nobody(self, volume_id: str) -> _Finding:
        reset = f"`cinder reset-state --state available --attach-status detached {volume_id}`"
        has = volume_id in (self.moving if self.defined is None else self.defined)
        expected = ONE if has else "available"
        if self.busy:
            return self._finding(volume_id, RESERVED_BY_NOBODY, f"{expected}; {reset}, then resume the job")
        by_hand = f"{reset}, then attach it again ({BY_HAND})" if has else reset
        return self._finding(volume_id, RESERVED_BY_NOBODY, expected, ("volume", volume_id), by_hand)

    def _check_in_flight(self, volume_id: str, mine: list[Attachment]) -> Iterator[_Finding]:
        """A task stores an attachment's id before it connects it, and makes the next one before it deletes one."""
        known = any(ids is None or volume_id in ids for ids in self.anywhere)
        for one in mine:
            if not one.blank and one.id not in self.accounted and not known:
                yield self._stranger(one)
        if not mine and volume_id in self.moving and volume_id in (self.defined or ()):
            yield self._lost(volume_id, mine)

    def _check_settled(self, volume_id: str, mine: list[Attachment], *, has: bool) -> Iterator[_Finding]:
        """No job goes on; the machine's definition was seen, and `has` the volume or not."""
        used = next((one for one in mine if not one.blank), None)
        if has and used is None:
            yield self._lost(volume_id, mine)
            return
        if used is not None:
            yield from self._check_use(volume_id, used) if has else [self._stranger(used)]
        elif self.at_rest and volume_id in self.recorded:
            found = "recorded, but neither the machine's definition nor Cinder says that the machine has it"
            yield self._finding(volume_id, found, "no record of it", ("volume", volume_id))
        for one in mine:
            if one.blank and one.id not in self.accounted:
                yield self._orphan(one)

    def _check_use(self, volume_id: str, used: Attachment) -> Iterator[_Finding]:
        volume, recorded = self.kept.volumes[volume_id], self.recorded.get(volume_id)
        if volume is None or not is_used(volume) or not (used.attached and used.connected):
            status = volume.status if volume else "unknown to Cinder"
            yield self._finding(volume_id, f"{status}, {_told([used])}", f"{ONE}; {BY_HAND}")
        elif self.at_rest and recorded != used.id:
            found = f"attached by {used.id}, recorded with {recorded or 'none'}"
            yield self._finding(volume_id, found, "recorded as it is attached", ("volume", volume_id))

    def _lost(self, volume_id: str, mine: list[Attachment]) -> _Finding:
        """The machine's definition has a volume that Cinder does not say is attached to it. One that nobody else has,
        and that was the machine's by the records, can be attached again."""
        volume = self.kept.volumes[volume_id]
        if volume is None:
            found = f"in the definition on {self.instance.host.name}, and unknown to Cinder"
            return self._finding(volume_id, found, "a volume of Cinder's, or no such disk")
        if volume_id in self.kept.others and not volume.multiattach:
            found = f"{volume.status}, attached to somebody else, and in the definition on {self.instance.host.name}"
            return self._finding(volume_id, found, f"{ONE}; stop one of the two before both write to it")
        found = f"{volume.status}, {_told(mine) if mine else 'no attachment'}"
        attachable = RESERVED if mine else IN_USE if volume.multiattach else AVAILABLE
        if volume_id in self.recorded and volume.status == attachable and not self.busy:
            return self._finding(volume_id, found, ONE, ("volume", volume_id))
        return self._finding(volume_id, found, f"{ONE}; {BY_HAND}")

    def _stranger(self, one: Attachment) -> _Finding:
        found = f"{one.status}, for volume {one.volume_id}, which its definition does not have"
        expected = f"no such attachment; if nothing uses it: `cinder attachment-delete {one.id}`"
        return _Finding(self.instance, f"attachment {one.id} of {self.instance.name}", found, expected)

    def _orphan(self, one: Attachment) -> _Finding:
        subject = f"attachment {one.id} of {self.instance.name}"
        found = f"reserves volume {one.volume_id}, and nothing accounts for it"
        by_hand = f"`cinder attachment-delete {one.id}`"
        return _Finding(self.instance, subject, found, "no such attachment", ("attachment", one.id), by_hand)

    def _finding(
        self,
        volume_id: str,
        found: str,
        expected: str,
        debt: tuple[str, str] | None = None,
        by_hand: str = BY_HAND,
    ) -> _Finding:
        return _Finding(self.instance, f"volume {volume_id} of {self.instance.name}", found, expected, debt, by_hand)


def _defined_on(world: World, host_id: str, uuid: str) -> frozenset[str] | None:
    """The volumes of a machine that its definition on a host has, if there is one; None if it is not known."""
    domain = world.domain(host_id, uuid)
    return frozenset() if domain is None and host_id in world.seen else defined(domain)


def _told(attachments: list[Attachment]) -> str:
    return " and ".join(f"{one.status} by {one.id}{' in half' if one.half else ''}" for one in attachments)
