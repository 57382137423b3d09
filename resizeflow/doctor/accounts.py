"""Invariants 2 and 3: quota charges and reservations, allocations and the hosts' counters are what the rows say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from resizeflow.doctor.report import Breach
from resizeflow.doctor.snapshot import Records
from resizeflow.persistence import recount
from resizeflow.persistence.hosts import (
    Amount,
    debt_consumer,
    instance_consumer,
    left_behind,
    migration_consumer,
    new_side,
    old_side,
)
from resizeflow.persistence.models import Migration
from resizeflow.persistence.recount import Drift
from resizeflow.states import TERMINAL, UNDECIDED, Direction

NOTHING = Amount(0, 0, 0)


# --- 2: quota --------------------------------------------------------------------------------------------


def drifts(records: Records) -> list[Drift]:
    """Where charges and reservations are not what machines and open migrations add up to."""
    return recount.compare(
        recount.recorded(records.usages, records.reservations),
        recount.counted(records.instances.values(), records.open_migrations),
    )


def check_quota(records: Records) -> Iterator[Breach]:
    """Invariant 2: quota charge and reservations are what the formula says (persistence/quotas.py)."""
    for entry, found, expected in drifts(records):
        if entry.counter == "reservation":
            subject, word, repair = f"migration {entry.migration_id}", "reserved", "the reservation"
        else:
            subject, word, repair = f"project {entry.project_id}", entry.counter.replace("_", " "), "the counter"
        yield Breach(
            2,
            subject,
            f"{entry.resource}: {found} {word}",
            f"{entry.resource}: {expected} {word}",
            f"{repair} is set to what is expected",
        )


# --- 3: allocations --------------------------------------------------------------------------------------


def allocations(records: Records) -> dict[tuple[str, str], Amount]:
    """What should be held, by host and consumer."""
    expected: dict[tuple[str, str], Amount] = {}
    held = {(row.host_id, row.consumer) for row in records.allocations}
    for instance in records.instances.values():
        consumer = instance_consumer(instance.id)
        migration = records.open_migrations.get(instance.id)
        if migration is None:
            amount = Amount.of(instance.flavor, volume_backed=instance.volume_backed)
            expected[instance.host_id, consumer] = amount
        elif _has_destination(records, migration, held):
            source = (migration.source_host_id, migration_consumer(migration.id))
            expected[source] = old_side(migration)
            expected[migration.dest_host_id or "", consumer] = new_side(migration)
        else:
            expected[migration.source_host_id, consumer] = old_side(migration)
    for debt in records.debts:
        owner = records.migrations[debt.migration_id]
        if owner.status in TERMINAL and debt.holds_disk:
            expected[debt.host_id, debt_consumer(owner.id)] = left_behind(owner, debt.host_id)
    return expected


def _has_destination(records: Records, migration: Migration, held: set[tuple[str, str]]) -> bool:
    """Whether the destination is allocated. A rollback gives it back some steps before it closes the migration."""
    job = records.jobs.get(migration.instance_id)
    rolling_back = migration.status not in UNDECIDED and job is not None and job.direction is Direction.BACK
    if rolling_back and (migration.source_host_id, migration_consumer(migration.id)) not in held:
        return False
    return migration.dest_host_id is not None


def check_allocations(records: Records) -> Iterator[Breach]:
    """Invariant 3: one allocation per instance on its host, one per open migration on its source, or a recorded
    debt's; and each host's counters are their sum."""
    rows = {(row.host_id, row.consumer): Amount(row.vcpus, row.memory_mb, row.disk_gb) for row in records.allocations}
    wanted = allocations(records)
    for host_id, consumer in sorted(rows.keys() | wanted.keys()):
        found, expected = rows.get((host_id, consumer)), wanted.get((host_id, consumer))
        if found != expected:
            yield Breach(
                3,
                _consumer_name(records, consumer),
                f"holds {_told(found)} on {records.host_name(host_id)}",
                f"holds {_told(expected)} there",
                "the allocation is set to what is expected",
            )
    sums = totals(rows)
    for host in records.hosts.values():
        counted = Amount(host.used_vcpus, host.used_memory_mb, host.used_disk_gb)
        right = sums.get(host.id, NOTHING)
        if counted != right:
            yield Breach(
                3,
                f"host {host.name}",
                f"counts {_told(counted)} as allocated",
                f"{_told(right)}, the sum of its allocations",
                "the counters are set to the sum of what should be allocated",
            )


def totals(rows: Mapping[tuple[str, str], Amount]) -> dict[str, Amount]:
    """The sum of allocations (by host and consumer) per host."""
    sums: dict[str, Amount] = {}
    for (host_id, _), amount in rows.items():
        sofar = sums.get(host_id, NOTHING)
        sums[host_id] = Amount(
            sofar.vcpus + amount.vcpus, sofar.memory_mb + amount.memory_mb, sofar.disk_gb + amount.disk_gb
        )
    return sums


def _told(amount: Amount | None) -> str:
    if amount is None:
        return "nothing"
    return f"{amount.vcpus} vCPU, {amount.memory_mb} MiB, {amount.disk_gb} GiB"


def _consumer_name(records: Records, consumer: str) -> str:
    kind, _, key = consumer.partition(":")
    if kind == "instance":
        return f"instance {records.name_of(key)}"
    return f"debts of migration {key}" if kind == "debt" else f"{kind} {key}"
