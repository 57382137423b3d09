"""Jobs and the workers that do them; what they tell others; and TaskFlow's own records."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from resizeflow.persistence.models.columns import Base, Word, identity
from resizeflow.states import Direction, JobState, OnCrash


class Job(Base):
    """A flow to be run to its end, with its lease. `epoch` grows with each take-over and fences all writes."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    migration_id: Mapped[str] = mapped_column(sa.ForeignKey("migrations.id"), index=True)
    instance_id: Mapped[str] = mapped_column(sa.String(36), index=True)
    flow: Mapped[str] = mapped_column(sa.String(32))
    """The factory's versioned name, `resize_v1`."""
    state: Mapped[JobState] = mapped_column(Word(JobState), index=True)
    direction: Mapped[Direction] = mapped_column(Word(Direction))
    pivot_at: Mapped[datetime | None]
    """After this the flow only goes forward."""
    on_crash: Mapped[OnCrash] = mapped_column(Word(OnCrash), default=OnCrash.RESUME)
    owner: Mapped[str | None] = mapped_column(sa.String(255))
    lease_until: Mapped[float] = mapped_column(sa.Double, default=0.0)
    """By the database's clock, seconds since 1970."""
    epoch: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[float] = mapped_column(sa.Double, default=0.0)
    attempts: Mapped[int] = mapped_column(default=0)
    """Times it was taken up since it last made progress."""
    reason: Mapped[str | None] = mapped_column(sa.Text)
    asked_by: Mapped[str | None] = mapped_column(sa.String(255))
    """The user who asked for it, and on which machine."""
    asked_from: Mapped[str | None] = mapped_column(sa.String(255))
    created_at: Mapped[datetime]
    __table_args__ = (
        sa.Index(
            "uq_jobs_unfinished",
            "instance_id",
            unique=True,
            sqlite_where=sa.text("state != 'done'"),
            postgresql_where=sa.text("state != 'done'"),
        ),
    )


class WorkerRow(Base):
    """A worker process that said it is there."""

    __tablename__ = "workers"
    name: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    started_at: Mapped[datetime]
    seen_until: Mapped[float] = mapped_column(sa.Double)
    """By the database's clock: later it counts as gone."""
    flows: Mapped[list[str]] = mapped_column(sa.JSON, default=list)
    """The names of the flows that it knows."""


class Notification(Base):
    """The outbox: an event for others, written with the change that it tells of, sent after the commit."""

    __tablename__ = "notifications"
    id: Mapped[int] = identity()
    message_id: Mapped[str] = mapped_column(sa.String(36), unique=True)
    instance_id: Mapped[str] = mapped_column(sa.String(36))
    seq: Mapped[int]
    """Its number among those of its instance, from 1."""
    migration_id: Mapped[str | None] = mapped_column(sa.String(36), index=True)
    event_type: Mapped[str] = mapped_column(sa.String(64))
    priority: Mapped[str] = mapped_column(sa.String(16))
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    wanted: Mapped[bool]
    """Whether it is to be sent; False: there was nowhere to send it to when it was written, it is recorded only."""
    sent_at: Mapped[datetime | None]
    __table_args__ = (
        sa.UniqueConstraint("instance_id", "seq"),
        sa.Index(
            "ix_notifications_unsent",
            "id",
            sqlite_where=sa.text("wanted AND sent_at IS NULL"),
            postgresql_where=sa.text("wanted AND sent_at IS NULL"),
        ),
        sa.Index("ix_notifications_created_at", "created_at"),
    )


class Postman(Base):
    """The one row that says which worker sends notifications now, and what keeps it from doing so."""

    __tablename__ = "postman"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str | None] = mapped_column(sa.String(255))
    lease_until: Mapped[float] = mapped_column(sa.Double, default=0.0)
    """By the database's clock, seconds since 1970."""
    error: Mapped[str | None] = mapped_column(sa.Text)
    failing_since: Mapped[datetime | None]


class ServerEvent(Base):
    """What Neutron or Cinder told of a machine (Nova's os-server-external-events): a hint to look, never the truth."""

    __tablename__ = "server_events"
    id: Mapped[int] = identity()
    name: Mapped[str] = mapped_column(sa.String(64))
    instance_id: Mapped[str] = mapped_column(sa.String(36))
    tag: Mapped[str] = mapped_column(sa.String(64), index=True)
    """The port's id, or the volume's."""
    status: Mapped[str] = mapped_column(sa.String(16))
    """`completed` or `failed`."""
    received_at: Mapped[datetime]


class LogBook(Base):
    """TaskFlow's logbook: one per migration."""

    __tablename__ = "logbooks"
    uuid: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(255))
    meta: Mapped[dict[str, Any]] = mapped_column(default=dict)


class FlowDetail(Base):
    """TaskFlow's flow detail: one per job, under the job's id."""

    __tablename__ = "flow_details"
    uuid: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    parent_uuid: Mapped[str] = mapped_column(sa.ForeignKey("logbooks.uuid"), index=True)
    name: Mapped[str] = mapped_column(sa.String(255))
    state: Mapped[str | None] = mapped_column(sa.String(32))
    meta: Mapped[dict[str, Any]] = mapped_column(default=dict)


class AtomDetail(Base):
    """TaskFlow's atom detail: one per task of a flow."""

    __tablename__ = "atom_details"
    uuid: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    parent_uuid: Mapped[str] = mapped_column(sa.ForeignKey("flow_details.uuid"), index=True)
    name: Mapped[str] = mapped_column(sa.String(255))
    atom_type: Mapped[str] = mapped_column(sa.String(32))
    version: Mapped[str | None] = mapped_column(sa.String(32))
    state: Mapped[str | None] = mapped_column(sa.String(32))
    content: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The rest of the detail, as TaskFlow's to_dict gives it."""
