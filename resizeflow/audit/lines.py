"""The lines of many logs, in one stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from resizeflow.persistence.models import Event
from resizeflow.persistence.transaction import Transaction

ROWS = 1000
"""Rows that are in memory at once."""


class Lines:
    """Of some logs, each of which is asked for in its turn, in the order that the database gives their ids."""

    def __init__(self, tx: Transaction, ids: Sequence[str]) -> None:
        columns = Event.__table__.c
        order = sa.select(*columns).where(columns.migration_id.in_(ids)).order_by(columns.migration_id, columns.seq)
        rows = tx.connection.execution_options(yield_per=ROWS).execute(order)
        self._groups = groupby(rows, key=lambda row: row.migration_id)
        self._ahead: tuple[str, Iterator[Any]] | None = next(self._groups, None)

    def of(self, log_id: str) -> Iterator[Any]:
        """All of them must be taken before the next log's."""
        if self._ahead is not None and self._ahead[0] == log_id:
            yield from self._ahead[1]
            self._ahead = next(self._groups, None)
