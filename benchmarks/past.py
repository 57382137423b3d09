"""How long listing, history and the workers' look at the board take with many past migrations in the database."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import bench
from benchmarks.steps import MIGRATION, add_past_of_one_host
from resizeflow import flows
from resizeflow.clock import Clock
from resizeflow.commands.migration import rows_of
from resizeflow.persistence import schema
from resizeflow.persistence.chain import COVERED, GENESIS, link
from resizeflow.persistence.database import Database
from resizeflow.persistence.events import new_log
from resizeflow.persistence.models import Event, EventLog, Job, Migration
from resizeflow.states import Direction, JobState

LINES, FEW = 57, 5
"""Of a resize's log; of the logs that are not asked for."""
AT_ONCE = 5000
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
JOB = {"flow": "resize_v1", "state": JobState.DONE, "direction": Direction.FORWARD}
LINE = {"epoch": 1, "worker": "bench", "kind": "task", "task": "MoveInstance", "text": "MoveInstance done", "data": {}}


class Past:
    """A database with so many confirmed migrations, of one machine each."""

    def __init__(self, url: str, migrations: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="resizeflow-past-")
        self.database = Database(url, key=Path(self._folder.name) / "audit.key")
        schema.upgrade(self.database)
        with self.database.write() as tx:
            add_past_of_one_host(tx)
            self._key = tx.audit_key
        self._asked = ""
        for first in range(0, migrations, AT_ONCE):
            self._add(first, min(AT_ONCE, migrations - first))
        if not self.database.sqlite:
            with self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(sa.text("VACUUM ANALYZE"))

    def _add(self, first: int, count: int) -> None:
        migrations, jobs, events = [], [], []
        for number in range(first, first + count):
            identity, at = str(uuid.uuid4()), BEGINNING + timedelta(minutes=number)
            migrations.append({**MIGRATION, "id": identity, "instance_id": identity, "created_at": at})
            jobs.append({**JOB, "id": identity, "migration_id": identity, "instance_id": identity, "created_at": at})
            events += self._log(identity, at, real=number == first)
        self._asked = str(migrations[0]["id"])
        with self.database.write() as tx:
            ends = {row["migration_id"]: row for row in events}
            logs = [
                new_log(tx.audit_key, row["migration_id"], seq=row["seq"], chain=row["chain"]) for row in ends.values()
            ]
            for model, rows in ((Migration, migrations), (Job, jobs), (Event, events), (EventLog, logs)):
                tx.session.execute(sa.insert(model.__table__), rows)  # type: ignore[arg-type]

    def _log(self, migration_id: str, at: datetime, *, real: bool) -> list[dict[str, Any]]:
        """A real one is as long as a resize's and verifies."""
        rows, last = [], GENESIS
        for seq in range(1, (LINES if real else FEW) + 1):
            row = {**dict.fromkeys(COVERED), **LINE, "migration_id": migration_id, "seq": seq, "at": at}
            if real:
                last = link(self._key, last, row)
            rows.append({**row, "chain": last})
        return rows

    def ask(self) -> dict[str, float]:
        """Seconds that each question takes."""
        questions: dict[str, Callable[[], object]] = {
            "migration list": lambda: self._list(100),
            "migration list --open": lambda: self._list(0, open_only=True),
            "migration list --instance": lambda: self._list(1, instance=self._asked),
            "migration history, by the beginning of an id": self._history,
            "a worker's look at the board": self._board,
        }
        took = {}
        for question, ask in questions.items():
            began = Clock().boottime()
            ask()
            took[question] = Clock().boottime() - began
        return took

    def _list(self, expected: int, *, instance: str | None = None, open_only: bool = False) -> None:
        with self.database.read() as tx:
            rows = rows_of(tx, tx.migrations.list(instance, open_only=open_only))
        if len(rows) != expected:
            raise bench.BenchError(f"the list has {len(rows)} rows")

    def _history(self) -> None:
        with self.database.read() as tx:
            migration_id = tx.migrations.get(self._asked[:8]).id
            log, flaw = tx.events.of(migration_id), tx.events.flaw(migration_id)
        if len(log) != LINES or flaw is not None:
            raise bench.BenchError("the history is not what was written")

    def _board(self) -> None:
        with self.database.read() as tx:
            if tx.jobs.takeable(flows.TASKS.keys()):
                raise bench.BenchError("there is a job to take where all are done")
