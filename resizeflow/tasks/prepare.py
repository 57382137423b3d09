"""Looking at the destination before anything is touched."""

from __future__ import annotations

from resizeflow.errors import NoValidHost
from resizeflow.fitness import why_unfit
from resizeflow.persistence.models import Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks.base import MoveTask, destination


class PrepareDestination(MoveTask):
    """Looks whether the destination can really take the machine; one that cannot gives way to the next alternate.

    Effect: none on hosts. Host reachable, machine and guest type known, bridges there, pool active with room for
        the bytes, no domain of that name or UUID; a full destination is found while the machine still runs.
    Undo: nothing to undo.
    Convergent because: it only looks; changing the destination is one transaction.
    If killed: looks again, at whatever destination is then the migration's.
    """

    def do(self, migration: Migration) -> None:
        while True:
            host = destination(migration)
            reason = why_unfit(self.gate, migration.instance_id, migration.source_host, host, self._bridges(migration))
            if reason is None:
                self.tell(f"{host.name} can take the machine")
                return
            self.tell(f"{host.name} cannot take the machine: {reason}")
            if not migration.alternates:
                raise NoValidHost(f"No valid host: {host.name}: {reason}.")
            self._give_way(migration, reason)
            migration = self.migration()

    def _bridges(self, migration: Migration) -> list[str]:
        with self.world.database.read() as tx:
            return [port.bridge for port in tx.instances.get(migration.instance_id).ports]

    def _give_way(self, migration: Migration, reason: str) -> None:
        def move(tx: Transaction) -> None:
            row = tx.migrations.get(migration.id)
            following = tx.hosts.get(row.alternates[0])
            verdicts = {**row.verdicts, destination(row).name: reason, following.name: "chosen as alternate"}
            tx.hosts.lock(row.dest_host_id, following.id)
            tx.hosts.give_destination_back(row)
            row.alternates = row.alternates[1:]
            row.verdicts = verdicts
            tx.hosts.take_destination(row, following)
            tx.events.add(migration.id, "destination", f"destination {following.name}", task=self.name)

        try:
            with self.world.intent("alternate") as tx:
                move(tx)
        except NoValidHost:
            with self.world.intent("alternate-full") as tx:
                row = tx.migrations.get(migration.id)
                row.alternates = row.alternates[1:]
