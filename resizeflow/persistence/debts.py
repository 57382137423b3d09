"""Debts: what an undo or a clean-up had to leave on a host that could not be reached."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from resizeflow.persistence.models import Debt, Host, Migration


class Debts:
    def __init__(self, session: Session) -> None:
        self.session = session

    def open(self, host_id: str | None = None) -> Sequence[Debt]:
        query = sa.select(Debt).where(Debt.settled_at.is_(None)).order_by(Debt.id)
        if host_id:
            query = query.where(Debt.host_id == host_id)
        return self.session.scalars(query).all()

    def record(self, migration: Migration, host: Host, *, kind: str, name: str, reason: str, now: datetime) -> bool:
        """Writes a debt down once; False if it is written already."""
        key = {"migration_id": migration.id, "host_id": host.id, "kind": kind, "object": name}
        if self.session.scalars(sa.select(Debt).filter_by(**key)).first():
            return False
        self.session.add(Debt(**key, instance_id=migration.instance_id, reason=reason, created_at=now))
        return True
