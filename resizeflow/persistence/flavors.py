"""Flavors: the sizes a machine can have."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from resizeflow.errors import Conflict, NotFound
from resizeflow.persistence.models import Flavor


class Flavors:
    def __init__(self, session: Session) -> None:
        self.session = session

    def list(self) -> Sequence[Flavor]:
        """The flavors that can be asked for, smallest first."""
        query = sa.select(Flavor).where(~Flavor.deleted).order_by(Flavor.vcpus, Flavor.memory_mb, Flavor.name)
        return self.session.scalars(query).all()

    def find(self, name: str) -> Flavor | None:
        return self.session.scalars(sa.select(Flavor).where(Flavor.name == name, ~Flavor.deleted)).first()

    def get(self, name: str) -> Flavor:
        """A flavor by name or id. Raises NotFound."""
        flavor = self.find(name) or self.session.get(Flavor, name)
        if flavor is None or flavor.deleted:
            raise NotFound(f"There is no flavor {name!r}; `resizeflow flavor list` shows what there is.")
        return flavor

    def of_size(self, *, vcpus: int, memory_mb: int, root_gb: int, ephemeral_gb: int) -> Flavor | None:
        """A flavor of exactly this size."""
        return self.session.scalars(
            sa.select(Flavor)
            .where(
                Flavor.vcpus == vcpus,
                Flavor.memory_mb == memory_mb,
                Flavor.root_gb == root_gb,
                Flavor.ephemeral_gb == ephemeral_gb,
                ~Flavor.deleted,
            )
            .order_by(Flavor.name)
        ).first()

    def create(self, name: str, **size: Any) -> Flavor:
        """Raises Conflict if the name is taken."""
        if self.find(name):
            raise Conflict(f"There is a flavor {name!r} already; flavors never change, so choose another name.")
        flavor = Flavor(id=str(uuid.uuid4()), name=name, **size)
        self.session.add(flavor)
        return flavor
