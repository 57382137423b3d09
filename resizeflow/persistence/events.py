"""The event log: what happened to a migration, in order, each line chained to the one before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from resizeflow.clock import Clock
from resizeflow.lease import Lease
from resizeflow.persistence.models import Event, Migration

GENESIS = "0" * 64
_TABLE = cast("sa.Table", Event.__table__)
_LAST = (
    sa.select(Event.seq, Event.chain)
    .where(Event.migration_id == sa.bindparam("migration"))
    .order_by(Event.seq.desc())
    .limit(1)
)


def chain(previous: str, event: Event) -> str:
    """The hash of an event on top of the previous one's."""
    content = json.dumps(
        [
            event.migration_id,
            event.seq,
            event.at.isoformat(),
            event.epoch,
            event.worker,
            event.kind,
            event.task,
            event.text,
            event.data,
        ],
        sort_keys=True,
    )
    return hashlib.sha256((previous + content).encode()).hexdigest()


class Events:
    def __init__(self, session: Session, clock: Clock, lease: Lease | None) -> None:
        self.session = session
        self.clock = clock
        self.lease = lease
        self._locked = lease.migration_id if lease else None
        """The migration whose row a fenced transaction has locked at its start."""
        self._last: dict[str, tuple[int, str]] = {}
        self._new: list[dict[str, Any]] = []

    def of(self, migration_id: str, after: int = 0) -> Sequence[Event]:
        """The log of a migration, from after a sequence number."""
        self.flush()
        query = sa.select(Event).where(Event.migration_id == migration_id, Event.seq > after).order_by(Event.seq)
        return self.session.scalars(query).all()

    def add(self, migration_id: str, kind: str, text: str, *, task: str | None = None, **data: Any) -> None:
        """Appends a line; it is committed with what it tells."""
        if migration_id not in self._last:
            if migration_id != self._locked:
                # The migration's row serialises the writers of its log (the worker's and a person's commands).
                self.session.execute(
                    sa.select(Migration.id).where(Migration.id == migration_id).with_for_update(key_share=True)
                )
            last = self.session.execute(_LAST, {"migration": migration_id}).first()
            self._last[migration_id] = (last.seq, last.chain) if last else (0, GENESIS)
        seq, previous = self._last[migration_id]
        event = Event(
            migration_id=migration_id,
            seq=seq + 1,
            at=self.clock.now(),
            epoch=self.lease.epoch if self.lease else 0,
            worker=self.lease.owner if self.lease else None,
            kind=kind,
            task=task,
            text=text,
            data=data,
        )
        event.chain = chain(previous, event)
        self._new.append({column.key: getattr(event, column.key) for column in _TABLE.columns})
        self._last[migration_id] = (event.seq, event.chain)

    def flush(self) -> None:
        """Writes what was added, in one statement: the end of a transaction does it."""
        if self._new:
            self.session.flush()
            self.session.execute(sa.insert(_TABLE), self._new)
            self._new = []


def broken_link(events: Sequence[Event]) -> int | None:
    """The sequence number of the first line that does not fit the one before it, None if the chain verifies."""
    previous, expected = GENESIS, 1
    for event in events:
        if event.seq != expected or event.chain != chain(previous, event):
            return event.seq
        previous, expected = event.chain, expected + 1
    return None
