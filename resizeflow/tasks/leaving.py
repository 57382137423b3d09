"""Revert: the machine leaves its destination. It is off there, cannot start by itself, and is removed at the end."""

from __future__ import annotations

from resizeflow.connections import HostAway
from resizeflow.drivers import definition
from resizeflow.drivers.definition import Mark
from resizeflow.drivers.passwords import with_passwords
from resizeflow.persistence.models import Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks import bindings, machine, secrets
from resizeflow.tasks.attachments import Attachments, connections
from resizeflow.tasks.base import MoveTask, destination
from resizeflow.tasks.moved import at_destination, at_source
from resizeflow.tasks.network import forget, leave


class PowerOffDestination(MoveTask):
    """Revert: shuts the machine down on the destination.

    Effect: off; what it wrote since the resize will be discarded.
    Undo: starts it again if it was on; a fenced host is left as it is, and the revert can be asked for anew.
    Convergent because: one that is off stays off.
    If killed: the guest may go on shutting down; the next run waits for it.
    """

    def do(self, migration: Migration) -> None:
        seconds = machine.shutdown_seconds(self, migration)
        try:
            machine.power_off(self, destination(migration), migration, seconds)
        except HostAway as error:
            accept_fence(self, migration, error)

    def undo(self, migration: Migration) -> None:
        if not migration.dest_was_running:
            return
        try:
            machine.run_again(self, destination(migration), migration, machine.shutdown_seconds(self, migration))
        except HostAway as error:
            accept_fence(self, migration, error)


class RetireDestination(MoveTask):
    """Revert: the destination can no longer start by itself; its disks are kept; proof of off.

    Effect: as RetireSource; a domain that somebody undefined cannot start either.
    Undo: the inverse edit, marked as destination again, autostart as it was.
    Convergent because: a definition with our retired mark is not edited again. If killed: the next run goes on.
    """

    def do(self, migration: Migration) -> None:
        host = destination(migration)
        try:
            if self._is_gone(migration):
                self.tell(f"proof of off: {host.name} has no domain {migration.instance_name}", proof=True)
            else:
                machine.retire(self, host, migration)
        except HostAway as error:
            accept_fence(self, migration, error)

        def proof(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            row.dest_off_at = row.dest_off_at or tx.now()

        self.world.work.record(proof)

    def undo(self, migration: Migration) -> None:
        try:
            self._restore(migration)
        except HostAway as error:
            accept_fence(self, migration, error)

    def _restore(self, migration: Migration) -> None:
        host = destination(migration)
        if self._is_gone(migration):
            self.tell(f"{host.name} has no domain {migration.instance_name}: nothing is restored there")
            return

        attached = connections(self, migration, "dest_attachment", host)

        def as_destination(now: str) -> str:
            mark = Mark(migration.id, self.world.lease.epoch, "destination")
            before = definition.connected(migration.dest_definition or definition.restored(now), attached)
            return definition.marked(with_passwords(before, now), mark)

        machine.unretire(self, host, migration, as_destination)
        secrets.provide(self, migration, host, attached.values())
        machine.set_autostart(self, host, migration, bool(migration.autostart))

    def _is_gone(self, migration: Migration) -> bool:
        return self.gate.host(destination(migration)).domain(migration.instance_id) is None


def accept_fence(task: MoveTask, migration: Migration, error: HostAway) -> None:
    """A host that is away counts as off only if a person said that it is (`host set --fenced`)."""
    if not machine.is_fenced(error.host, migration):
        raise error
    task.tell(
        f"{error.host.name} is away and fenced since {error.host.fenced_at:%Y-%m-%d %H:%M:%S}: that is proof of off"
    )


class RemoveDestination(MoveTask):
    """Revert: removes the destination's domain, disks, bindings, secrets and the volumes' ways back.

    Effect: only after the source has just been seen with its definition and disks. A volume that was detached at the
        destination since loses its return attachment: it is nobody's.
    Undo: none, the machine has run on the source. Convergent because: what is gone is fine.
    If killed: the rest by the next run. Host away: debts.
    """

    forward_only = True

    def do(self, migration: Migration) -> None:
        host = destination(migration)
        self._see_source(migration)
        try:
            if not migration.same_host:
                machine.remove_domain(self, host, migration)
            for disk in at_destination(migration):
                machine.delete_volume(self, host, disk.dest_volume or "")
            secrets.remove(self, migration, host)
        except HostAway as error:
            if migration.same_host:
                raise
            self.owe(migration, host, "domain", migration.instance_id, str(error))
            for disk in at_destination(migration):
                self.owe(migration, host, "disk", disk.dest_volume or "", str(error))
        self._give_up_volumes(migration)
        if not migration.same_host:
            leave(self, migration, host, stays=migration.source_host)
            self._forget_detached_ports(migration)
        forget(self, migration, host)

    def _give_up_volumes(self, migration: Migration) -> None:
        for volume in migration.volumes:
            attachments = Attachments(self, migration, volume)
            attachments.remove("onward_attachment")
            if volume.detached:
                attachments.remove("return_attachment")
            attachments.sweep()
        secrets.remove(self, migration, migration.source_host)

    def _forget_detached_ports(self, migration: Migration) -> None:
        """A port that was removed at the destination has its way back still."""
        for port in bindings.each(self, migration, [port for port in migration.ports if port.detached]):
            port.leave(migration.source_host, stays=None)

    def _see_source(self, migration: Migration) -> None:
        source = migration.source_host
        hypervisor = self.gate.host(source)
        domain = hypervisor.domain(migration.instance_id)
        if domain is None or machine.has_role(domain, migration, "retired"):
            raise self.attention(f"{source.name} does not have the machine back: nothing is deleted")
        for disk in at_source(migration):
            if hypervisor.volume(source.pool, disk.source_volume) is None:
                raise self.attention(f"{disk.source_path} is missing on {source.name}: nothing is deleted")
