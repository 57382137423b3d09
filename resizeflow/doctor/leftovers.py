"""Invariant 6: no disk, domain or carrier on any host that belongs to no instance, no open migration and no debt.

Ours is what carries a migration's id, in a domain's mark or in a disk's name, and what a migration wrote down that it
had to remove. Everything else on a host is somebody else's, and none of our business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from resizeflow.doctor.machines import mark_of
from resizeflow.doctor.report import Breach, Owed, Suspect
from resizeflow.doctor.snapshot import Records, Seen, World
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Mark
from resizeflow.drivers.hypervisor import DomainFacts, PowerState, VolumeFacts
from resizeflow.persistence.models import Migration, MovedDisk
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import TERMINAL, MigrationStatus

OURS = re.compile(r"\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.\w+$")
"""The end of a disk's name that says which migration made it (tasks/capture.py)."""
RECORDED = "it is recorded as a debt, which a worker removes"
CHUNK = 500


@dataclass(frozen=True)
class _Strangers:
    """What a host has that nothing present lays claim to."""

    host_id: str
    domains: tuple[tuple[DomainFacts, Mark | None], ...]
    volumes: tuple[VolumeFacts, ...]


def find(tx: Transaction, records: Records, world: World) -> list[Suspect]:
    """Invariant 6. `tx` is asked about the migrations that strangers name."""
    claims = _Claims(records)
    strangers = [claims.strangers(host_id, seen) for host_id, seen in world.seen.items()]
    search = _Search(records, world, _Past.read(tx, strangers))
    return [*search.among(strangers), *search.carriers()]


class _Claims:
    """What the records say should, or may still, be on the hosts."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.domains = {(row.host_id, row.id) for row in records.instances.values()}
        # By name, not by host: where hosts share a pool, each of them shows the file.
        self.volumes = {disk.volume for row in records.instances.values() for disk in row.disks}
        for migration in records.migrations.values():
            job = records.jobs.get(migration.instance_id)
            if migration.status in TERMINAL and (job is None or job.migration_id != migration.id):
                continue
            hosts = (migration.source_host_id, migration.dest_host_id or "")
            self.domains |= {(host_id, migration.instance_id) for host_id in hosts}
            self.volumes |= {name for d in migration.disks for name in (d.source_volume, d.dest_volume) if name}
        for debt in records.debts:
            if debt.kind == "domain":
                self.domains.add((debt.host_id, debt.object))
            else:
                self.volumes.add(debt.object)

    def strangers(self, host_id: str, seen: Seen) -> _Strangers:
        domains, used = [], set()
        for domain in seen.domains.values():
            mark = mark_of(domain) or mark_of(domain, live=True)
            ours = mark is not None or domain.uuid in self.records.instances
            if ours and (host_id, domain.uuid) not in self.domains:
                domains.append((domain, mark))
            else:
                used |= _files(domain)
        by_path = {volume.path: volume for volume in seen.volumes.values()}
        for path in list(used):
            while (volume := by_path.get(path)) is not None and (path := volume.backing_path or "") not in used:
                used.add(path)
        unclaimed = [v for v in seen.volumes.values() if v.name not in self.volumes and v.path not in used]
        return _Strangers(host_id, tuple(domains), tuple(unclaimed))


def _files(domain: DomainFacts) -> set[str]:
    files = set()
    for xml in (domain.inactive_xml, domain.live_xml):
        try:
            files |= {disk.path for disk in definition.read(xml).disks if disk.path} if xml else set()
        except ValueError:
            continue
    return files


@dataclass(frozen=True)
class _Past:
    """The migrations that strangers name, by id; and the disks that confirmed ones had to remove, by name."""

    migrations: Mapping[str, Migration]
    removed: Mapping[str, tuple[Migration, MovedDisk]]

    @classmethod
    def read(cls, tx: Transaction, strangers: list[_Strangers]) -> _Past:
        named = {mark.migration for host in strangers for _, mark in host.domains if mark}
        names = sorted({volume.name for host in strangers for volume in host.volumes})
        named |= {found[1] for name in names if (found := OURS.search(name))}
        migrations: dict[str, Migration] = {}
        removed: dict[str, tuple[Migration, MovedDisk]] = {}
        for chunk in _chunks(sorted(named)):
            rows = tx.session.scalars(sa.select(Migration).where(Migration.id.in_(chunk)))
            migrations |= {row.id: row for row in rows}
        for chunk in _chunks(names):
            query = (
                sa.select(Migration, MovedDisk)
                .join(MovedDisk, MovedDisk.migration_id == Migration.id)
                .where(MovedDisk.source_volume.in_(chunk), Migration.status == MigrationStatus.CONFIRMED)
                .where(sa.or_(Migration.source_host_id != Migration.dest_host_id, MovedDisk.role == "swap"))
            )
            removed |= {disk.source_volume: (row, disk) for row, disk in tx.session.execute(query).unique()}
        return cls(migrations, removed)


def _chunks(names: list[str]) -> Iterator[list[str]]:
    return (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))


@dataclass(frozen=True)
class _Search:
    """Which strangers are leftovers of ours."""

    records: Records
    world: World
    past: _Past

    def among(self, strangers: list[_Strangers]) -> Iterator[Suspect]:
        for host in strangers:
            found = [self._domain(host.host_id, domain, mark) for domain, mark in host.domains]
            found += [self._volume(host.host_id, volume) for volume in host.volumes]
            yield from (suspect for suspect in found if suspect is not None)

    def _domain(self, host_id: str, domain: DomainFacts, mark: Mark | None) -> Suspect | None:
        instance = self.records.instances.get(domain.uuid)
        if instance is not None and domain.state is PowerState.RUNNING:
            return None  # invariant 1 has it
        subject, expected = f"domain {domain.name} on {self.records.host_name(host_id)}", "no such domain"
        if mark is None:
            found = f"it has the UUID of instance {self.records.name_of(domain.uuid)}, which is on another host"
            return Suspect(Breach(6, subject, found, expected), domain.uuid)
        migration = self.past.migrations.get(mark.migration)
        found = f"marked as {mark.role} by migration {mark.migration}"
        if migration is None:
            return Suspect(Breach(6, subject, f"{found}, which the records do not know", expected), domain.uuid)
        if migration.status not in TERMINAL and host_id in (migration.source_host_id, migration.dest_host_id):
            return None  # submitted after the records were read
        own = (host_id, mark.role) == (migration.dest_host_id, "destination")
        if instance is None and own and migration.status is MigrationStatus.CONFIRMED:
            return None  # it was removed from management
        owed = Owed(migration.id, host_id, "domain", domain.uuid)
        safe = migration.status in TERMINAL and self._seen_whole(migration, domain.uuid)
        return _suspect(
            subject, f"{found}, whose status is {migration.status}", expected, domain.uuid, owed if safe else None
        )

    def _volume(self, host_id: str, volume: VolumeFacts) -> Suspect | None:
        subject, expected = f"disk {volume.name} on {self.records.host_name(host_id)}", "no such file"
        made_by = OURS.search(volume.name)
        removal = self.past.removed.get(volume.name)
        if removal is not None and removal[0].source_host_id == host_id:
            migration, disk = removal
            # A name that carries no id may have been given to another file since.
            if not made_by and (volume.capacity, volume.format) != (disk.source_capacity, disk.source_format):
                return None
            found = f"the old disk {disk.device} of migration {migration.id}, which is confirmed"
            safe = made_by is not None
        elif made_by is None:
            return None
        elif (maker := self.past.migrations.get(made_by[1])) is None:
            found = f"made by migration {made_by[1]}, which the records do not know"
            return Suspect(Breach(6, subject, found, expected), None)
        else:
            migration = maker
            if migration.status not in TERMINAL or _is_kept(migration, volume):
                return None  # submitted after the records were read; or of a machine that is not managed any more
            found = f"made by migration {migration.id}, whose status is {migration.status}"
            safe = host_id == migration.dest_host_id
        owed = Owed(migration.id, host_id, "disk", volume.name)
        safe = safe and self._seen_whole(migration, migration.instance_id)
        return _suspect(subject, found, expected, migration.instance_id, owed if safe else None)

    def _seen_whole(self, migration: Migration, uuid: str) -> bool:
        """House rule: no copy is deleted unless the other has just been looked at. Where the machine itself was not
        seen with its disks, a person must decide."""
        instance = self.records.instances.get(uuid)
        seen = self.world.seen.get(instance.host_id) if instance else None
        if instance is None or seen is None or uuid != migration.instance_id or uuid not in seen.domains:
            return False
        return all(disk.volume in seen.volumes for disk in instance.disks)

    def carriers(self) -> Iterator[Suspect]:
        """A carrier has its machine's UUID, so on the machine's host it is no stranger; it is a leftover if no job of
        its migration goes on. To end it is a person's: a debt would have the machine's own domain removed as well."""
        owed = {(debt.host_id, debt.object) for debt in self.records.debts if debt.kind == "domain"}
        for instance in self.records.instances.values():
            seen = self.world.seen.get(instance.host_id)
            mark = mark_of(seen.domains.get(instance.id) if seen else None, live=True)
            if mark is None or mark.role != "carrier" or (instance.host_id, instance.id) in owed:
                continue
            job = self.records.jobs.get(instance.id)
            if job is None or job.migration_id != mark.migration:
                subject = f"carrier of {instance.name} on {instance.host.name}"
                found = f"left by migration {mark.migration}"
                yield Suspect(Breach(6, subject, found, "no carrier: `virsh destroy` it"), instance.id)


def _is_kept(migration: Migration, volume: VolumeFacts) -> bool:
    """Whether a confirmed machine uses what the migration made: on the same host all but swap space is merged."""
    kept = [disk.dest_volume for disk in migration.disks if disk.role == "swap" or not migration.same_host]
    return migration.status is MigrationStatus.CONFIRMED and volume.name in kept


def _suspect(subject: str, found: str, expected: str, instance_id: str, owed: Owed | None) -> Suspect:
    return Suspect(Breach(6, subject, found, expected, RECORDED if owed else None), instance_id, owed)
