"""Whose a debt is: a closed migration of the machine that it is about."""

from __future__ import annotations

import sqlalchemy as sa

from resizeflow.persistence.models import Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import TERMINAL


def last_closed(tx: Transaction, instance_ids: set[str]) -> dict[str, str]:
    """The newest closed migration of each machine that has one."""
    if not instance_ids:
        return {}
    query = sa.select(Migration.instance_id, Migration.id).where(
        Migration.instance_id.in_(sorted(instance_ids)), Migration.status.in_(sorted(TERMINAL))
    )
    return {row[0]: row[1] for row in tx.session.execute(query.order_by(Migration.created_at))}
