"""The workers that are up: each says so again and again, for a while."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

from resizeflow.persistence.jobs import database_now
from resizeflow.persistence.models import WorkerRow

if TYPE_CHECKING:
    from resizeflow.persistence.transaction import Transaction

FORGOTTEN = 86400.0
"""Seconds after which a worker that died without a word is removed from the list of workers."""


class Workers:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.session = tx.session

    def up(self, flow: str | None = None) -> Sequence[WorkerRow]:
        """The workers that are up; with `flow`, those that know it."""
        rows = self.session.scalars(
            sa.select(WorkerRow).where(WorkerRow.seen_until > database_now()).order_by(WorkerRow.name)
        ).all()
        return [row for row in rows if flow is None or flow in row.flows]

    def seen(self, name: str, seconds: float, flows: Collection[str] = ()) -> None:
        """A worker says that it is there, for the next `seconds`, and which flows it knows."""
        if self.session.get(WorkerRow, name) is None:
            self.forget(FORGOTTEN)
            self.session.add(WorkerRow(name=name, started_at=self._tx.now(), seen_until=0.0, flows=sorted(flows)))
            self.session.flush()
            self._tx.events.fleet("worker", f"worker {name} is up", transition="none -> up", worker=name)
        self.session.execute(
            sa.update(WorkerRow)
            .where(WorkerRow.name == name)
            .values(seen_until=database_now() + seconds)
            .execution_options(synchronize_session=False)
        )

    def gone(self, name: str) -> None:
        """A worker ends. Nothing if it was not up for others."""
        self._remove(WorkerRow.name == name, "has ended")

    def forget(self, silent_for: float | None = None) -> None:
        """Takes those from the list that have been silent for so many seconds; None: all."""
        silent = sa.true() if silent_for is None else WorkerRow.seen_until <= database_now() - silent_for
        self._remove(silent, "was silent, and is forgotten")

    def _remove(self, which: sa.ColumnElement[bool], why: str) -> None:
        for name in self.session.scalars(sa.delete(WorkerRow).where(which).returning(WorkerRow.name)):
            self._tx.events.fleet("worker", f"worker {name} {why}", transition="up -> none", worker=name)
