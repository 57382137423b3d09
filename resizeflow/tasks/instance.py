"""The instance's own record: opened, moved, finished; each change one transaction."""

from __future__ import annotations

from resizeflow.connections import HostAway
from resizeflow.persistence.hosts import instance_consumer, migration_consumer
from resizeflow.persistence.models import Disk, Host, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import MigrationStatus, TaskState, VmState
from resizeflow.tasks import bindings, machine, notices
from resizeflow.tasks.attachments import use_attachments
from resizeflow.tasks.base import MoveTask, destination
from resizeflow.tasks.network import activate


def owes(tx: Transaction, migration: Migration, host: Host) -> bool:
    """Whether disks of this migration had to stay on a host."""
    return any(debt.migration_id == migration.id and debt.holds_disk for debt in tx.debts.open(host.id))


def place(tx: Transaction, migration: Migration, *, at_destination: bool) -> None:
    """Host, flavor, disks and active bindings of the instance: the destination's or the source's."""
    instance = tx.instances.get(migration.instance_id)
    host = destination(migration) if at_destination else migration.source_host
    flavor = migration.new_flavor if at_destination else migration.old_flavor
    instance.host_id, instance.flavor_id = host.id, flavor.id
    tx.events.add(migration.id, "state", f"the instance is on {host.name} with flavor {flavor.name}", host=host.name)
    rows = {disk.device: disk for disk in instance.disks}
    for disk in tx.migrations.get(migration.id).disks:
        row = rows.get(disk.device)
        if not (disk.dest_volume if at_destination else disk.source_volume):
            if row is not None:
                instance.disks.remove(row)
            continue
        if row is None:
            row = Disk(device=disk.device, role=disk.role)
            instance.disks.append(row)
        if at_destination:
            row.volume, row.path, row.format = (
                disk.dest_volume or "",
                disk.dest_path or "",
                disk.dest_format or "",
            )
            row.capacity = disk.new_capacity or disk.source_capacity
        else:
            row.volume, row.path, row.format = disk.source_volume, disk.source_path, disk.source_format
            row.capacity = disk.source_capacity
    use_attachments(tx, migration, "dest_attachment" if at_destination else "return_attachment")
    activate(tx, migration, host.id)


def finish(tx: Transaction, migration: Migration) -> None:
    """`finished`, `resized`: a resize waits for its decision, and both its sizes are paid for."""
    tx.migrations.advance(migration, MigrationStatus.POST_MIGRATING, to=MigrationStatus.FINISHED)
    instance = tx.instances.get(migration.instance_id)
    instance.vm_state, instance.task_state, instance.launched_at = VmState.RESIZED, None, tx.now()
    migration.finished_at = tx.now()
    tx.quotas.commit(migration)


def close_as_finished(tx: Transaction, migration: Migration, status: MigrationStatus, task: str) -> None:
    """A confirm or revert that found it could not begin: the resize waits for its decision as before."""
    row = tx.migrations.get(migration.id)
    tx.migrations.advance(row, status, to=MigrationStatus.FINISHED)
    instance = tx.instances.get(row.instance_id)
    instance.vm_state, instance.task_state = VmState.RESIZED, None
    tx.events.add(row.id, "state", "the resize is finished as before, to be confirmed or reverted", task=task)
    notices.not_decided(tx, row, status, task)


class OpenMigration(MoveTask):
    """The frame of the flow: first to begin, last to be undone.

    Effect: none; submit has made the reservation and the states in one transaction.
    Undo: closes the migration: status `error`, task state None, the reservation released, the instance as it was.
    Convergent because: the status changes by compare-and-swap. If killed: one transaction, done or not.
    """

    def do(self, migration: Migration) -> None:
        self.tell(f"{migration.kind} of {migration.instance_name} from {migration.source_host.name} begins")
        self.notify(f"{notices.SELECT}.start")

    def undo(self, migration: Migration) -> None:
        def close(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            tx.migrations.advance(
                row,
                MigrationStatus.PRE_MIGRATING,
                MigrationStatus.MIGRATING,
                MigrationStatus.POST_MIGRATING,
                to=MigrationStatus.ERROR,
            )
            instance = tx.instances.get(row.instance_id)
            instance.task_state, instance.vm_state = None, row.old_vm_state
            tx.quotas.release(row)
            if row.dest_host is not None and owes(tx, row, row.dest_host):
                tx.hosts.keep_for_debt(row, row.dest_host)
            tx.events.add(
                row.id,
                "state",
                f"rolled back: {instance.name} is {row.old_vm_state} on {row.source_host.name} "
                f"with flavor {row.old_flavor.name}",
                task=self.name,
            )
            notices.rolled_back(tx, row, self.name)

        self.world.work.record(close)


class MoveInstance(MoveTask):
    """The record says where the machine is: host, flavor, disks, bindings, `resize_migrated`.

    Effect: first Neutron's bindings of the machine's ports to the destination become the active ones, then the record
        changes, in one transaction. The machine is off on both hosts all the while, so that no packet is lost by it.
    Undo: in the same order, back: Neutron's bindings to the source, then one transaction.
    Convergent because: an active binding is not activated again; values of the record are set, not added.
    If killed: with some ports moved, or all and not the record: either way on begins with a look at each binding.
    """

    def do(self, migration: Migration) -> None:
        bindings.bring(self, migration, destination(migration))

        def move(tx: Transaction) -> None:
            place(tx, migration, at_destination=True)
            tx.instances.get(migration.instance_id).task_state = TaskState.RESIZE_MIGRATED
            tx.notify("instance.resize.end", tx.migrations.get(migration.id), task=self.name)

        self.world.work.record(move)

    def undo(self, migration: Migration) -> None:
        bindings.bring_back(self, migration, migration.source_host)

        def move_back(tx: Transaction) -> None:
            place(tx, migration, at_destination=False)
            tx.instances.get(migration.instance_id).task_state = TaskState.RESIZE_MIGRATING

        self.world.work.record(move_back)


class FinishResize(MoveTask):
    """`finished`, `resized`: one transaction; for a machine that was off this is the pivot.

    Effect: autostart as before, then states, quota and launch time. Undo: autostart off again by DefineDestination's
        undo, which removes the domain; the transaction itself is the flow's last.
    Convergent because: status by compare-and-swap, reservation rows are consumed. If killed: done or not done.
    """

    def do(self, migration: Migration) -> None:
        host = destination(migration)
        machine.set_autostart(self, host, migration, bool(migration.autostart))

        def done(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            finish(tx, row)
            tx.jobs.pivot(self.world.lease)
            tx.events.add(
                row.id,
                "state",
                f"finished: {row.instance_name} is resized on {host.name}, to be confirmed or reverted",
                task=self.name,
            )
            tx.notify("instance.resize_finish.end", row, task=self.name)

        self.world.work.record(done)


class FinishConfirm(MoveTask):
    """`confirming` to `confirmed`: the instance is ACTIVE or STOPPED as seen; the source's resources are free.

    Undo: none. Convergent because: compare-and-swap. If killed: done or not done.
    """

    forward_only = True

    def do(self, migration: Migration) -> None:
        domain = self.gate.host(destination(migration)).domain(migration.instance_id)
        seen = VmState.STOPPED if machine.is_off(domain) else VmState.ACTIVE

        def confirm(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            tx.migrations.advance(row, MigrationStatus.CONFIRMING, to=MigrationStatus.CONFIRMED)
            instance = tx.instances.get(row.instance_id)
            instance.vm_state, instance.task_state = seen, None
            tx.quotas.settle(row, row.new_flavor)
            tx.hosts.settle_destination(row, instance)
            if owes(tx, row, row.source_host):
                tx.hosts.keep_for_debt(row, row.source_host)
            tx.events.add(
                row.id,
                "state",
                f"confirmed: {instance.name} is {seen} on {instance.host.name} with flavor {row.new_flavor.name}",
                task=self.name,
            )
            tx.notify("instance.resize_confirm.end", row, task=self.name)

        self.world.work.record(confirm)


class MoveInstanceBack(MoveTask):
    """Revert: host, old flavor, disks and bindings of the record are the source's.

    Effect: first Neutron's bindings to the source become the active ones, also of ports that were added since, then one
        transaction. Undo: forth, in the same order.
    Convergent because: as MoveInstance. If killed: as there.
    """

    def do(self, migration: Migration) -> None:
        bindings.bring(self, migration, migration.source_host)
        self.world.work.record(lambda tx: place(tx, migration, at_destination=False))

    def undo(self, migration: Migration) -> None:
        bindings.bring_back(self, migration, destination(migration))
        self.world.work.record(lambda tx: place(tx, migration, at_destination=True))


class FinishRevert(MoveTask):
    """`reverting` to `reverted`: states, quota and allocations as before the resize; one transaction.

    Undo: none, the machine has run on its source. Convergent because: compare-and-swap. If killed: done or not.
    """

    forward_only = True

    def do(self, migration: Migration) -> None:
        try:
            domain = self.gate.host(migration.source_host).domain(migration.instance_id)
            seen = VmState.STOPPED if machine.is_off(domain) else VmState.ACTIVE
        except HostAway:
            seen = migration.old_vm_state

        def finish(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            tx.migrations.advance(row, MigrationStatus.REVERTING, to=MigrationStatus.REVERTED)
            instance = tx.instances.get(row.instance_id)
            instance.vm_state, instance.task_state, instance.launched_at = seen, None, tx.now()
            tx.quotas.settle(row, row.old_flavor)
            tx.hosts.release(instance_consumer(instance.id))
            tx.hosts.hand_over(row.source_host, migration_consumer(row.id), instance_consumer(instance.id))
            if row.dest_host is not None and owes(tx, row, row.dest_host):
                tx.hosts.keep_for_debt(row, row.dest_host)
            tx.events.add(
                row.id,
                "state",
                f"reverted: {instance.name} is {seen} on {row.source_host.name} with flavor {row.old_flavor.name}",
                task=self.name,
            )
            tx.notify("instance.resize_revert.end", row, task=self.name)

        self.world.work.record(finish)
