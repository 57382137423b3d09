"""The event log: what happened to a migration, in order, each line chained to the one before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from resizeflow.persistence.models import Event, Migration

if TYPE_CHECKING:
    from resizeflow.persistence.transaction import Transaction

GENESIS = "0" * 64
_HASHED = ("migration_id", "seq", "at", "epoch", "worker", "kind", "task", "text", "data")
_EVENTS, _MIGRATIONS = cast("sa.Table", Event.__table__), cast("sa.Table", Migration.__table__)
_LAST = (
    sa.select(_EVENTS.c.seq, _EVENTS.c.chain)
    .where(_EVENTS.c.migration_id == sa.bindparam("migration"))
    .order_by(_EVENTS.c.seq.desc())
    .limit(1)
)
_LOCK = sa.select(_MIGRATIONS.c.id).where(_MIGRATIONS.c.id == sa.bindparam("migration")).with_for_update(key_share=True)
_INSERT = sa.insert(_EVENTS)


def chain(previous: str, line: Mapping[str, Any]) -> str:
    """The hash of a line on top of the previous one's."""
    content = json.dumps([line[name] for name in _HASHED], sort_keys=True, default=datetime.isoformat)
    return hashlib.sha256((previous + content).encode()).hexdigest()


def line_of(event: Event) -> dict[str, Any]:
    """What `chain` takes of an event."""
    return {name: getattr(event, name) for name in _HASHED}


class Events:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.lease = tx.lease
        self._locked = tx.lease.migration_id if tx.lease else None
        """The migration whose row a fenced transaction has locked at its start."""
        self._last: dict[str, tuple[int, str]] = {}
        self._new: list[dict[str, Any]] = []

    def of(self, migration_id: str, after: int = 0) -> Sequence[Event]:
        """The log of a migration, from after a sequence number."""
        self.flush()
        query = sa.select(Event).where(Event.migration_id == migration_id, Event.seq > after).order_by(Event.seq)
        return self._tx.session.scalars(query).all()

    def add(self, migration_id: str, kind: str, text: str, *, task: str | None = None, **data: Any) -> None:
        """Appends a line; it is committed with what it tells."""
        if migration_id not in self._last:
            if migration_id != self._locked:
                # The migration's row serialises the writers of its log (the worker's and a person's commands).
                self._tx.connection.execute(_LOCK, {"migration": migration_id})
            last = self._tx.connection.execute(_LAST, {"migration": migration_id}).first()
            self._last[migration_id] = (last.seq, last.chain) if last else (0, GENESIS)
        seq, previous = self._last[migration_id]
        line: dict[str, Any] = {
            "migration_id": migration_id,
            "seq": seq + 1,
            "at": self._tx.now(),
            "epoch": self.lease.epoch if self.lease else 0,
            "worker": self.lease.owner if self.lease else None,
            "kind": kind,
            "task": task,
            "text": text,
            "data": data,
        }
        line["chain"] = chain(previous, line)
        self._new.append(line)
        self._last[migration_id] = (line["seq"], line["chain"])

    def flush(self) -> None:
        """Writes what was added, in one statement: the end of a transaction does it."""
        self._tx.flush()
        if self._new:
            self._tx.connection.execute(_INSERT, self._new)
            self._new = []


def broken_link(events: Sequence[Event]) -> int | None:
    """The sequence number of the first line that does not fit the one before it, None if the chain verifies."""
    previous, expected = GENESIS, 1
    for event in events:
        if event.seq != expected or event.chain != chain(previous, line_of(event)):
            return event.seq
        previous, expected = event.chain, expected + 1
    return None
