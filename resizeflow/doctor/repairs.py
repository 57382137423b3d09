"""Repairs: what follows from the rows is set to what follows from them; what is left on hosts, or to be set right at
Cinder, becomes a debt.

Nothing here touches a host or Cinder: only a job under its lease does, so what is to be done there is recorded as a
debt, which the settlement of debts pays (settlement.py). All of it is one transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa

from resizeflow.doctor import accounts, agreement, snapshot
from resizeflow.doctor.report import Owed, place
from resizeflow.doctor.snapshot import Records
from resizeflow.persistence import recount
from resizeflow.persistence.hosts import Amount
from resizeflow.persistence.jobs import database_now
from resizeflow.persistence.models import (
    Allocation,
    Binding,
    Debt,
    Host,
    Instance,
    Migration,
    QuotaUsage,
    Reservation,
    WorkerRow,
)
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import TERMINAL

REASON = "found by doctor"
_COUNTED = (Host, Allocation, QuotaUsage, Reservation, Instance, Migration)


def repair(tx: Transaction, owed: Sequence[Owed], who: str) -> None:
    """Sets reservations, quota counters, allocations, hosts' counters and bindings right, records debts, and forgets
    workers that are gone. A migration that this concerns gets a line in its log."""
    if tx.session.get_bind().dialect.name == "postgresql":
        # What is added up here must not be counted on by a job meanwhile. SQLite has locked the whole file.
        tables = ", ".join(model.__tablename__ for model in _COUNTED)
        tx.session.execute(sa.text(f"LOCK TABLE {tables} IN EXCLUSIVE MODE"))
    before = snapshot.read(tx)
    for item in owed:
        _owe(tx, before, item, who)
    tx.session.flush()
    _Accounts(tx, snapshot.read(tx), who).settle()
    tx.session.execute(sa.delete(WorkerRow).where(WorkerRow.seen_until <= database_now()))


def _owe(tx: Transaction, records: Records, owed: Owed, who: str) -> None:
    migration, host = tx.migrations.get(owed.migration_id), records.hosts[owed.host_id]
    busy = records.jobs.get(migration.instance_id)
    if migration.status not in TERMINAL or (busy is not None and busy.migration_id == migration.id):
        return
    if not tx.debts.record(migration, host, kind=owed.kind, name=owed.object, reason=REASON, now=tx.now()):
        # It was settled or forgiven once, and is there again.
        key = {"migration_id": migration.id, "host_id": host.id, "kind": owed.kind, "object": owed.object}
        again = {"settled_at": None, "forgiven": False, "reason": REASON}
        tx.session.execute(sa.update(Debt).filter_by(**key).values(**again))
    text = f"{owed.kind} {owed.object} {place(owed.kind, host.name)} is recorded as a debt, by {who}"
    tx.events.add(migration.id, "debt", text, host=host.name)


class _Accounts:
    """Sets what is counted to what the rows add up to."""

    def __init__(self, tx: Transaction, records: Records, who: str) -> None:
        self.tx = tx
        self.records = records
        self.who = who

    def settle(self) -> None:
        recount.correct(self.tx, accounts.drifts(self.records), self.who)
        self._allocations()
        self._bindings()

    def _tell(self, migration_id: str, text: str) -> None:
        self.tx.events.add(migration_id, "repair", f"{text}, by {self.who}")

    def _allocations(self) -> None:
        wanted = accounts.allocations(self.records)
        changed: defaultdict[str, list[str]] = defaultdict(list)
        for row in self.records.allocations:
            amount = wanted.pop((row.host_id, row.consumer), None)
            if amount == Amount(row.vcpus, row.memory_mb, row.disk_gb):
                continue
            changed[row.consumer].append(row.host_id)
            if amount is None:
                self.tx.session.delete(row)
            else:
                row.vcpus, row.memory_mb, row.disk_gb = amount.vcpus, amount.memory_mb, amount.disk_gb
        for (host_id, consumer), amount in wanted.items():
            changed[consumer].append(host_id)
            self.tx.session.add(
                Allocation(
                    host_id=host_id,
                    consumer=consumer,
                    vcpus=amount.vcpus,
                    memory_mb=amount.memory_mb,
                    disk_gb=amount.disk_gb,
                )
            )
        for consumer, host_ids in changed.items():
            if migration_id := self._concerned(consumer):
                names = ", ".join(sorted(map(self.records.host_name, host_ids)))
                self._tell(migration_id, f"allocation of {consumer} set right on {names}")
        sums = accounts.totals(accounts.allocations(self.records))
        for host in self.records.hosts.values():
            amount = sums.get(host.id, accounts.NOTHING)
            host.used_vcpus, host.used_memory_mb, host.used_disk_gb = amount.vcpus, amount.memory_mb, amount.disk_gb

    def _concerned(self, consumer: str) -> str | None:
        """The migration whose log an allocation belongs to, if there is one."""
        kind, _, key = consumer.partition(":")
        if kind == "instance":
            migration = self.records.open_migrations.get(key)
            return migration.id if migration else None
        return key if self.tx.session.get(Migration, key) else None

    def _bindings(self) -> None:
        for instance in self.records.instances.values():
            for port in instance.ports:
                stale = [binding_id for binding_id, _ in agreement.stale_bindings(self.records, port)]
                self.tx.session.execute(sa.delete(Binding).where(Binding.id.in_(stale)))
