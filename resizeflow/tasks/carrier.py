"""The carrier: the machine reduced to its disks, and what is written down of its way."""

from __future__ import annotations

from resizeflow.drivers import definition
from resizeflow.drivers.definition import Mark, Placement
from resizeflow.drivers.interface import DriverError
from resizeflow.persistence.models import Host, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks import machine
from resizeflow.tasks.base import MoveTask
from resizeflow.tasks.moved import with_content


def end_carrier(task: MoveTask, migration: Migration, host: Host) -> None:
    """Ends this migration's carrier on a host, if one runs there."""
    hypervisor = task.gate.host(host)

    def gone() -> bool:
        return not machine.has_role(hypervisor.domain(migration.instance_id), migration, "carrier", live=True)

    task.ensure(gone, lambda: hypervisor.destroy(migration.instance_id), f"end of the carrier on {host.name}")


def carrier_xml(task: MoveTask, migration: Migration, *, at_destination: bool, bypass_cache: bool = False) -> str:
    """The machine reduced to the disks whose content moves, for one of the two hosts."""
    if migration.definition is None:
        raise DriverError("the source was never captured")
    disks = {
        disk.device: Placement(disk.dest_path or "", disk.dest_format or "", bypass_cache)
        if at_destination
        else Placement(disk.source_path, disk.source_format, bypass_cache)
        for disk in with_content(migration)
    }
    return definition.carrier(
        migration.definition, disks=disks, mark=Mark(migration.id, task.world.lease.epoch, "carrier")
    )


def copied(task: MoveTask, migration: Migration, text: str) -> None:
    """Commits at once that the destination has all disks whole, before what carried them is ended."""
    with task.world.intent("copied") as tx:
        row = tx.migrations.get(migration.id)
        tx.moved = row.bytes_total - row.bytes_done
        row.bytes_done = row.bytes_total
        for disk in with_content(row):
            disk.copied_at = disk.copied_at or tx.now()
        done, total = row.bytes_done, row.bytes_total
        tx.events.add(migration.id, "transfer", text, task=task.name, bytes_done=done, bytes_total=total)


def progress(task: MoveTask, migration: Migration, done: int, total: int) -> None:
    """Commits how far the transfer is, bytes of `total` (virtual sizes; holes count as done)."""
    with task.world.intent("progress") as tx:
        write_down(tx, task, tx.migrations.get(migration.id), done, total)


def write_down(tx: Transaction, task: MoveTask, row: Migration, done: int, total: int) -> None:
    """How far a transfer is, in the migration's row; each tenth of it is a line of the log as well."""
    before, now = _tenth(row.bytes_done, row.bytes_total), _tenth(done, total)
    tx.moved = max(done - row.bytes_done, 0)
    row.bytes_done, row.bytes_total = done, total
    if now is not None and now != before:
        text = f"{done / total * 100:.0f} % of {total / 2**20:.0f} MiB"
        tx.events.add(row.id, "transfer", text, task=task.name, bytes_done=done, bytes_total=total)


def _tenth(done: int, total: int) -> int | None:
    return done * 10 // total if total else None
