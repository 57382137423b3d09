"""Where machines are, or may end: on either side of a migration until it is confirmed or reverted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from resizeflow.errors import Conflict
from resizeflow.persistence.models import Instance, Migration
from resizeflow.persistence.moves import OPEN


@dataclass(frozen=True)
class Place:
    """A machine, the zone that it is pinned to, and the ids of the hosts where it is or may end."""

    name: str
    zone: str | None
    hosts: frozenset[str]


def places(session: Session, *which: sa.ColumnElement[bool]) -> Sequence[Place]:
    """Of the machines that conditions on `Instance` tell, in the order of their names."""
    query = (
        sa.select(
            Instance.name,
            Instance.availability_zone,
            Instance.host_id,
            Migration.source_host_id,
            Migration.dest_host_id,
        )
        .outerjoin(Migration, sa.and_(Migration.instance_id == Instance.id, OPEN))
        .where(*which)
        .order_by(Instance.name)
    )
    return [Place(name, zone, frozenset(filter(None, hosts))) for name, zone, *hosts in session.execute(query)]


def require_settled(session: Session, instance: Instance, what: str) -> None:
    """That a machine, locked by the caller, is between two moves: only then may what decides on its place change.
    Raises Conflict.

    It is asked before anything is waited for that others lock. So a machine's place is decided by what held when it
    was submitted, and nobody waits for another in a circle.
    """
    open_one = session.scalar(sa.select(Migration.id).where(Migration.instance_id == instance.id, OPEN))
    if open_one:
        raise Conflict(
            f"Instance {instance.name} has an open migration {open_one[:8]}: its {what} can change when that is "
            "confirmed or reverted."
        )
