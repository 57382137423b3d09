"""The migrations there were, by filters, a page at a time: along the index over their times, the latest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from resizeflow.audit.listed import listed
from resizeflow.audit.outcome import Standing, standing
from resizeflow.persistence.models import Host, Job, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import JobState, MigrationStatus

PAGE = 50


@dataclass(frozen=True)
class Wanted:
    """Filters that all must hold; None: any. Names are exact, `text` is a part of a name, an id or an error."""

    instance: str | None = None
    instance_id: str | None = None
    host: str | None = None
    project: str | None = None
    user: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    outcome: Standing | None = None
    text: str | None = None


@dataclass(frozen=True)
class Past:
    """A migration as it is listed."""

    id: str
    instance: str
    instance_id: str
    project: str
    kind: str
    stands: Standing
    source: str
    destination: str | None
    old_flavor: str
    new_flavor: str
    user: str | None
    created_at: datetime
    closed_at: datetime | None
    error: str | None


@dataclass(frozen=True)
class Page:
    """Some of them; `older` is where the next page begins, None on the last one."""

    rows: Sequence[Past]
    older: str | None


_STATUSES = {
    Standing.UNDECIDED: (MigrationStatus.FINISHED,),
    Standing.CONFIRMED: (MigrationStatus.CONFIRMED,),
    Standing.REVERTED: (MigrationStatus.REVERTED,),
    Standing.ROLLED_BACK: (MigrationStatus.ERROR,),
}


def search(tx: Transaction, wanted: Wanted, older: str | None = None) -> Page:
    """A page of what is wanted, from where the one before ended. Raises ValueError for an `older` that is none."""
    first = aliased(Job)
    user = sa.select(first.asked_by).where(first.migration_id == Migration.id).order_by(first.created_at).limit(1)
    asked_by = user.scalar_subquery().label("user")
    query = (
        listed(Migration.project_id, Migration.closed_at, Migration.error, asked_by)
        .where(*_conditions(wanted))
        .order_by(Migration.created_at.desc(), Migration.id.desc())
        .limit(PAGE + 1)
    )
    if older is not None:
        at, _, last = older.partition("/")
        moment = datetime.fromisoformat(at)
        query = query.where(Migration.created_at <= moment, sa.or_(Migration.created_at < moment, Migration.id < last))
    rows = tx.session.execute(query).all()
    more = rows[PAGE - 1] if len(rows) > PAGE else None
    return Page([_past(row) for row in rows[:PAGE]], f"{more.created_at.isoformat()}/{more.id}" if more else None)


def _conditions(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if wanted.instance:
        found.append(Migration.instance_name == wanted.instance)
    if wanted.instance_id:
        found.append(Migration.instance_id == wanted.instance_id)
    if wanted.host:
        of_that_name = sa.select(Host.id).where(Host.name == wanted.host).scalar_subquery()
        found.append(sa.or_(Migration.source_host_id == of_that_name, Migration.dest_host_id == of_that_name))
    if wanted.project:
        found.append(Migration.project_id == wanted.project)
    if wanted.user:
        job = aliased(Job)
        asked = sa.select(job.id).where(job.migration_id == Migration.id, job.asked_by == wanted.user)
        found.append(asked.exists())
    if wanted.since:
        found.append(Migration.created_at >= wanted.since)
    if wanted.until:
        found.append(Migration.created_at < wanted.until)
    if wanted.outcome:
        found.append(_standing(wanted.outcome))
    if wanted.text:
        fields = (Migration.instance_name, Migration.project_id, Migration.error)
        parts = [field.icontains(wanted.text, autoescape=True) for field in fields]
        found.append(sa.or_(*parts, Migration.id.startswith(wanted.text.lower(), autoescape=True)))
    return found


def _standing(wanted: Standing) -> sa.ColumnElement[bool]:
    """The same as `outcome.standing`, as a condition; `Job` is the unfinished one."""
    if wanted is Standing.ATTENTION:
        return Job.state == JobState.NEEDS_ATTENTION
    if wanted is Standing.IN_FLIGHT:
        return Job.state.in_([JobState.QUEUED, JobState.RUNNING])
    return sa.and_(Migration.status.in_(_STATUSES[wanted]), Job.id.is_(None))


def _past(row: Any) -> Past:
    return Past(
        id=row.id,
        instance=row.instance_name,
        instance_id=row.instance_id,
        project=row.project_id,
        kind=row.kind,
        stands=standing(row.status, row.state),
        source=row.source,
        destination=row.destination,
        old_flavor=row.old_flavor,
        new_flavor=row.new_flavor,
        user=row.user,
        created_at=row.created_at,
        closed_at=row.closed_at,
        error=row.error,
    )
