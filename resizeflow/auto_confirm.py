"""Confirms a resize that nobody decides for `resize_confirm_window` seconds (Nova's `_poll_unconfirmed_resizes`).

Through the same door and rules as a person's confirm. Passed over, and looked at again the next time, is
- a locked machine (Nova confirms it as an administrator): a lock also keeps the way back;
- one that is not RESIZED without a task, or has an unfinished job (Nova sets the migration to `error`, which closes
  both ways for ever: never here);
- one whose source or destination does not answer, or whose volumes' Cinder: nobody is in a hurry, and a confirm now
  would leave debts, or wait;
- one that somebody else decides just now.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from oslo_db.exception import DBDuplicateEntry

from resizeflow.config import Settings
from resizeflow.connections import Away
from resizeflow.decision import CONFIRM, decide
from resizeflow.errors import ResizeflowError
from resizeflow.looks import Looks
from resizeflow.persistence.database import Database
from resizeflow.persistence.jobs import database_now
from resizeflow.persistence.models import Event, Instance, Job, Migration
from resizeflow.persistence.moves import OPEN
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import JobState, MigrationStatus, OnCrash, VmState
from resizeflow.volumes import usable

_LAST_LINE = (
    sa.select(Event.at)
    .where(Event.migration_id == Migration.id)
    .order_by(Event.seq.desc())
    .limit(1)
    .correlate(Migration)
    .scalar_subquery()
)
"""When something happened to a migration last. As in Nova the window begins with the latest change, not with the end
of the resize: a confirm or revert that could not begin starts it anew, so that neither is tried again at once."""
_WAITING = (
    sa.select(Migration.id, _LAST_LINE)
    .join(Instance, Instance.id == Migration.instance_id)
    .where(
        OPEN,
        Migration.status == MigrationStatus.FINISHED,
        Instance.vm_state == VmState.RESIZED,
        Instance.task_state.is_(None),
        ~Instance.locked,
        ~sa.exists().where(Job.instance_id == Instance.id, Job.state != JobState.DONE),
    )
    .order_by(Migration.finished_at)
)


def due(tx: Transaction, window: float, migration_id: str | None = None) -> dict[str, datetime]:
    """When each undecided resize, or one of them, will be confirmed if nothing happens to it; by migration, the
    longest waiting first. None will without a window."""
    if not window:
        return {}
    query = _WAITING if migration_id is None else _WAITING.where(Migration.id == migration_id)
    return {row[0]: row[1] + timedelta(seconds=window) for row in tx.session.execute(query)}


def queue_confirms(database: Database, looks: Looks, settings: Settings) -> int:
    """A confirm job for each migration whose time has come; how many were queued."""
    window = settings.resize_confirm_window
    with database.read() as tx:
        come = [tx.migrations.whole(key) for key, when in due(tx, window).items() if when <= _now(tx)]
    return sum(_queue(database, migration, window) for migration in come if _all_answer(looks, migration))


def _queue(database: Database, migration: Migration, window: float) -> bool:
    # Another worker, or a person, may be about to decide it, or have done so: the rules and the database take one.
    with contextlib.suppress(DBDuplicateEntry, ResizeflowError), database.write(point="job.auto_confirm") as tx:
        tx.instances.get(migration.instance_id, lock=True)
        when = due(tx, window, migration.id).get(migration.id)
        if when is None or when > _now(tx):
            return False
        decide(tx, migration.instance_id, CONFIRM, OnCrash.RESUME, why=f"auto-confirm after {window:g} s")
        return True
    return False


def _now(tx: Transaction) -> datetime:
    """The database's time: a worker whose own clock is wrong confirms nothing early."""
    return datetime.fromtimestamp(tx.session.scalar(sa.select(database_now())) or 0.0, UTC)


def _all_answer(looks: Looks, migration: Migration) -> bool:
    try:
        for host in filter(None, (migration.source_host, migration.dest_host)):
            looks.host(host, patience=0).facts()
        if migration.volumes:
            usable(looks, patience=0)
    except Away:
        return False
    return True
