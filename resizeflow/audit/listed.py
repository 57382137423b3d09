"""Migrations as lists show them: with the names of hosts and flavors, and the job of each that has not ended."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from resizeflow.persistence.models import Flavor, Host, Job, Migration
from resizeflow.states import JobState


def listed(*more: Any) -> sa.Select[*tuple[Any, ...]]:
    """The query, with `more` columns of `Migration` and of `Job`, which is the unfinished one, if any."""
    source, destination = aliased(Host), aliased(Host)
    old, new = aliased(Flavor), aliased(Flavor)
    return (
        sa.select(
            Migration.id,
            Migration.instance_name,
            Migration.instance_id,
            Migration.kind,
            Migration.status,
            Migration.created_at,
            source.name.label("source"),
            destination.name.label("destination"),
            old.name.label("old_flavor"),
            new.name.label("new_flavor"),
            Job.state,
            *more,
        )
        .join(source, source.id == Migration.source_host_id)
        .outerjoin(destination, destination.id == Migration.dest_host_id)
        .join(old, old.id == Migration.old_flavor_id)
        .join(new, new.id == Migration.new_flavor_id)
        .outerjoin(Job, sa.and_(Job.migration_id == Migration.id, Job.state != JobState.DONE))
    )
