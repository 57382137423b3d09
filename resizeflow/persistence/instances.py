"""Managed machines."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from resizeflow.errors import InstanceNotFound
from resizeflow.persistence.models import Instance

_NAME = sa.bindparam("name", type_=sa.String)
_BY_NAME = sa.select(Instance).where(sa.or_(Instance.name == _NAME, Instance.id == _NAME))


class Instances:
    def __init__(self, session: Session) -> None:
        self.session = session
        self._found: dict[str, Instance] = {}
        """By what was asked for: a transaction of a flow asks for its machine several times."""

    def list(self, project_id: str | None = None) -> Sequence[Instance]:
        query = sa.select(Instance).order_by(Instance.name)
        if project_id:
            query = query.where(Instance.project_id == project_id)
        return self.session.scalars(query).all()

    def find(self, name: str, *, lock: bool = False) -> Instance | None:
        """By name or UUID."""
        if not lock and name in self._found:
            return self._found[name]
        query = _BY_NAME.with_for_update(of=Instance, key_share=True) if lock else _BY_NAME
        found = self.session.scalars(query, {"name": name}).first()
        if found is not None:
            self._found[name] = found
        return found

    def get(self, name: str, *, lock: bool = False) -> Instance:
        """By name or UUID. With `lock` nobody else decides on it until the commit. Raises InstanceNotFound."""
        instance = self.find(name, lock=lock)
        if instance is None:
            raise InstanceNotFound(
                f"There is no managed instance {name!r}; `resizeflow instance list` shows what there is, "
                "`resizeflow instance adopt HOST DOMAIN` brings a libvirt domain under management."
            )
        return instance

    def whole(self, name: str) -> Instance:
        """As `get`, with its disks and ports, to be used after the transaction's end."""
        instance = self.get(name)
        for parts in (instance.disks, instance.ports):
            list(parts)
        return instance
