"""What a task has to say to the database when it ends: rows and log lines, committed with its SUCCESS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from resizeflow.persistence.transaction import Transaction

Rows = Callable[[Transaction], None]


@dataclass(frozen=True)
class Line:
    """A line for the event log, not yet written."""

    kind: str
    text: str
    task: str | None
    data: dict[str, Any]


@dataclass
class UnitOfWork:
    """Collects during a task; the flow store (or an intent's commit) writes it."""

    migration_id: str
    rows: list[Rows] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def record(self, rows: Rows) -> None:
        """`rows(tx)` runs in the transaction that saves the task's success; after a failure it never runs."""
        self.rows.append(rows)

    def tell(self, kind: str, text: str, *, task: str | None = None, **data: Any) -> None:
        """A log line: written with the next commit of this flow, whatever the task's end."""
        self.lines.append(Line(kind, text, task, data))

    def write_lines(self, tx: Transaction) -> None:
        """Writes the lines into a transaction; `forget_lines` after it is committed."""
        for line in self.lines:
            tx.events.add(self.migration_id, line.kind, line.text, task=line.task, **line.data)

    def write_rows(self, tx: Transaction) -> None:
        for rows in self.rows:
            rows(tx)

    def forget(self, *, rows: bool) -> None:
        """What was committed (or, for rows, failed) is not written again."""
        self.lines.clear()
        if rows:
            self.rows.clear()
