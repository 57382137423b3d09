"""Recounting quotas: what machines and open migrations add up to, where the records drifted from it, and setting the
records right. The formula is that of quotas.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import sqlalchemy as sa

from resizeflow.persistence.models import Instance, Migration, QuotaUsage, Reservation
from resizeflow.persistence.quotas import RESOURCES, charge_of, charges, growth
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import TERMINAL, UNDECIDED


class Entry(NamedTuple):
    """One number in the books: a project's `in_use` or `reserved`, or the `reservation` of one migration."""

    project_id: str
    resource: str
    counter: str
    migration_id: str = ""


class Drift(NamedTuple):
    """A number that is not what it should be."""

    entry: Entry
    recorded: int
    counted: int


def recorded(usages: Iterable[QuotaUsage], reservations: Iterable[Reservation]) -> Counter[Entry]:
    """The books as they are kept."""
    books: Counter[Entry] = Counter()
    for usage in usages:
        books[Entry(usage.project_id, usage.resource, "in_use")] = usage.in_use
        books[Entry(usage.project_id, usage.resource, "reserved")] = usage.reserved
    for row in reservations:
        books[Entry(row.project_id, row.resource, "reservation", row.migration_id)] = row.amount
    return books


def counted(instances: Iterable[Instance], open_migrations: Mapping[str, Migration]) -> Counter[Entry]:
    """The books as they should be. Migrations by their instance."""
    books: Counter[Entry] = Counter()
    for instance in instances:
        for resource, amount in _charged(instance, open_migrations.get(instance.id)).items():
            books[Entry(instance.project_id, resource, "in_use")] += amount
    for migration in open_migrations.values():
        if migration.status not in UNDECIDED:
            for resource, amount in growth(*charges(migration)).items():
                books[Entry(migration.project_id, resource, "reserved")] += amount
                books[Entry(migration.project_id, resource, "reservation", migration.id)] = amount
    return books


def _charged(instance: Instance, migration: Migration | None) -> dict[str, int]:
    if migration is None:
        return charge_of(instance)
    old, new = charges(migration)
    return {name: max(old[name], new[name]) for name in RESOURCES} if migration.status in UNDECIDED else old


def compare(found: Counter[Entry], right: Counter[Entry]) -> list[Drift]:
    """Where two books differ; what is in neither is 0."""
    return [
        Drift(entry, found[entry], right[entry])
        for entry in sorted(found.keys() | right.keys())
        if found[entry] != right[entry]
    ]


def projects(tx: Transaction) -> list[str]:
    """All that have machines, counters or reservations."""
    columns = (Instance.project_id, QuotaUsage.project_id, Reservation.project_id)
    return sorted(tx.session.scalars(sa.union(*map(sa.select, columns))))


def lock(tx: Transaction, project_ids: Collection[str]) -> None:
    """Keeps everybody from changing these projects' books until the commit: open migrations first, then counters, as
    the flows lock them. SQLite has locked the whole file."""
    reserving = sa.select(Reservation.migration_id).where(Reservation.project_id.in_(project_ids))
    still_open = sa.and_(Migration.project_id.in_(project_ids), Migration.status.not_in(TERMINAL))
    concerned = sa.select(Migration.id).where(sa.or_(still_open, Migration.id.in_(reserving))).order_by(Migration.id)
    tx.session.execute(concerned.with_for_update(key_share=True))
    for project_id in sorted(project_ids):
        for resource in RESOURCES:
            tx.quotas.usage(project_id, resource)
            counter = sa.select(QuotaUsage.in_use).filter_by(project_id=project_id, resource=resource)
            tx.session.execute(counter.with_for_update(key_share=True))


def find(tx: Transaction, project_ids: Collection[str]) -> list[Drift]:
    """What drifted in these projects, in a consistent view or after `lock`."""
    session = tx.session
    usages = sa.select(QuotaUsage).where(QuotaUsage.project_id.in_(project_ids))
    reservations = sa.select(Reservation).where(Reservation.project_id.in_(project_ids))
    kept = recorded(
        # Some were read before they were locked.
        session.scalars(usages, execution_options={"populate_existing": True}),
        session.scalars(reservations),
    )
    # Machines before migrations: one that is submitted in between has the flavor that was read as its old one.
    instances = session.scalars(sa.select(Instance).where(Instance.project_id.in_(project_ids))).all()
    migrations = session.scalars(
        sa.select(Migration).where(Migration.project_id.in_(project_ids), Migration.status.not_in(TERMINAL))
    )
    return compare(kept, counted(instances, {row.instance_id: row for row in migrations}))


def correct(tx: Transaction, drifts: Iterable[Drift], who: str) -> None:
    """Sets the records right, each with its line: of a reservation in the migration's log, of a project's counter in
    the fleet's."""
    for entry, was, right in drifts:
        if entry.counter == "reservation":
            _set_reservation(tx, entry, right)
            text = f"reservation of {entry.resource} set from {was} to {right}, by {who}"
            tx.events.add(entry.migration_id, "repair", text)
        else:
            tx.quotas.usage(entry.project_id, entry.resource)
            row = sa.update(QuotaUsage).filter_by(project_id=entry.project_id, resource=entry.resource)
            tx.session.execute(row.values({entry.counter: right}))
            counter = f"{entry.resource} {entry.counter.replace('_', ' ')}"
            text = f"quota of {entry.project_id}: {counter} set from {was} to {right}, by {who}"
            tx.events.fleet("repair", text, project_id=entry.project_id)


def _set_reservation(tx: Transaction, entry: Entry, amount: int) -> None:
    key = {"migration_id": entry.migration_id, "resource": entry.resource}
    if not amount:
        tx.session.execute(sa.delete(Reservation).filter_by(**key, project_id=entry.project_id))
        return
    tx.session.execute(sa.delete(Reservation).filter_by(**key))
    tx.session.execute(sa.insert(Reservation).values(**key, project_id=entry.project_id, amount=amount))
