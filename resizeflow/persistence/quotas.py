"""Quotas: limits, usages, and the reservations of open resizes.

Charge per resource (docs/architecture.md): the old flavor until finished; max(old, new) until confirmed or reverted;
then the flavor in force. Reserved is max(new - old, 0) until finished. So going back always fits. Counters change
by one conditional UPDATE each, in the order of `RESOURCES`: two resizes at once can never both pass, nor wait for each
other for ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa
from oslo_db.exception import DBDuplicateEntry

from resizeflow.errors import TooManyInstances
from resizeflow.persistence.changing import told
from resizeflow.persistence.models import (
    Flavor,
    Instance,
    Migration,
    QuotaClassLimit,
    QuotaLimit,
    QuotaUsage,
    Reservation,
)

if TYPE_CHECKING:
    from resizeflow.persistence.transaction import Transaction

Moved = Mapping[str, Mapping[str, tuple[int, int]] | None]
"""By resource and counter (`in_use`, `reserved`): before and after. None: there is no counter."""
RESOURCES = ("instances", "cores", "ram", "gigabytes")
DEFAULT_CLASS = "default"
"""The one quota class whose limits are used (Nova)."""


class Limit(NamedTuple):
    """How much of a resource a project may use (-1: any amount), and what says so."""

    hard_limit: int
    origin: str
    """`project`, `class` or `configuration`."""


def charge(flavor: Flavor, *, volume_backed: bool) -> dict[str, int]:
    """What one machine of a flavor counts for: machines, vCPUs, MiB of memory, GiB of local disk."""
    local_gb = flavor.local_gb(volume_backed=volume_backed)
    return {"instances": 1, "cores": flavor.vcpus, "ram": flavor.memory_mb, "gigabytes": local_gb}


def charge_of(instance: Instance) -> dict[str, int]:
    """What a machine counts for with the flavor that it has."""
    return charge(instance.flavor, volume_backed=instance.volume_backed)


def charges(migration: Migration) -> tuple[dict[str, int], dict[str, int]]:
    """What the machine counts for with the old and with the new flavor."""
    old, new = migration.old_flavor, migration.new_flavor
    return charge(old, volume_backed=migration.volume_backed), charge(new, volume_backed=migration.volume_backed)


def growth(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What one charge is more than another: max(after - before, 0), of each resource where that is something."""
    return {name: after[name] - before[name] for name in RESOURCES if after[name] > before[name]}


class Quotas:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.session = tx.session

    def limits(self, project_id: str, defaults: Mapping[str, int]) -> dict[str, Limit]:
        """The limits in force: the project's own, else those of class `default`, else the configured ones."""
        own = self.session.scalars(sa.select(QuotaLimit).where(QuotaLimit.project_id == project_id))
        return self.class_limits(defaults) | {row.resource: Limit(row.hard_limit, "project") for row in own}

    def class_limits(self, defaults: Mapping[str, int]) -> dict[str, Limit]:
        """The limits of a project that has none of its own."""
        rows = self.session.scalars(sa.select(QuotaClassLimit).where(QuotaClassLimit.class_name == DEFAULT_CLASS))
        configured = {name: Limit(limit, "configuration") for name, limit in defaults.items()}
        return configured | {row.resource: Limit(row.hard_limit, "class") for row in rows}

    def set_limits(self, project_id: str | None, limits: Mapping[str, int | None]) -> None:
        """A project's own limits, without a project those of class `default`; None takes one away again."""
        rows = self._own_limits(project_id)
        before = {name: row.hard_limit for name, row in rows.items()}
        for resource, limit in limits.items():
            row = rows.get(resource)
            if row is not None and limit is not None:
                row.hard_limit = limit
            elif row is not None:
                self.session.delete(row)
            elif limit is not None and project_id:
                self.session.add(QuotaLimit(project_id=project_id, resource=resource, hard_limit=limit))
            elif limit is not None:
                self.session.add(QuotaClassLimit(class_name=DEFAULT_CLASS, resource=resource, hard_limit=limit))
        if changed := {name: [before.get(name), to] for name, to in limits.items() if before.get(name) != to}:
            text = f"quota limits of {project_id or f'class {DEFAULT_CLASS}'} set: {told(changed)}"
            self._tx.events.command(text, project_id=project_id, changes=changed)

    def _own_limits(self, project_id: str | None) -> dict[str, QuotaLimit | QuotaClassLimit]:
        if project_id:
            own = self.session.scalars(sa.select(QuotaLimit).filter_by(project_id=project_id))
            return {row.resource: row for row in own}
        of_class = self.session.scalars(sa.select(QuotaClassLimit).filter_by(class_name=DEFAULT_CLASS))
        return {row.resource: row for row in of_class}

    def usage(self, project_id: str, resource: str) -> QuotaUsage:
        """The counter row, made if it is not there."""
        row = self.session.get(QuotaUsage, (project_id, resource), populate_existing=True)
        if row is None:
            # Somebody else may be making it now.
            with contextlib.suppress(DBDuplicateEntry), self.session.begin_nested():
                self.session.add(QuotaUsage(project_id=project_id, resource=resource, in_use=0, reserved=0))
            row = self.session.get_one(QuotaUsage, (project_id, resource), populate_existing=True)
        return row

    def would_fit(self, instance: Instance, new: Flavor, defaults: Mapping[str, int]) -> None:
        """Whether a resize would pass now. Raises TooManyInstances; reserves nothing."""
        before, after = charge_of(instance), charge(new, volume_backed=instance.volume_backed)
        self._require_room(instance.project_id, growth(before, after), self.limits(instance.project_id, defaults))

    def reserve(self, migration: Migration, defaults: Mapping[str, int]) -> None:
        """Reserves what the new flavor needs more than the old. Raises TooManyInstances."""
        project_id, amounts = migration.project_id, growth(*charges(migration))
        moved = self._take(project_id, amounts, self.limits(project_id, defaults), column="reserved")
        self.session.add_all(
            Reservation(migration_id=migration.id, resource=resource, project_id=project_id, amount=amount)
            for resource, amount in amounts.items()
        )
        self._tell(migration, "reserved", moved)

    def commit(self, migration: Migration) -> None:
        """The resize is finished: what was reserved is used."""
        moved = {}
        for row in self._reservations(migration):
            moved[row.resource] = self._add(row.project_id, row.resource, reserved=-row.amount, in_use=row.amount)
            self.session.delete(row)
        self._tell(migration, "committed", moved)

    def release(self, migration: Migration) -> None:
        """The resize was rolled back: nothing is reserved any more."""
        moved = {}
        for row in self._reservations(migration):
            moved[row.resource] = self._add(row.project_id, row.resource, reserved=-row.amount)
            self.session.delete(row)
        self._tell(migration, "released", moved)

    def settle(self, migration: Migration, kept: Flavor) -> None:
        """Confirmed or reverted: the charge goes from max(old, new) to the flavor kept."""
        (old, new), final = charges(migration), charge(kept, volume_backed=migration.volume_backed)
        moved = {}
        for resource in RESOURCES:
            excess = max(old[resource], new[resource]) - final[resource]
            if excess:
                moved[resource] = self._add(migration.project_id, resource, in_use=-excess)
        self._tell(migration, "settled", moved)

    def add_instance(self, instance: Instance, defaults: Mapping[str, int]) -> None:
        """Charges a machine that comes under management. Raises TooManyInstances."""
        limits = self.limits(instance.project_id, defaults)
        moved = self._take(instance.project_id, charge_of(instance), limits, column="in_use")
        self._tx.events.about(instance, "quota", _told(instance.project_id, "charged", moved), counters=moved)

    def remove_instance(self, instance: Instance) -> None:
        """Gives back what a machine without an open migration is charged."""
        charged = charge_of(instance).items()
        moved = {name: self._add(instance.project_id, name, in_use=-amount) for name, amount in charged}
        self._tx.events.about(instance, "quota", _told(instance.project_id, "given back", moved), counters=moved)

    def _tell(self, migration: Migration, what: str, moved: Moved) -> None:
        if moved:
            self._tx.events.add(migration.id, "quota", _told(migration.project_id, what, moved), counters=moved)

    def _reservations(self, migration: Migration) -> list[Reservation]:
        """In the one order in which all transactions change the counters, so that they never wait for each other."""
        query = sa.select(Reservation).where(Reservation.migration_id == migration.id)
        return sorted(self.session.scalars(query), key=lambda row: RESOURCES.index(row.resource))

    def _take(self, project_id: str, amounts: Mapping[str, int], limits: Mapping[str, Limit], *, column: str) -> Moved:
        self._require_room(project_id, amounts, limits)
        moved = {}
        for resource, amount in amounts.items():
            self.usage(project_id, resource)
            limit = limits[resource].hard_limit
            room = [QuotaUsage.in_use + QuotaUsage.reserved + amount <= limit] if limit >= 0 else []
            counters = self._add(project_id, resource, *room, **{column: amount})
            if counters is None:
                # Somebody was faster since we looked.
                raise _over([resource], amounts, self._used(project_id), limits)
            moved[resource] = counters
        return moved

    def _require_room(self, project_id: str, amounts: Mapping[str, int], limits: Mapping[str, Limit]) -> None:
        """Raises TooManyInstances telling of everything of which there is too little."""
        used = self._used(project_id)
        over = [name for name in amounts if 0 <= limits[name].hard_limit < used.get(name, 0) + amounts[name]]
        if over:
            raise _over(over, amounts, used, limits)

    def _used(self, project_id: str) -> dict[str, int]:
        """What counts against the limits: in use and reserved."""
        rows = self.session.execute(
            sa.select(QuotaUsage.resource, QuotaUsage.in_use + QuotaUsage.reserved).where(
                QuotaUsage.project_id == project_id
            )
        )
        return {row[0]: row[1] for row in rows}

    def _add(
        self, project_id: str, resource: str, *conditions: sa.ColumnElement[bool], in_use: int = 0, reserved: int = 0
    ) -> Mapping[str, tuple[int, int]] | None:
        """Changes the counters; before and after of each, None if a condition is against it."""
        added = {"in_use": in_use, "reserved": reserved}
        after = self.session.execute(
            sa.update(QuotaUsage)
            .where(QuotaUsage.project_id == project_id, QuotaUsage.resource == resource, *conditions)
            .values({name: getattr(QuotaUsage, name) + amount for name, amount in added.items()})
            .returning(QuotaUsage.in_use, QuotaUsage.reserved)
            .execution_options(synchronize_session=False)
        ).first()
        if after is None:
            return None
        return {name: (getattr(after, name) - amount, getattr(after, name)) for name, amount in added.items() if amount}


def _told(project_id: str, what: str, moved: Moved) -> str:
    """`quota of shop reserved: cores reserved 0 -> 1, ram reserved 0 -> 512`."""
    changes = [
        f"{resource} {counter.replace('_', ' ')} {before} -> {after}"
        for resource, counters in moved.items()
        for counter, (before, after) in (counters or {}).items()
    ]
    return f"quota of {project_id} {what}: {', '.join(changes)}"


def _over(
    resources: Iterable[str], amounts: Mapping[str, int], used: Mapping[str, int], limits: Mapping[str, Limit]
) -> TooManyInstances:
    """Nova's message (nova/exception.py, nova/compute/utils.py get_over_quota_detail)."""
    names = sorted(resources)
    over = ", ".join(names)
    requested = ", ".join(str(amounts[name]) for name in names)
    already = ", ".join(str(used.get(name, 0)) for name in names)
    allowed = ", ".join(str(limits[name].hard_limit) for name in names)
    return TooManyInstances(
        f"Quota exceeded for {over}: Requested {requested}, but already used {already} of {allowed} {over}"
    )
