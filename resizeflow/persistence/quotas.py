"""Quotas: limits, usages, and the reservations of open resizes.

Charge per resource (docs/architecture.md): the old flavor until finished; max(old, new) until confirmed or reverted;
then the flavor in force. Reserved is max(new - old, 0) until finished. So going back always fits. Counters change
by one conditional UPDATE each: two resizes at once can never both pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import sqlalchemy as sa
from oslo_db.exception import DBDuplicateEntry
from sqlalchemy.orm import Session

from resizeflow.errors import OverQuota
from resizeflow.persistence.models import Flavor, Migration, QuotaLimit, QuotaUsage, Reservation

RESOURCES = ("instances", "cores", "ram", "gigabytes")


def charge(flavor: Flavor) -> dict[str, int]:
    """What one machine of a flavor counts for: machines, vCPUs, MiB of memory, GiB of local disk."""
    return {"instances": 1, "cores": flavor.vcpus, "ram": flavor.memory_mb, "gigabytes": flavor.disk_gb}


class Quotas:
    def __init__(self, session: Session) -> None:
        self.session = session

    def limits(self, project_id: str, defaults: Mapping[str, int]) -> dict[str, int]:
        """The limits in force; -1 is none."""
        own = self.session.scalars(sa.select(QuotaLimit).where(QuotaLimit.project_id == project_id)).all()
        return {**defaults, **{row.resource: row.hard_limit for row in own}}

    def set_limit(self, project_id: str, resource: str, hard_limit: int) -> None:
        self.session.merge(QuotaLimit(project_id=project_id, resource=resource, hard_limit=hard_limit))

    def usage(self, project_id: str, resource: str) -> QuotaUsage:
        """The counter row, made if it is not there."""
        row = self.session.get(QuotaUsage, (project_id, resource), populate_existing=True)
        if row is None:
            # Somebody else may be making it now.
            with contextlib.suppress(DBDuplicateEntry), self.session.begin_nested():
                self.session.add(QuotaUsage(project_id=project_id, resource=resource, in_use=0, reserved=0))
            row = self.session.get_one(QuotaUsage, (project_id, resource), populate_existing=True)
        return row

    def would_fit(self, project_id: str, old: Flavor, new: Flavor, defaults: Mapping[str, int]) -> None:
        """Whether a resize would pass now. Raises OverQuota; reserves nothing."""
        limits = self.limits(project_id, defaults)
        for resource in RESOURCES:
            amount = max(charge(new)[resource] - charge(old)[resource], 0)
            row = self.session.get(QuotaUsage, (project_id, resource))
            used = row.in_use + row.reserved if row else 0
            if amount and 0 <= limits[resource] < used + amount:
                raise _over(resource, amount, used, limits[resource])

    def reserve(self, migration: Migration, defaults: Mapping[str, int]) -> None:
        """Reserves what the new flavor needs more than the old. Raises OverQuota in Nova's words."""
        limits = self.limits(migration.project_id, defaults)
        old, new = charge(migration.old_flavor), charge(migration.new_flavor)
        for resource in RESOURCES:
            amount = max(new[resource] - old[resource], 0)
            if amount:
                self._take(migration.project_id, resource, amount, limits[resource], column="reserved")
                self.session.add(
                    Reservation(
                        migration_id=migration.id,
                        resource=resource,
                        project_id=migration.project_id,
                        amount=amount,
                    )
                )

    def commit(self, migration: Migration) -> None:
        """The resize is finished: what was reserved is used."""
        for row in self._reservations(migration):
            self._add(row.project_id, row.resource, reserved=-row.amount, in_use=row.amount)
            self.session.delete(row)

    def release(self, migration: Migration) -> None:
        """The resize was rolled back: nothing is reserved any more."""
        for row in self._reservations(migration):
            self._add(row.project_id, row.resource, reserved=-row.amount)
            self.session.delete(row)

    def settle(self, migration: Migration, kept: Flavor) -> None:
        """Confirmed or reverted: the charge goes from max(old, new) to the flavor kept."""
        old, new, final = charge(migration.old_flavor), charge(migration.new_flavor), charge(kept)
        for resource in RESOURCES:
            excess = max(old[resource], new[resource]) - final[resource]
            if excess:
                self._add(migration.project_id, resource, in_use=-excess)

    def add_instance(self, project_id: str, flavor: Flavor, defaults: Mapping[str, int]) -> None:
        """Charges a machine that comes under management. Raises OverQuota."""
        limits = self.limits(project_id, defaults)
        for resource, amount in charge(flavor).items():
            self._take(project_id, resource, amount, limits[resource], column="in_use")

    def remove_instance(self, project_id: str, flavor: Flavor) -> None:
        for resource, amount in charge(flavor).items():
            self._add(project_id, resource, in_use=-amount)

    def _reservations(self, migration: Migration) -> list[Reservation]:
        """In the one order in which all transactions change the counters, so that they never wait for each other."""
        query = sa.select(Reservation).where(Reservation.migration_id == migration.id)
        return sorted(self.session.scalars(query), key=lambda row: RESOURCES.index(row.resource))

    def _take(self, project_id: str, resource: str, amount: int, limit: int, *, column: str) -> None:
        self.usage(project_id, resource)
        query = sa.update(QuotaUsage).where(QuotaUsage.project_id == project_id, QuotaUsage.resource == resource)
        if limit >= 0:
            query = query.where(QuotaUsage.in_use + QuotaUsage.reserved + amount <= limit)
        counter = getattr(QuotaUsage, column)
        result = self.session.execute(
            query.values({column: counter + amount}).execution_options(synchronize_session=False)
        )
        if result.rowcount != 1:  # type: ignore[attr-defined]
            usage = self.usage(project_id, resource)
            raise _over(resource, amount, usage.in_use + usage.reserved, limit)

    def _add(self, project_id: str, resource: str, *, in_use: int = 0, reserved: int = 0) -> None:
        self.session.execute(
            sa.update(QuotaUsage)
            .where(QuotaUsage.project_id == project_id, QuotaUsage.resource == resource)
            .values(in_use=QuotaUsage.in_use + in_use, reserved=QuotaUsage.reserved + reserved)
            .execution_options(synchronize_session=False)
        )


def _over(resource: str, amount: int, used: int, limit: int) -> OverQuota:
    """Nova's message (nova/exception.py TooManyInstances)."""
    return OverQuota(
        f"Quota exceeded for {resource}: Requested {amount}, but already used {used} of {limit} {resource}"
    )
