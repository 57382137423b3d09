"""Looking at the destination before anything is touched."""

from __future__ import annotations

from resizeflow.errors import NoValidHost
from resizeflow.fitness import Machine, examine, why_unfit
from resizeflow.fleet import take_first
from resizeflow.persistence.models import Migration
from resizeflow.tasks import notices
from resizeflow.tasks.base import MoveTask, destination


class PrepareDestination(MoveTask):
    """Looks whether the destination can really take the machine; one that cannot gives way to the next alternate.

    Effect: none on hosts. Host reachable, machine and guest type known, its CPU there, bridges there or Neutron's
        agent, pool active with room for the bytes, no domain of that name or UUID; a full destination is found while
        the machine still runs. An alternate that no longer passes the filters is passed over.
    Undo: nothing to undo.
    Convergent because: it only looks; changing the destination is one transaction.
    If killed: looks again, at whatever destination is then the migration's.
    """

    def do(self, migration: Migration) -> None:
        machine = self._examine(migration)
        while True:
            host = destination(migration)
            reason = why_unfit(self.gate, machine, host)
            if reason is None:
                self.tell(f"{host.name} can take the machine")
                return
            self.tell(f"{host.name} cannot take the machine: {reason}")
            self._give_way(migration, reason)
            migration = self.migration()

    def _examine(self, migration: Migration) -> Machine:
        with self.world.database.read() as tx:
            instance = tx.instances.whole(migration.instance_id)
        return examine(self.gate, migration.source_host, instance, migration.new_flavor)

    def _give_way(self, migration: Migration, reason: str) -> None:
        with self.world.intent("alternate") as tx:
            row = tx.migrations.get(migration.id)
            verdicts = {**row.verdicts, destination(row).name: reason}
            if tx.outbox.open_phase(row.id) == notices.PREP:  # else told already, by a run that was killed after it
                notices.give_up_prep(tx, row, self.name, reason)
            taken = take_first(tx, row, row.alternates, verdicts, self.world.settings)
            if taken is not None:
                tx.events.add(migration.id, "destination", f"destination {taken.name}", task=self.name)
                notices.begin_prep(tx, row, self.name)
        if taken is None:
            raise NoValidHost(f"No valid host: {destination(migration).name}: {reason}, and no alternate is left.")
