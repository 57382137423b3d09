"""A machine leaves management: its record goes, domain and disks stay."""

from __future__ import annotations

from resizeflow.persistence.hosts import instance_consumer
from resizeflow.persistence.models import Instance, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks.base import MoveTask


def forget(tx: Transaction, instance: Instance) -> None:
    """Gives back what a machine without an open migration holds, and deletes its record with disks, ports and
    bindings. Its past migrations and their logs stay."""
    tx.quotas.remove_instance(instance)
    tx.hosts.release(instance_consumer(instance.id))
    tx.session.delete(instance)


class ForgetInstance(MoveTask):
    """Remove: the confirmed machine is managed no more.

    Effect: rows, committed with the task. Undo: none, the confirm before it only goes forward.
    Convergent because: a machine that is gone is not looked for. If killed: done or not done.
    """

    forward_only = True

    def do(self, migration: Migration) -> None:
        def gone(tx: Transaction) -> None:
            instance = tx.instances.find(migration.instance_id)
            if instance is not None:
                forget(tx, instance)
                text = f"{instance.name} is not managed any more; its domain and disks stay on {instance.host.name}"
                tx.events.add(migration.id, "state", text, task=self.name)

        self.world.work.record(gone)
