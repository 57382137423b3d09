"""Delivery of the outbox: who sends now (one at a time, under a lease by the database's clock), what is due, what is
old."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from resizeflow.clock import Clock
from resizeflow.persistence.jobs import database_now
from resizeflow.persistence.models import Notification, Postman

ONLY = 1
"""The id of the one row."""


class Delivery:
    def __init__(self, session: Session, clock: Clock) -> None:
        self.session = session
        self.clock = clock

    def take(self, owner: str, seconds: float) -> bool:
        """Takes the post, or keeps it, for so many seconds; False while somebody else has it."""
        if self.session.get(Postman, ONLY) is None:
            self.session.add(Postman(id=ONLY))
            self.session.flush()
        taken = self.session.execute(
            sa.update(Postman)
            .where(Postman.id == ONLY, sa.or_(Postman.owner == owner, Postman.lease_until < database_now()))
            .values(owner=owner, lease_until=database_now() + seconds)
            .execution_options(synchronize_session=False)
        )
        return bool(cast("sa.CursorResult[object]", taken).rowcount)

    def leave(self, owner: str) -> None:
        """Gives the post up at once."""
        self.session.execute(
            sa.update(Postman)
            .where(Postman.id == ONLY, Postman.owner == owner)
            .values(owner=None, lease_until=0.0)
            .execution_options(synchronize_session=False)
        )

    def due(self, limit: int) -> Sequence[Notification]:
        """What waits to be sent, in the order of ids, which for each instance is that of its numbers."""
        query = sa.select(Notification).where(Notification.wanted, Notification.sent_at.is_(None))
        return self.session.scalars(query.order_by(Notification.id).limit(limit)).all()

    def sent(self, ids: Collection[int], error: str | None) -> bool:
        """Marks what the broker has confirmed; `error` is what stopped the round, None if nothing did. Whether delivery
        began to fail, or goes on again, with it."""
        now = self.clock.now()
        if ids:
            self.session.execute(sa.update(Notification).where(Notification.id.in_(ids)).values(sent_at=now))
        row = self.session.get_one(Postman, ONLY, with_for_update=True)
        turned = (error is None) != (row.failing_since is None)
        row.error, row.failing_since = error, None if error is None else row.failing_since or now
        return turned

    def state(self) -> Postman | None:
        """Who sends, and what keeps it from doing so; None if nobody ever did."""
        return self.session.get(Postman, ONLY)

    def unsent(self) -> int:
        """How many wait to be sent."""
        query = sa.select(sa.func.count()).where(Notification.wanted, Notification.sent_at.is_(None))
        return int(self.session.scalar(query) or 0)

    def has_old(self, before: datetime) -> bool:
        """Whether there is anything to forget."""
        return self.session.scalar(sa.select(Notification.id).where(_old(before)).limit(1)) is not None

    def forget(self, before: datetime) -> int:
        """Forgets what is older and need not be sent any more; how many."""
        gone = sa.delete(Notification).where(_old(before)).execution_options(synchronize_session=False)
        return cast("sa.CursorResult[object]", self.session.execute(gone)).rowcount


def _old(before: datetime) -> sa.ColumnElement[bool]:
    """The last one of each instance is never old: its number is the one to count on from."""
    other = aliased(Notification)
    later = sa.exists().where(other.instance_id == Notification.instance_id, other.seq > Notification.seq)
    finished = sa.or_(~Notification.wanted, Notification.sent_at.is_not(None))
    return sa.and_(Notification.created_at < before, finished, later)
