"""Resources on hosts: choosing the destination and holding what the machine needs there."""

from __future__ import annotations

from resizeflow.errors import NoValidHost
from resizeflow.fleet import choose
from resizeflow.persistence.models import Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks.base import MoveTask


class SelectDestination(MoveTask):
    """Chooses the host and holds the new flavor's resources there.

    Effect: the migration has a destination, alternates and the verdict on each host; the instance's allocation is
        on the destination, the source's belongs to the migration (Nova's ownership); one transaction.
    Undo: the destination's is released and the source's given back to the instance.
    Convergent because: a migration that has its destination is left as it is.
    If killed: before the commit nothing happened, after it there is nothing left to do.
    """

    def do(self, migration: Migration) -> None:
        if migration.dest_host_id:
            return
        with self.world.database.read() as tx:
            selection = choose(
                tx,
                self.gate,
                tx.migrations.get(migration.id),
                same_host_allowed=self.world.settings.allow_resize_to_same_host,
            )
        for number, candidate in enumerate((selection.host, *selection.alternates)):
            try:
                with self.world.intent("allocate") as tx:
                    row = tx.migrations.get(migration.id)
                    tx.hosts.take_destination(row, tx.hosts.get(candidate.id))
                    row.alternates = [host.id for host in selection.alternates[number:] if host is not candidate]
                    row.verdicts = selection.verdicts
                    tx.events.add(
                        migration.id,
                        "destination",
                        f"destination {candidate.name}",
                        task=self.name,
                        verdicts=selection.verdicts,
                    )
            except NoValidHost as error:
                self.tell(f"{candidate.name} was taken meanwhile: {error}")
            else:
                return
        raise NoValidHost("No valid host: the room on every candidate was taken meanwhile.")

    def undo(self, migration: Migration) -> None:
        def release(tx: Transaction) -> None:
            tx.hosts.give_destination_back(tx.migrations.get(migration.id))

        self.world.work.record(release)
