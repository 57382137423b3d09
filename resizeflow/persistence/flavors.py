"""Flavors: the sizes a machine can have."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db.exception import DBDuplicateEntry
from sqlalchemy.orm import Session, selectinload

from resizeflow.errors import Conflict, NotFound
from resizeflow.persistence.models import Flavor, FlavorAccess

_ASKED_FOR = sa.select(Flavor).where(~Flavor.deleted).options(selectinload(Flavor.access))
"""With the projects that may use a private one; who only reads a machine's own flavor does without."""


def projects_of(flavor: Flavor) -> list[str]:
    """The projects that a private flavor is granted to."""
    return sorted(row.project_id for row in flavor.access)


class Flavors:
    def __init__(self, session: Session) -> None:
        self.session = session

    def list(self) -> Sequence[Flavor]:
        """The flavors that can be asked for, smallest first."""
        query = _ASKED_FOR.order_by(Flavor.vcpus, Flavor.memory_mb, Flavor.name)
        return self.session.scalars(query).all()

    def find(self, name: str) -> Flavor | None:
        """By name or id."""
        named = sa.or_(Flavor.name == name, Flavor.id == name)
        return self.session.scalars(_ASKED_FOR.where(named)).first()

    def get(self, name: str) -> Flavor:
        """A flavor by name or id. Raises NotFound."""
        flavor = self.find(name)
        if flavor is None:
            raise NotFound(f"There is no flavor {name!r}; `resizeflow flavor list` shows what there is.")
        return flavor

    def of_size(
        self, *, vcpus: int, memory_mb: int, root_gb: int, ephemeral_gb: int, swap_mb: int = 0
    ) -> Flavor | None:
        """A flavor of exactly this size that everybody may use, and that asks nothing else of a host."""
        rows = self.session.scalars(
            sa.select(Flavor)
            .where(
                Flavor.vcpus == vcpus,
                Flavor.memory_mb == memory_mb,
                Flavor.root_gb == root_gb,
                Flavor.ephemeral_gb == ephemeral_gb,
                Flavor.swap_mb == swap_mb,
                Flavor.is_public,
                ~Flavor.disabled,
                ~Flavor.deleted,
            )
            .order_by(Flavor.name)
        )
        return next((flavor for flavor in rows if not flavor.extra_specs), None)

    def create(self, name: str, **values: Any) -> Flavor:
        """Raises Conflict if the name is taken."""
        taken = Conflict(f"There is a flavor {name!r} already; flavors never change, so choose another name.")
        if self.find(name):
            raise taken
        flavor = Flavor(id=str(uuid.uuid4()), name=name, access=[], **values)
        self.session.add(flavor)
        try:
            self.session.flush()
        except DBDuplicateEntry:
            raise taken from None
        return flavor

    def grant(self, flavor: Flavor, project_id: str) -> None:
        """Lets a project use a private flavor; nothing if it may already."""
        if project_id not in projects_of(flavor):
            # Somebody else may be granting it now.
            with contextlib.suppress(DBDuplicateEntry), self.session.begin_nested():
                self.session.add(FlavorAccess(flavor_id=flavor.id, project_id=project_id))
            self.session.refresh(flavor, ["access"])

    def withdraw(self, flavor: Flavor, project_id: str) -> None:
        """The inverse of `grant`; machines that have the flavor keep it."""
        flavor.access = [row for row in flavor.access if row.project_id != project_id]
