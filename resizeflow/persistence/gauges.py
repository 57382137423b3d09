"""How the fleet stands, in numbers: what a worker's metrics show of the database."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from resizeflow.persistence.jobs import database_now
from resizeflow.persistence.models import Debt, Job, WorkerRow
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import JobState

UNFINISHED = (JobState.QUEUED, JobState.RUNNING, JobState.NEEDS_ATTENTION)


@dataclass(frozen=True)
class Gauges:
    """`jobs` are those that have not ended, by their states; `debts` are open ones; `workers` are up."""

    jobs: dict[JobState, int]
    debts: int
    workers: int


def read(tx: Transaction) -> Gauges:
    """In one query, whose cost is that of the unfinished jobs, however many have ended."""
    jobs = [_count(Job, Job.state != JobState.DONE, Job.state == state).label(state.name) for state in UNFINISHED]
    debts = _count(Debt, Debt.settled_at.is_(None)).label("debts")
    workers = _count(WorkerRow, WorkerRow.seen_until > database_now()).label("workers")
    row = tx.connection.execute(sa.select(*jobs, debts, workers)).one()
    return Gauges({state: getattr(row, state.name) for state in UNFINISHED}, row.debts, row.workers)


def _count(table: type[Job | Debt | WorkerRow], *where: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).select_from(table).where(*where).scalar_subquery()
