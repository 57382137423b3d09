"""The machine on its source host: off, unable to start by itself, and forgotten in the end."""

from __future__ import annotations

from resizeflow.connections import HostAway
from resizeflow.drivers import definition
from resizeflow.errors import Conflict
from resizeflow.handover import Waiting
from resizeflow.persistence.models import Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import MigrationStatus, TaskState
from resizeflow.tasks import machine, secrets
from resizeflow.tasks.attachments import connections
from resizeflow.tasks.base import WAIT_FOR_HOST, MoveTask


class PowerOffSource(MoveTask):
    """Shuts the machine down on its source.

    Effect: status `migrating`, task state `resize_migrating`, once both hosts have a free slot for a transfer; clean
        shutdown within the machine's time, then hard; then the definition is compared with the captured one.
    Undo: starts the machine again if it was on.
    Convergent because: a machine that is off is not shut down again.
    If killed: the guest may go on shutting down by itself; the next run waits for it.
    """

    def do(self, migration: Migration) -> None:
        self._take_slot(migration)
        seconds = machine.shutdown_seconds(self, migration)
        machine.power_off(self, migration.source_host, migration, seconds)
        domain = self.gate.host(migration.source_host).domain(migration.instance_id)
        if domain is None or migration.definition is None:
            raise self.attention(f"{migration.instance_name} vanished from {migration.source_host.name}")
        if changed := definition.difference(migration.definition, domain.inactive_xml):
            raise Conflict(f"{migration.instance_name} was changed while it was being moved: {changed}.")

        def off(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            row.powered_off_at = row.powered_off_at or tx.now()

        self.world.work.record(off)

    def _take_slot(self, migration: Migration) -> None:
        if migration.status is MigrationStatus.MIGRATING:
            return
        with self.world.intent("migrating") as tx:
            row = tx.migrations.get(migration.id)
            if busy := tx.migrations.may_move(row):
                raise Waiting(busy, delay=WAIT_FOR_HOST / 5)
            tx.migrations.advance(row, MigrationStatus.PRE_MIGRATING, to=MigrationStatus.MIGRATING)
            tx.instances.get(row.instance_id).task_state = TaskState.RESIZE_MIGRATING
            tx.events.add(row.id, "state", "status migrating, task state resize_migrating", task=self.name)
            tx.notify("instance.resize_prep.end", row, task=self.name)
            tx.notify("instance.resize.start", row, task=self.name)

    def undo(self, migration: Migration) -> None:
        if migration.was_running and migration.status is not MigrationStatus.PRE_MIGRATING:
            machine.run_again(self, migration.source_host, migration, machine.shutdown_seconds(self, migration))
            self.tell(f"{migration.instance_name} runs again on {migration.source_host.name}")


class RetireSource(MoveTask):
    """Makes the source unable to start by itself and stores the proof that it is off.

    Effect: the domain is redefined in place: autostart off, marked as retired by this migration, disk paths with a
        prefix so that a start fails tellingly. Read back once; the time is stored with the task's success.
    Undo: the inverse edit of the host's own definition, with volumes as they are connected now; autostart as it was.
    Convergent because: a definition that carries our mark is not edited again.
    If killed: between autostart and definition the machine is off and both are set by the next run.
    """

    def do(self, migration: Migration) -> None:
        machine.retire(self, migration.source_host, migration)

        def proof(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            row.source_off_at = row.source_off_at or tx.now()

        self.world.work.record(proof)

    def undo(self, migration: Migration) -> None:
        source = migration.source_host
        attached = connections(self, migration, "return_attachment", source)
        machine.unretire(self, source, migration, lambda now: definition.connected(definition.restored(now), attached))
        secrets.provide(self, migration, source, attached.values())
        if migration.autostart is not None:
            machine.set_autostart(self, migration.source_host, migration, migration.autostart)


class RemoveSourceDomain(MoveTask):
    """Confirm: the retired domain is forgotten by its host; on the same host there is none.

    Effect: undefined only if its mark says retired by this migration; secrets of ours that no domain there names any
        more are removed. Undo: none, confirm only goes forward.
    Convergent because: a domain that is gone is fine. If killed: done or not done. Host away: a debt.
    """

    forward_only = True

    def do(self, migration: Migration) -> None:
        try:
            if migration.same_host:
                self.tell("same host: the machine's own domain stays")
            else:
                machine.remove_domain(self, migration.source_host, migration)
            secrets.remove(self, migration, migration.source_host)
        except HostAway as error:
            if migration.same_host:
                raise
            self.owe(migration, migration.source_host, "domain", migration.instance_id, str(error))
