"""Changes of states, seen where they are made: whoever changes one, the log tells it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from resizeflow.persistence.models import Instance, Migration

WATCHED: Mapping[type[Any], tuple[str, ...]] = {Migration: ("status",), Instance: ("vm_state", "task_state")}
"""The columns that are states."""
NONE = "none"
DELETED = "deleted"
"""What a machine is that is managed no more (Nova's vm_state)."""


@dataclass
class Change:
    """What a transaction changes of one machine's states, and of its migration's."""

    instance: Instance | None = None
    """None: only the migration's status changes."""
    migration_id: str | None = None
    """None: no migration's does."""
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By column: before and after."""

    @property
    def transition(self) -> str:
        """`finished -> confirming`; of several `status finished -> reverting, task_state none -> resize_reverting`."""
        arrows = [f"{column} {before} -> {after}" for column, (before, after) in self._changed.items()]
        return ", ".join(arrows) if len(arrows) > 1 else " -> ".join(*self._changed.values())

    @property
    def sentence(self) -> str:
        """`status confirming, task state none`."""
        return ", ".join(f"{column.replace('_', ' ')} {after}" for column, (_, after) in self._changed.items())

    @property
    def is_one(self) -> bool:
        """Whether anything is different in the end."""
        return bool(self._changed)

    @property
    def _changed(self) -> dict[str, tuple[str, str]]:
        order = [column for columns in WATCHED.values() for column in columns]
        return {name: self.states[name] for name in order if len(set(self.states.get(name, ()))) > 1}


class StateChanges:
    """Those of one transaction, until the log has them."""

    def __init__(self) -> None:
        self._changes: dict[str, Change] = {}
        """By the machine's id."""

    def see(self, session: Session) -> None:
        """What a session is about to write."""
        for row in (*session.new, *session.dirty):
            for column in WATCHED.get(type(row), ()):
                history = sa.inspect(row).attrs[column].history
                if history.added:
                    before = history.deleted[0] if history.deleted else None
                    self._put(row, column, before, history.added[0])
        for row in session.deleted:
            if isinstance(row, Instance):
                self._put(row, "vm_state", row.vm_state, DELETED)

    def _put(self, row: Instance | Migration, column: str, before: str | None, after: str | None) -> None:
        change = self._changes.setdefault(row.id if isinstance(row, Instance) else row.instance_id, Change())
        if isinstance(row, Instance):
            change.instance = row
        else:
            change.migration_id = row.id
        first, _ = change.states.get(column, (str(before or NONE), ""))
        change.states[column] = first, str(after or NONE)

    def take(self) -> Iterator[Change]:
        """What was not told yet."""
        changes, self._changes = self._changes, {}
        return (change for change in changes.values() if change.is_one)
