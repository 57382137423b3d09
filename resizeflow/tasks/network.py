"""Ports and their bindings. With the bridge driver a binding is our own row; the bridge is looked for at the host."""

from __future__ import annotations

import sqlalchemy as sa

from resizeflow.persistence.models import Binding, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks.base import MoveTask, destination


def activate(tx: Transaction, migration: Migration, host_id: str) -> None:
    """Each port's binding on `host_id` becomes its active one; the other stays, inactive, as the migration's."""
    for port in tx.instances.get(migration.instance_id).ports:
        for binding in port.bindings:
            if binding.host_id != host_id:
                binding.active, binding.migration_id = False, migration.id
        # One active binding per port is a constraint: the old one goes first.
        tx.session.flush()
        for binding in port.bindings:
            if binding.host_id == host_id:
                binding.active, binding.migration_id = True, None
        tx.session.flush()


def unbind(tx: Transaction, migration: Migration, host_id: str) -> None:
    """Removes the migration's inactive bindings on a host."""
    for port in tx.instances.get(migration.instance_id).ports:
        tx.session.execute(
            sa.delete(Binding).where(
                Binding.port_id == port.id,
                Binding.host_id == host_id,
                sa.not_(Binding.active),
                Binding.migration_id == migration.id,
            )
        )
    tx.session.expire_all()


class BindPorts(MoveTask):
    """Gives each port a second, inactive binding on the destination.

    Effect: rows, committed with the task; that the bridge is there was seen by PrepareDestination.
    Undo: removes the migration's inactive bindings there.
    Convergent because: a port that has a binding on the host gets no second one (a constraint too).
    If killed: nothing was committed; it runs again.
    """

    def do(self, migration: Migration) -> None:
        host = destination(migration)

        def bind(tx: Transaction) -> None:
            for port in tx.instances.get(migration.instance_id).ports:
                if all(binding.host_id != host.id for binding in port.bindings):
                    port.bindings.append(Binding(host_id=host.id, active=False, migration_id=migration.id))

        self.world.work.record(bind)

    def undo(self, migration: Migration) -> None:
        host = migration.dest_host
        if host is not None:
            self.world.work.record(lambda tx: unbind(tx, migration, host.id))


class RemoveSourceBindings(MoveTask):
    """Confirm: removes the inactive bindings on the source.

    Effect: rows, committed with the task. Undo: none, confirm only goes forward.
    Convergent because: bindings that are gone stay gone. If killed: it runs again.
    """

    forward_only = True

    def do(self, migration: Migration) -> None:
        self.world.work.record(lambda tx: unbind(tx, migration, migration.source_host_id))
