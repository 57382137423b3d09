"""Ports and their bindings: rows of ours, and for ports that Neutron has, what it is made to have (bindings.py)."""

from __future__ import annotations

import sqlalchemy as sa

from resizeflow.persistence.models import Binding, Host, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks import vlans
from resizeflow.tasks.base import MoveTask, destination
from resizeflow.tasks.bindings import current, each


def activate(tx: Transaction, migration: Migration, host_id: str) -> None:
    """Each port's binding on `host_id` becomes its active one; the other stays, inactive, as the migration's."""
    for port in tx.instances.get(migration.instance_id).ports:
        for binding in port.bindings:
            if binding.host_id != host_id:
                binding.active, binding.migration_id = False, migration.id
        # One active binding per port is a constraint: the old one goes first.
        tx.session.flush()
        here = next((binding for binding in port.bindings if binding.host_id == host_id), None)
        if here is None:  # of a port that was added at the destination since
            here = Binding(host_id=host_id)
            port.bindings.append(here)
        here.active, here.migration_id = True, None
        tx.session.flush()


def reserve(tx: Transaction, migration: Migration, host: Host) -> None:
    """Each port has a binding on a host, inactive and the migration's if it is new."""
    for port in tx.instances.get(migration.instance_id).ports:
        if all(binding.host_id != host.id for binding in port.bindings):
            port.bindings.append(Binding(host_id=host.id, active=False, migration_id=migration.id))


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


def forget(task: MoveTask, migration: Migration, host: Host) -> None:
    """The migration has no inactive bindings on a host any more, nor any VLAN there that nobody else needs."""
    if not vlans.moves(task, migration):
        task.world.work.record(lambda tx: unbind(tx, migration, host.id))
        return
    # Of two machines that leave at once each would take the other's for one that needs the VLAN.
    with task.world.intent("unbound") as tx:
        unbind(tx, migration, host.id)
    vlans.leave(task, migration, host)


class BindPorts(MoveTask):
    """Gives each port a second, inactive binding on the destination.

    Effect: rows, committed at once where something is done by them: at Neutron an inactive binding with the kind and
        profile of the active one; on the host the uplinks of a bridge that filters VLANs bring those of its ports. That
        a bridge is there was seen by PrepareDestination.
    Undo: at Neutron and in the rows the inactive bindings there are removed; one that a late request has made active
        gives way to the source's before. A VLAN that nobody else needs on the host is taken away again.
    Convergent because: host and port name a binding, here (a constraint) and at Neutron, so there is no second one.
    If killed: the rows say which bindings may be there; it runs again. If Neutron is away the job waits.
    """

    def do(self, migration: Migration) -> None:
        host = destination(migration)
        if (migration.ports and not migration.same_host) or vlans.moves(self, migration):
            with self.world.intent("bindings") as tx:
                reserve(tx, migration, host)
            for port in each(self, migration, migration.ports):
                port.require()
                port.bind(host)
        else:
            self.world.work.record(lambda tx: reserve(tx, migration, host))
        vlans.join(self, migration, host)

    def undo(self, migration: Migration) -> None:
        host = migration.dest_host
        if host is None:
            return
        if not migration.same_host:
            for port in each(self, migration, migration.ports):
                port.leave(host, stays=migration.source_host)
        forget(self, migration, host)


class RemoveSourceBindings(MoveTask):
    """Confirm: removes the inactive bindings on the source, here and at Neutron, and VLANs that nobody needs there.

    Effect: rows, committed with the task, or before VLANs are taken from the uplinks of a bridge. A binding there that
        a late request has made active gives way to the destination's before. Of a port that was removed from the
        machine since, only an inactive one is deleted.
    Undo: none, confirm only goes forward. Convergent because: bindings that are gone stay gone.
    If killed: it runs again. Source away: a debt per VLAN.
    """

    forward_only = True

    def do(self, migration: Migration) -> None:
        if not migration.same_host:
            leave(self, migration, migration.source_host, stays=destination(migration))
        forget(self, migration, migration.source_host)


def leave(task: MoveTask, migration: Migration, host: Host, *, stays: Host) -> None:
    """No port of the migration is bound to a host at Neutron any more: the machine stays on the other."""
    has = current(migration)
    for port in each(task, migration, migration.ports):
        port.leave(host, stays=stays if port.port in has else None)
