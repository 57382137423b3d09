"""Resources on hosts: choosing the destination and holding what the machine needs there."""

from __future__ import annotations

from resizeflow.errors import NoValidHost
from resizeflow.fleet import choose, take_first
from resizeflow.persistence.models import Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.tasks import notices
from resizeflow.tasks.base import MoveTask

ROUNDS = 3
"""How often the fleet is read anew when all that was chosen has been taken meanwhile."""


class SelectDestination(MoveTask):
    """Chooses the host and holds the new flavor's resources there.

    Effect: the migration has a destination, alternates and the verdict on each host; the instance's allocation is
        on the destination, the source's belongs to the migration (Nova's ownership). One transaction, in which the
        filters have passed once more.
    Undo: the destination's is released and the source's given back to the instance.
    Convergent because: a migration that has its destination is left as it is.
    If killed: before the commit nothing happened, after it there is nothing left to do.
    """

    def do(self, migration: Migration) -> None:
        if migration.dest_host_id:
            return
        for _ in range(ROUNDS):
            selection = choose(
                self.world.database,
                self.gate,
                migration.instance_id,
                migration.new_flavor,
                migration.requested_host_id,
            )
            candidates = [host.id for host in (selection.host, *selection.alternates)]
            with self.world.intent("allocate") as tx:
                row = tx.migrations.get(migration.id)
                taken = take_first(tx, row, candidates, selection.verdicts, self.world.settings)
                if taken is not None:
                    tx.events.add(
                        migration.id,
                        "destination",
                        f"destination {taken.name}",
                        task=self.name,
                        verdicts=row.verdicts,
                    )
                    tx.notify(f"{notices.SELECT}.end", row, task=self.name)
                    notices.begin_prep(tx, row, self.name)
                    return
            self.tell_retry("every host that was chosen was taken meanwhile: the fleet is read anew")
        raise NoValidHost("No valid host: every host that was chosen was taken meanwhile.")

    def undo(self, migration: Migration) -> None:
        def release(tx: Transaction) -> None:
            tx.hosts.give_destination_back(tx.migrations.get(migration.id))

        self.world.work.record(release)
