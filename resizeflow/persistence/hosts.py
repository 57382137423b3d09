"""Hosts: inventory and allocations. What is allocated changes by one conditional UPDATE of the host's row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from resizeflow.errors import NotFound, NoValidHost
from resizeflow.persistence.models import Allocation, Flavor, Host, Instance, Migration

if TYPE_CHECKING:
    from resizeflow.persistence.transaction import Transaction

NOBODY = "none"
"""Who holds what is free, where the log tells of a change."""


@dataclass(frozen=True)
class Amount:
    """Resources of a host: vCPUs, MiB of memory, GiB of its pool."""

    vcpus: int
    memory_mb: int
    disk_gb: int

    def __str__(self) -> str:
        return f"{self.vcpus} vCPU{'' if self.vcpus == 1 else 's'}, {self.memory_mb} MiB, {self.disk_gb} GiB"

    @classmethod
    def of(cls, flavor: Flavor, *, volume_backed: bool) -> Amount:
        """What a machine of a flavor takes."""
        return cls(flavor.vcpus, flavor.memory_mb, flavor.local_gb(volume_backed=volume_backed))


def instance_consumer(instance_id: str) -> str:
    return f"instance:{instance_id}"


def migration_consumer(migration_id: str) -> str:
    return f"migration:{migration_id}"


def debt_consumer(migration_id: str) -> str:
    return f"debt:{migration_id}"


def old_side(migration: Migration) -> Amount:
    """What the source holds until the migration is decided."""
    return Amount.of(migration.old_flavor, volume_backed=migration.volume_backed)


def new_side(migration: Migration) -> Amount:
    """What the new flavor adds: all of it on another host; on the same host only what exceeds the old flavor, but
    a whole second set of disks (docs/architecture.md: max for cpu and ram, the sum for disk)."""
    old, new = old_side(migration), Amount.of(migration.new_flavor, volume_backed=migration.volume_backed)
    if not migration.same_host:
        return new
    return Amount(max(new.vcpus - old.vcpus, 0), max(new.memory_mb - old.memory_mb, 0), new.disk_gb)


def left_behind(migration: Migration, host_id: str) -> Amount:
    """What leftovers of a migration go on taking of one of its hosts: the disk of that side."""
    flavor = migration.new_flavor if host_id == migration.dest_host_id else migration.old_flavor
    return Amount(0, 0, flavor.local_gb(volume_backed=migration.volume_backed))


class Hosts:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.session = tx.session

    def list(self) -> Sequence[Host]:
        return self.session.scalars(sa.select(Host).where(~Host.removed).order_by(Host.name)).all()

    def rows(self) -> Sequence[sa.Row[Any]]:
        """What `list` tells, as plain rows: a fleet of a thousand is read in a third of the time."""
        table = cast("sa.Table", Host.__table__)
        return self.session.execute(sa.select(table).where(~table.c.removed)).all()

    def find(self, name: str) -> Host | None:
        """By name or UUID."""
        named = sa.or_(Host.name == name, Host.id == name)
        return self.session.scalars(sa.select(Host).where(named, ~Host.removed)).first()

    def get(self, name: str) -> Host:
        """By name or UUID. Raises NotFound."""
        host = self.find(name)
        if host is None:
            raise NotFound(f"There is no host {name!r}; `resizeflow host list` shows what there is.")
        return host

    def lock(self, *ids: str | None) -> Sequence[Host]:
        """Locks hosts until the commit, in one order for all: so two transactions never wait for each other. Whatever
        changes two hosts begins with it."""
        query = sa.select(Host).where(Host.id.in_([key for key in ids if key])).order_by(Host.id)
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
        return self.session.scalars(query).all()

    def allocations(self, host_id: str | None = None) -> Sequence[Allocation]:
        query = sa.select(Allocation).order_by(Allocation.id)
        if host_id:
            query = query.where(Allocation.host_id == host_id)
        return self.session.scalars(query).all()

    def allocate(self, host: Host, consumer: str, amount: Amount, *, force: bool = False) -> None:
        """Takes resources of a host for a consumer that holds none there. Raises NoValidHost if they are not free, or
        the host has been disabled: it takes nothing new from that moment on. `force` is for what is there already, an
        adopted machine."""
        query = sa.update(Host).where(Host.id == host.id, ~Host.removed)
        if not force:
            query = query.where(
                Host.enabled,
                Host.used_vcpus + amount.vcpus <= Host.vcpus * Host.cpu_ratio,
                Host.used_memory_mb + amount.memory_mb <= Host.memory_mb * Host.ram_ratio - Host.reserved_memory_mb,
                Host.used_disk_gb + amount.disk_gb <= Host.disk_gb * Host.disk_ratio,
            )
        if self._count(query, amount, 1) != 1:
            self.session.refresh(host)
            why = f"has no room for {amount}" if host.enabled else "is disabled, or no longer managed"
            raise NoValidHost(f"No valid host: {host.name} {why}.")
        self.session.add(
            Allocation(
                host_id=host.id,
                consumer=consumer,
                vcpus=amount.vcpus,
                memory_mb=amount.memory_mb,
                disk_gb=amount.disk_gb,
            )
        )
        self.session.flush()
        self._tell(host.name, amount, NOBODY, consumer)

    def release(self, consumer: str, host_id: str | None = None) -> None:
        """Gives back what a consumer holds (on one host, or everywhere)."""
        query = sa.select(Allocation, Host.name).join(Host).where(Allocation.consumer == consumer)
        if host_id:
            query = query.where(Allocation.host_id == host_id)
        for row, name in self.session.execute(query).all():
            amount = Amount(row.vcpus, row.memory_mb, row.disk_gb)
            self._count(sa.update(Host).where(Host.id == row.host_id), amount, -1)
            self.session.delete(row)
            self._tell(name, amount, consumer, NOBODY)
        self.session.flush()

    def hand_over(self, host: Host, old: str, new: str) -> None:
        """An allocation changes its consumer."""
        handed = self.session.execute(
            sa.update(Allocation)
            .where(Allocation.host_id == host.id, Allocation.consumer == old)
            .values(consumer=new)
            .returning(Allocation.vcpus, Allocation.memory_mb, Allocation.disk_gb)
            .execution_options(synchronize_session=False)
        )
        for row in handed:
            self._tell(host.name, Amount(*row), old, new)

    def _tell(self, host: str, amount: Amount, before: str, after: str) -> None:
        """Of what is a migration's, or left by it, its own log tells; of the rest that of whoever does it."""
        kinds = before.partition(":")[0], after.partition(":")[0]
        words = {
            (NOBODY, kinds[1]): f"{amount} of {host} taken for the {kinds[1]}",
            (kinds[0], NOBODY): f"{amount} of {host} released by the {kinds[0]}",
        }
        text = words.get(kinds, f"{amount} of {host} handed over from the {kinds[0]} to the {kinds[1]}")
        fields: dict[str, Any] = {
            "host": host,
            "transition": f"{kinds[0]} -> {kinds[1]}",
            "vcpus": amount.vcpus,
            "memory_mb": amount.memory_mb,
            "disk_gb": amount.disk_gb,
        }
        owners = dict(consumer.split(":", 1) for consumer in (before, after) if consumer != NOBODY)
        if migration_id := owners.get("migration") or owners.get("debt"):
            self._tx.events.add(migration_id, "allocation", text, **fields)
        else:
            self._tx.events.about(self.session.get(Instance, owners["instance"]), "allocation", text, **fields)

    def take_destination(self, migration: Migration, host: Host) -> None:
        """The source's allocation becomes the migration's, the instance gets the destination's (Nova's ownership).
        `migration.dest_host_id` is set. Raises NoValidHost."""
        migration.dest_host_id = host.id
        migration.dest_host = host
        self.hand_over(
            migration.source_host,
            instance_consumer(migration.instance_id),
            migration_consumer(migration.id),
        )
        self.allocate(host, instance_consumer(migration.instance_id), new_side(migration))

    def give_destination_back(self, migration: Migration) -> None:
        """The inverse of `take_destination`; nothing if it was not taken."""
        held = sa.select(Allocation.id).where(Allocation.consumer == migration_consumer(migration.id))
        if self.session.scalar(held) is None:
            return
        self.release(instance_consumer(migration.instance_id))
        self.hand_over(
            migration.source_host,
            migration_consumer(migration.id),
            instance_consumer(migration.instance_id),
        )

    def keep_for_debt(self, migration: Migration, host: Host) -> None:
        """What cannot be removed from a host goes on taking its disk there."""
        self.allocate(host, debt_consumer(migration.id), left_behind(migration, host.id), force=True)

    def settle_destination(self, migration: Migration, instance: Instance) -> None:
        """Confirmed: the source's allocation is released, the instance holds exactly its flavor."""
        self.lock(migration.source_host_id, instance.host_id)
        self.release(migration_consumer(migration.id))
        self.release(instance_consumer(instance.id))
        amount = Amount.of(instance.flavor, volume_backed=instance.volume_backed)
        self.allocate(instance.host, instance_consumer(instance.id), amount, force=True)

    def _count(self, query: sa.Update, amount: Amount, sign: int) -> int:
        result = self.session.execute(
            query.values(
                used_vcpus=Host.used_vcpus + sign * amount.vcpus,
                used_memory_mb=Host.used_memory_mb + sign * amount.memory_mb,
                used_disk_gb=Host.used_disk_gb + sign * amount.disk_gb,
            ).execution_options(synchronize_session=False)
        )
        return int(result.rowcount)  # type: ignore[attr-defined]
