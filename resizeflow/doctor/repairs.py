"""Repairs: what follows from the rows is set to what follows from them; what is left on hosts, or to be set right at
Cinder, becomes a debt.

Nothing here touches a host or Cinder: only a job under its lease does, so what is to be done there is recorded as a
debt, which the settlement of debts pays (settlement.py). All of it is one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from resizeflow.doctor import accounts, agreement, snapshot
from resizeflow.doctor.report import Owed
from resizeflow.doctor.snapshot import Records
from resizeflow.persistence import recount
from resizeflow.persistence.hosts import Amount
from resizeflow.persistence.models import (
    Allocation,
    Binding,
    Host,
    Instance,
    Migration,
    QuotaUsage,
    Reservation,
)
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import TERMINAL

REASON = "found by doctor"
_COUNTED = (Host, Allocation, QuotaUsage, Reservation, Instance, Migration)


def repair(tx: Transaction, owed: Sequence[Owed], who: str) -> None:
    """Sets reservations, quota counters, allocations, hosts' counters and bindings right, records debts, and forgets
    workers that are gone. Each has its line in the log of the migration that it concerns, or in the fleet's."""
    if tx.session.get_bind().dialect.name == "postgresql":
        # What is added up here must not be counted on by a job meanwhile. SQLite has locked the whole file.
        tables = ", ".join(model.__tablename__ for model in _COUNTED)
        tx.session.execute(sa.text(f"LOCK TABLE {tables} IN EXCLUSIVE MODE"))
    before = snapshot.read(tx)
    for item in owed:
        _owe(tx, before, item)
    tx.session.flush()
    _Accounts(tx, snapshot.read(tx), who).settle()
    tx.workers.forget(0.0)


def _owe(tx: Transaction, records: Records, owed: Owed) -> None:
    migration, host = tx.migrations.get(owed.migration_id), records.hosts[owed.host_id]
    busy = records.jobs.get(migration.instance_id)
    if migration.status not in TERMINAL or (busy is not None and busy.migration_id == migration.id):
        return
    tx.debts.record(migration, host, kind=owed.kind, name=owed.object, reason=REASON, again=True)


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

    def _tell(self, migration_id: str | None, text: str, host: str | None = None, **data: Any) -> None:
        text = f"{text}, by {self.who}"
        if migration_id is None:
            self.tx.events.fleet("repair", text, host=host, **data)
        else:
            self.tx.events.add(migration_id, "repair", text, host=host, **data)

    def _allocations(self) -> None:
        wanted = accounts.allocations(self.records)
        for row in self.records.allocations:
            amount = wanted.pop((row.host_id, row.consumer), None)
            was = Amount(row.vcpus, row.memory_mb, row.disk_gb)
            if amount == was:
                continue
            if amount is None:
                self.tx.session.delete(row)
            else:
                row.vcpus, row.memory_mb, row.disk_gb = amount.vcpus, amount.memory_mb, amount.disk_gb
            self._tell_allocation(row.consumer, row.host_id, was, amount or accounts.NOTHING)
        for (host_id, consumer), amount in wanted.items():
            self.tx.session.add(
                Allocation(
                    host_id=host_id,
                    consumer=consumer,
                    vcpus=amount.vcpus,
                    memory_mb=amount.memory_mb,
                    disk_gb=amount.disk_gb,
                )
            )
            self._tell_allocation(consumer, host_id, accounts.NOTHING, amount)
        self._sums()

    def _tell_allocation(self, consumer: str, host_id: str, was: Amount, is_: Amount) -> None:
        name = self.records.host_name(host_id)
        text = f"allocation of {consumer} set right on {name}: {was} -> {is_}"
        self._tell(self._concerned(consumer), text, name, before=asdict(was), after=asdict(is_))

    def _sums(self) -> None:
        """What is used of each host is what its allocations add up to."""
        sums = accounts.totals(accounts.allocations(self.records))
        for host in self.records.hosts.values():
            amount = sums.get(host.id, accounts.NOTHING)
            was = Amount(host.used_vcpus, host.used_memory_mb, host.used_disk_gb)
            if was == amount:
                continue
            host.used_vcpus, host.used_memory_mb, host.used_disk_gb = amount.vcpus, amount.memory_mb, amount.disk_gb
            text = f"what is used of {host.name} set right: {was} -> {amount}"
            self._tell(None, text, host.name, before=asdict(was), after=asdict(amount))

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
                if not stale:
                    continue
                self.tx.session.execute(sa.delete(Binding).where(Binding.id.in_(stale)))
                migration = self.records.open_migrations.get(instance.id)
                text = f"{len(stale)} stale bindings of port {port.mac} of {instance.name} removed"
                self._tell(migration.id if migration else None, text)
