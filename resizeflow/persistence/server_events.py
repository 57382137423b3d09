"""What Neutron and Cinder told of machines: hints to look at once, kept for a while."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from resizeflow.persistence.models import ServerEvent

KEPT = timedelta(days=1)
"""How long an event is kept: nobody waits for a plug so long."""


class ServerEvents:
    def __init__(self, session: Session) -> None:
        self.session = session

    def add(self, events: Sequence[ServerEvent], now: datetime) -> None:
        """Writes events down, and forgets old ones."""
        self.session.execute(sa.delete(ServerEvent).where(ServerEvent.received_at < now - KEPT))
        self.session.add_all(events)

    def last(self, tags: Collection[str]) -> int:
        """The number of the latest event about some ports, 0 if there is none."""
        newest = sa.select(sa.func.max(ServerEvent.id)).where(ServerEvent.tag.in_(tags))
        return self.session.scalar(newest) or 0
