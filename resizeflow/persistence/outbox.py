"""The outbox: notifications, each written in the transaction of the change that it tells of."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from resizeflow.errors import NotFound
from resizeflow.persistence import payloads
from resizeflow.persistence.models import Event, Instance, Job, Migration, Notification
from resizeflow.states import TERMINAL

if TYPE_CHECKING:
    from resizeflow.config import Notifications
    from resizeflow.persistence.transaction import Transaction

LINE = "notification"
"""The kind of the log's line that goes with a notification."""
MIGRATE_SERVER = "compute_task.migrate_server"
"""What fails (Nova's word) as long as no phase on a host has begun."""
UPDATE = "instance.update"
_NEXT = {"instance.resize": "instance.resize_finish"}
"""The one phase that begins a while after the end of another."""
_WATCHED = {"vm_state": ("vm_state",), "vm_and_task_state": ("vm_state", "task_state")}
_ROWS = cast("sa.Table", Notification.__table__)
_LAST = sa.select(sa.func.max(_ROWS.c.seq)).where(_ROWS.c.instance_id == sa.bindparam("instance"))
_INSERT = sa.insert(_ROWS)


class Outbox:
    """Collects during a transaction; numbers and writes at its end.

    Two transactions never number for one instance at once: a job's have its row and its migration's locked, and who
    submits one has locked the instance and got past the database's constraint of one unfinished job. The constraint
    on (instance, seq) would refuse the second one of them.
    """

    def __init__(self, tx: Transaction, settings: Notifications) -> None:
        self._tx = tx
        self._settings = settings
        self._new: list[dict[str, Any]] = []

    def add(
        self,
        event_type: str,
        migration: Migration,
        *,
        task: str | None = None,
        fault: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Tells of a migration, with a line in its log. `request_id` is by default the job of this transaction."""
        self._tx.flush()
        payload = payloads.of_migration(
            self._tx.session,
            event_type,
            migration,
            request_id=request_id or self._request_id(),
            fault=fault,
            now=self._tx.now(),
        )
        message_id = self._put(event_type, payload, migration.instance_id, migration.id)
        self._tx.events.add(migration.id, LINE, event_type, task=task, message_id=message_id)

    def stopped(self, job: Job, reason: str) -> None:
        """Tells that a job of a move waits for a person: the phase that is open has not ended, and does not go on."""
        migration = self._tx.migrations.get(job.migration_id)
        if migration.status not in TERMINAL and not job.flow.startswith("settle"):
            phase = self.open_phase(migration.id) or MIGRATE_SERVER
            self.add(f"{phase}.error", migration, fault=reason)

    def watch(self, session: Session) -> None:
        """Lets every change of an instance's state that the session flushes be told, if the settings say so."""
        if self._settings.notify_on_state_change is not None:
            sa.event.listen(session, "before_flush", self._tell_updates)

    def _tell_updates(self, session: Session, *_: Any) -> None:
        watched = _WATCHED[self._settings.notify_on_state_change or ""]
        for row in session.dirty:
            if isinstance(row, Instance) and any(_changed(row, attribute) for attribute in watched):
                payload = payloads.of_update(session, row, request_id=self._request_id(), now=self._tx.now())
                lease = self._tx.lease
                message_id = self._put(UPDATE, payload, row.id, lease.migration_id if lease else None)
                self._tx.events.about(row, LINE, UPDATE, message_id=message_id)

    def _request_id(self) -> str | None:
        return self._tx.lease.job_id if self._tx.lease else None

    def _put(self, event_type: str, payload: payloads.Payload, instance_id: str, migration_id: str | None) -> str:
        message_id = str(uuid.uuid4())
        self._new.append(
            {
                "message_id": message_id,
                "instance_id": instance_id,
                "migration_id": migration_id,
                "event_type": event_type,
                "priority": "ERROR" if event_type.endswith(".error") else "INFO",
                "payload": payload,
                "created_at": self._tx.now(),
                "wanted": self._settings.transport_url is not None,
            }
        )
        return message_id

    def flush(self) -> None:
        """Writes what was added, in one statement: the end of a transaction does it."""
        if not self._new:
            return
        last: defaultdict[str, int] = defaultdict(int)
        for instance_id in {row["instance_id"] for row in self._new}:
            last[instance_id] = self._tx.connection.scalar(_LAST, {"instance": instance_id}) or 0
        for row in self._new:
            last[row["instance_id"]] += 1
            row["seq"] = last[row["instance_id"]]
            row["payload"] = payloads.numbered(row["payload"], row["seq"])
        self._tx.connection.execute(_INSERT, self._new)
        self._new = []

    # --- reading -----------------------------------------------------------------------------------------

    def open_phase(self, migration_id: str) -> str | None:
        """The phase whose `.start` was told last, if its `.end` was not, or the one that is next without a word. By the
        log, which is not pruned before the migration is closed."""
        self._tx.events.flush()
        lines = sa.select(Event.text).where(Event.migration_id == migration_id, Event.kind == LINE).order_by(Event.seq)
        opened: str | None = None
        for event_type in self._tx.session.scalars(lines):
            phase, _, moment = event_type.rpartition(".")
            if moment == "start":
                opened = phase
            elif moment == "end" and phase == opened:
                opened = _NEXT.get(phase)
        return opened

    def list(self, instance_id: str | None = None, limit: int = 100, *, unsent: bool = False) -> Sequence[Notification]:
        """The latest first; with `unsent` only those that wait to be sent."""
        query = sa.select(Notification).order_by(Notification.id.desc()).limit(limit)
        if instance_id:
            query = query.where(Notification.instance_id == instance_id)
        if unsent:
            query = query.where(Notification.wanted, Notification.sent_at.is_(None))
        return self._tx.session.scalars(query).all()

    def get(self, message_id: str) -> Notification:
        """By its message id or the beginning of it. Raises NotFound."""
        query = sa.select(Notification).where(Notification.message_id.startswith(message_id, autoescape=True)).limit(2)
        found = self._tx.session.scalars(query).all()
        if len(found) == 1:
            return found[0]
        what = "Several notifications begin with" if found else "There is no notification"
        raise NotFound(f"{what} {message_id!r}; `resizeflow notification list` shows them.")


def _changed(row: Instance, attribute: str) -> bool:
    return bool(sa.inspect(row).attrs[attribute].history.has_changes())
