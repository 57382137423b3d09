"""What a task is given: the database under its job's lease, the gate to the hosts, clock and settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from resizeflow.clock import Clock
from resizeflow.config import Settings
from resizeflow.gate import Gate
from resizeflow.lease import Lease
from resizeflow.persistence.database import Database
from resizeflow.persistence.transaction import Transaction
from resizeflow.persistence.unit_of_work import UnitOfWork


@dataclass(frozen=True)
class World:
    """The world of one run of one job."""

    database: Database
    gate: Gate
    lease: Lease
    work: UnitOfWork
    clock: Clock
    settings: Settings

    @contextlib.contextmanager
    def intent(self, name: str) -> Iterator[Transaction]:
        """A fenced transaction that commits at once: what a successor must know before the effect happens."""
        with self.database.fenced(self.lease, self.gate.point(f"commit.{name}")) as tx:
            tx.events.task = self.gate.task
            self.work.write_lines(tx)
            yield tx
        self.work.forget(rows=False)
