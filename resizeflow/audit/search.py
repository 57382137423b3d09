"""Lines of all logs that fit some filters, the latest first: `resizeflow audit log` and the search of the dashboard.

No filter but `text` reads the whole table, however long it is: each has an index that ends with the time
(persistence/models/audit.py). Words are looked for in all lines that the other filters leave (`search`), or in so many
of them at a time (`look`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, cast

import sqlalchemy as sa
from oslo_utils.uuidutils import is_uuid_like

from resizeflow.persistence.models import COMMON_KINDS, FLEET, RARE, UNUSUAL, Event, Instance, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import Outcome

PAGE = 50
LOOKED_AT = 100_000
"""Lines in which words are looked for at a time: a tenth of a second."""


@dataclass(frozen=True)
class Filters:
    """What a line must have; None is anything."""

    instance: str | None = None
    """A machine's name or UUID, also of one that is managed no more."""
    host: str | None = None
    project: str | None = None
    user: str | None = None
    """Who asked."""
    since: datetime | None = None
    """From this moment on, and before that one (`until`)."""
    until: datetime | None = None
    outcome: Outcome | None = None
    kind: str | None = None
    text: str | None = None
    """Words in the text or the error, in whatever case."""
    migration: str | None = None
    """The whole id, or FLEET."""


class Place(NamedTuple):
    """Where a line stands among all: lines of one moment are in the order of their logs."""

    at: datetime
    migration_id: str
    seq: int

    def __str__(self) -> str:
        return f"{self.at.isoformat()}/{self.migration_id}/{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Raises ValueError."""
        at, migration_id, seq = text.split("/")
        return cls(datetime.fromisoformat(at), migration_id, int(seq))


def place_of(line: Event) -> Place:
    return Place(line.at, line.migration_id, line.seq)


def search(tx: Transaction, wanted: Filters, limit: int, *, before: Place | None = None) -> Sequence[Event]:
    """Up to `limit` lines, the latest first, as rows with an event's attributes. `before`: only older ones than the
    line of that place, to go on from the last one of a page."""
    order = (Event.at, Event.migration_id, Event.seq)
    query = sa.select(*Event.__table__.c).where(*_conditions(tx, wanted))
    if before is not None:
        # The first condition is for the index.
        query = query.where(Event.at <= before.at, sa.tuple_(*order) < before)
    query = query.order_by(*(column.desc() for column in order)).limit(limit)
    return cast("Sequence[Event]", tx.connection.execute(query).all())


@dataclass(frozen=True)
class Found:
    """A page of what fits."""

    lines: Sequence[Event]
    back_to: datetime | None
    """What is older was not looked at; None: there is nothing older."""
    older: Place | None
    """Where the next page goes on, None on the last one."""


def look(tx: Transaction, wanted: Filters, *, before: Place | None = None) -> Found:
    """A page of lines with some words, the latest first, among the latest LOOKED_AT that the other filters leave: so it
    takes the same time however long the log is, and wherever the words are, if anywhere."""
    back_to = horizon(tx, wanted, LOOKED_AT, before=before)
    if back_to is not None:
        wanted = replace(wanted, since=back_to)
    lines = search(tx, wanted, PAGE, before=before)
    if len(lines) == PAGE:
        return Found(lines, lines[-1].at, place_of(lines[-1]))
    return Found(lines, back_to, Place(back_to, "", 0) if back_to else None)


def horizon(tx: Transaction, wanted: Filters, count: int, *, before: Place | None = None) -> datetime | None:
    """The moment behind which there are still lines if only the latest `count` are looked at, whatever is in them; None
    if those are all. Found in an index, without a look at a line."""
    query = sa.select(Event.at).where(*_conditions(tx, replace(wanted, text=None)))
    if before is not None:
        query = query.where(Event.at <= before.at)
    return tx.connection.scalar(query.order_by(Event.at.desc()).offset(count).limit(1))


def _conditions(tx: Transaction, wanted: Filters) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    same = {
        Event.host: wanted.host,
        Event.project_id: wanted.project,
        Event.asked_by: wanted.user,
        Event.outcome: wanted.outcome,
        Event.kind: wanted.kind,
        Event.migration_id: wanted.migration,
    }
    found += [column == value for column, value in same.items() if value is not None]
    # As the indexes over the few have it, or SQLite does not see that they will do.
    if wanted.outcome not in (None, Outcome.OK):
        found.append(sa.text(UNUSUAL))  # type: ignore[arg-type]
    if wanted.kind is not None and wanted.kind not in COMMON_KINDS:
        found.append(sa.text(RARE))  # type: ignore[arg-type]
    if wanted.since is not None:
        found.append(Event.at >= wanted.since)
    if wanted.until is not None:
        found.append(Event.at < wanted.until)
    if wanted.text is not None:
        words = (column.icontains(wanted.text, autoescape=True) for column in (Event.text, Event.error))
        found.append(sa.or_(*words))
    if wanted.instance is not None:
        found.append(_of_instance(tx, wanted.instance))
    return found


def _of_instance(tx: Transaction, instance: str) -> sa.ColumnElement[bool]:
    """Lines about a machine, by the index of names. One that never was moved and is managed no more is known by its
    UUID to the fleet's log only."""
    if not is_uuid_like(instance):
        return Event.instance == instance
    names = tx.connection.scalars(
        sa.select(Instance.name)
        .where(Instance.id == instance)
        .union(sa.select(Migration.instance_name).where(Migration.instance_id == instance))
    ).all()
    where = Event.instance.in_(names) if names else Event.migration_id == FLEET
    return sa.and_(where, Event.instance_id == instance)
