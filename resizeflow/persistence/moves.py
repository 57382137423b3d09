"""Migrations: resizes and cold migrations, open and past."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import sqlalchemy as sa

from resizeflow.errors import NotFound
from resizeflow.handover import Attention
from resizeflow.persistence.models import Migration
from resizeflow.states import TERMINAL, MigrationStatus

if TYPE_CHECKING:
    from resizeflow.persistence.transaction import Transaction

FIRST_ID, LAST_ID = str(UUID(int=0)), str(UUID(int=2**128 - 1))
OPEN = Migration.status.not_in(sa.bindparam("closed", sorted(TERMINAL), expanding=True, literal_execute=True))
"""Written out, so that it is the condition of the index over the few that are open."""


class Migrations:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.session = tx.session
        self._got: Migration | None = None
        """A session forgets what nobody holds, and would read it again."""

    def list(self, instance_id: str | None = None, limit: int = 100, *, open_only: bool = False) -> Sequence[Migration]:
        """The latest first."""
        query = sa.select(Migration).order_by(Migration.created_at.desc()).limit(limit)
        if open_only:
            # By their ids, or SQLite looks for them among all there ever were, in the order asked for.
            query = query.where(Migration.id.in_(sa.select(Migration.id).where(OPEN)))
        if instance_id:
            query = query.where(Migration.instance_id == instance_id)
        return self.session.scalars(query).all()

    def get(self, migration_id: str) -> Migration:
        """By its id or the beginning of it. Raises NotFound."""
        exact = self._got = self.session.get(Migration, migration_id)
        if exact is not None:
            return exact
        # A range, because LIKE would read every migration there ever was.
        rest = slice(len(migration_id), None)
        between = Migration.id.between(migration_id + FIRST_ID[rest], migration_id + LAST_ID[rest])
        # Nothing is no beginning: `migration rollback $ID`, with the variable empty, would take the only one.
        like = self.session.scalars(sa.select(Migration).where(between).limit(2)).all() if migration_id else []
        if len(like) == 1:
            return like[0]
        raise NotFound(
            f"{'Several migrations begin' if like else 'There is no migration'}"
            f"{' with' if like else ''} {migration_id!r}; `resizeflow migration list` shows them."
        )

    def whole(self, migration_id: str) -> Migration:
        """As `get`, with all that it moves, to be used after the transaction's end."""
        return _whole(self.get(migration_id))

    def open_for(self, instance_id: str) -> Migration | None:
        """The instance's migration that still holds something, if there is one; whole."""
        query = sa.select(Migration).where(Migration.instance_id == instance_id, OPEN)
        found = self.session.scalars(query).first()
        return None if found is None else _whole(found)

    def open(self) -> Sequence[Migration]:
        return self.session.scalars(sa.select(Migration).where(OPEN).order_by(Migration.id)).all()

    def in_flight(self) -> Counter[str]:
        """How many moves each host has, by its id: those that are neither finished nor over, from it or to it."""
        hosts = sa.select(Migration.status, Migration.source_host_id, Migration.dest_host_id).where(OPEN)
        return Counter(
            host
            for status, *ends in self.session.execute(hosts)
            if status is not MigrationStatus.FINISHED
            for host in set(filter(None, ends))
        )

    def advance(self, migration: Migration, *expected: MigrationStatus, to: MigrationStatus) -> None:
        """Compare-and-swap of the status; `to` already is fine (a task run again)."""
        if migration.status == to:
            return
        if migration.status not in expected:
            raise Attention(
                f"the migration's status is {migration.status} where {' or '.join(expected)} was expected: "
                "someone changed it by hand"
            )
        migration.status = to
        if to in TERMINAL:
            migration.closed_at = self._tx.now()

    def may_move(self, migration: Migration) -> str | None:
        """Whether both hosts of a migration have a free slot for a transfer; why not. Locks the hosts' rows, so
        that two moves cannot both take the last one."""
        for host in self._tx.hosts.lock(migration.source_host_id, migration.dest_host_id):
            touches = sa.or_(Migration.source_host_id == host.id, Migration.dest_host_id == host.id)
            moving = self.session.scalar(
                sa.select(sa.func.count())
                .select_from(Migration)
                .where(Migration.status == MigrationStatus.MIGRATING, touches, Migration.id != migration.id)
            )
            if (moving or 0) >= host.max_moves:
                return f"{host.name} has {moving} moves in flight, {host.max_moves} allowed"
        return None


def _whole(migration: Migration) -> Migration:
    for parts in (migration.disks, migration.volumes, migration.ports):
        list(parts)
    return migration
