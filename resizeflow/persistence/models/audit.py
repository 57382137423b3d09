"""The event log, which is only ever appended to, and what shows that it was."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from resizeflow.persistence.models.columns import AsFound, Base, UtcDateTime, Word
from resizeflow.states import Outcome

FLEET = "fleet"
"""The log of what is of no migration: commands that change hosts, flavors, quotas, machines."""
SEALS = "seals"
"""The chain of the seals, as a log of its own."""
COMMON_KINDS = ("effect", "note", "notification", "state", "task")
"""Kinds of lines of which every migration has many: the latest are found soon without an index."""
RETRIES = frozenset({"retry", "unknown", "waiting"})
"""Kinds of lines that say that something is tried again."""
RARE = "kind NOT IN ({})".format(", ".join(f"'{kind}'" for kind in COMMON_KINDS))
UNUSUAL = "outcome != 'ok'"
UNSEALED = "NOT sealed"


def _index_of_few(name: str, *columns: str, where: str) -> sa.Index:
    """An index over the rows that fulfil a condition; a query has the same condition, word for word."""
    return sa.Index(name, *columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


class Event(Base):
    """A line of a log: one change, told in the transaction that makes it. No foreign key: the log outlives all else."""

    __tablename__ = "events"
    migration_id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    """Whose log it is of: a migration's, or FLEET."""
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """From 1 in each log, without a gap: the order of what happened, whatever the clocks say."""
    at: Mapped[datetime] = mapped_column(AsFound(UtcDateTime()))
    instance_id: Mapped[str | None] = mapped_column(sa.String(36))
    instance: Mapped[str | None] = mapped_column(sa.String(255))
    project_id: Mapped[str | None] = mapped_column(sa.String(255))
    host: Mapped[str | None] = mapped_column(sa.String(255))
    """The name of the host that it is about."""
    request_id: Mapped[str | None] = mapped_column(sa.String(36))
    """What asked for it: a job's id, or a command's own."""
    asked_by: Mapped[str | None] = mapped_column(sa.String(255))
    """The user who asked, and on which machine (`asked_from`)."""
    asked_from: Mapped[str | None] = mapped_column(sa.String(255))
    epoch: Mapped[int]
    worker: Mapped[str | None] = mapped_column(sa.String(255))
    kind: Mapped[str] = mapped_column(sa.String(32))
    task: Mapped[str | None] = mapped_column(sa.String(64))
    transition: Mapped[str | None] = mapped_column(sa.String(128))
    """`RUNNING -> SUCCESS`, `finished -> confirming`."""
    seconds: Mapped[float | None] = mapped_column(sa.Double)
    """How long it took."""
    outcome: Mapped[Outcome | None] = mapped_column(AsFound(Word(Outcome)))
    text: Mapped[str] = mapped_column(sa.Text)
    error: Mapped[str | None] = mapped_column(sa.Text)
    next_action: Mapped[str | None] = mapped_column(sa.Text)
    """What an operator does about the error."""
    data: Mapped[dict[str, Any]] = mapped_column(AsFound(sa.JSON()), default=dict)
    chain: Mapped[str] = mapped_column(sa.String(64))
    """The HMAC of this line on top of the one before (persistence/chain.py)."""
    __table_args__ = (
        sa.Index("ix_events_at", "at"),
        sa.Index("ix_events_instance", "instance", "at"),
        sa.Index("ix_events_host", "host", "at"),
        sa.Index("ix_events_project_id", "project_id", "at"),
        sa.Index("ix_events_asked_by", "asked_by", "at"),
        _index_of_few("ix_events_outcome", "outcome", "at", where=UNUSUAL),
        _index_of_few("ix_events_kind", "kind", "at", where=RARE),
    )


class EventLog(Base):
    """Where a log stands, signed: without it nobody could tell that lines are missing at its end."""

    __tablename__ = "event_logs"
    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    """The migration's, FLEET or SEALS."""
    instance_id: Mapped[str | None] = mapped_column(sa.String(36))
    instance: Mapped[str | None] = mapped_column(sa.String(255))
    project_id: Mapped[str | None] = mapped_column(sa.String(255))
    seq: Mapped[int]
    """The last line's number, and its `chain`."""
    chain: Mapped[str] = mapped_column(sa.String(64))
    plain_seq: Mapped[int] = mapped_column(default=0)
    """Up to this line it is chained without a key: it was written before schema 0006."""
    pruned_seq: Mapped[int] = mapped_column(default=0)
    """Up to this line it was archived and pruned; what is left goes on from `pruned_chain`."""
    pruned_chain: Mapped[str] = mapped_column(sa.String(64))
    last_seal: Mapped[int] = mapped_column(default=0)
    """The number of its last seal, 0 if it has none: so no seal can be removed together with all after it."""
    signature: Mapped[str] = mapped_column(sa.String(64))
    sealed: Mapped[bool] = mapped_column(default=False)
    """Whether there is nothing to seal before it goes on. Not signed: it says what is to be done."""
    __table_args__ = (_index_of_few("ix_event_logs_unsealed", "id", where=UNSEALED),)


class Seal(Base):
    """Where a log stood once (persistence/seals.py): the seals are a chain of their own, whose end can be kept
    elsewhere."""

    __tablename__ = "seals"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """From 1, without a gap."""
    migration_id: Mapped[str] = mapped_column(sa.String(36), index=True)
    """The log's, as a line's."""
    seq: Mapped[int]
    """How many lines the log had; one that went on is sealed again."""
    head: Mapped[str] = mapped_column(sa.String(64))
    """The `chain` of its last line then."""
    sealed_at: Mapped[datetime] = mapped_column(AsFound(UtcDateTime()))
    chain: Mapped[str] = mapped_column(sa.String(64))


class AuditKeyRow(Base):
    """The one row that says under which key the logs are written."""

    __tablename__ = "audit_keys"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    fingerprint: Mapped[str] = mapped_column(sa.String(16))
    created_at: Mapped[datetime]
