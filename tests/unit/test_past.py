"""Searching the migrations there were: every filter, page by page, and at once beside a long past."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.audit.history import PAGE, Wanted, search
from resizeflow.audit.history import Past as Migrated
from resizeflow.audit.outcome import Standing
from resizeflow.chaos.cloud import Cloud
from resizeflow.persistence.models import Base, Migration
from resizeflow.states import Direction, JobState, MigrationStatus

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MANY = 2 * PAGE + 7


class Past(Cloud):
    """Closed migrations of one machine, each a minute after the one before, and three at once."""

    def fill(self, count: int) -> list[str]:
        job = self.service.resize("web", "big", host="h2")
        with self.database.write() as tx:
            first = tx.session.execute(sa.select(Migration.__table__)).mappings().one()
            rows: list[dict[str, Any]] = [
                {
                    **first,
                    "id": str(uuid.UUID(int=number + 1)),
                    "status": MigrationStatus.CONFIRMED,
                    "created_at": NOON + timedelta(minutes=max(number, 2)),
                    "error": f"{number} % of it",
                }
                for number in range(count)
            ]
            tables = Base.metadata.tables
            tx.session.execute(sa.insert(tables["migrations"]), rows)
            tx.session.execute(
                sa.insert(tables["jobs"]),
                [
                    {
                        "id": row["id"], "migration_id": row["id"], "instance_id": row["instance_id"],
                        "flow": "resize_v1", "state": JobState.DONE, "direction": Direction.FORWARD,
                        "created_at": row["created_at"], "asked_by": "anna" if number % 2 else "bob",
                    }
                    for number, row in enumerate(rows)
                ],
            )  # fmt: skip
        return [job.migration_id, *(row["id"] for row in reversed(rows))]

    def found(self, older: str | None = None, **wanted: Any) -> list[str]:
        with self.database.read() as tx:
            return [row.id for row in search(tx, Wanted(**wanted), older).rows]


@pytest.fixture
def past(memory_path: Path, connection: str | None) -> Past:
    past = Past(memory_path, connection=connection)
    past.build()
    return past


def test_pages_have_all_of_them_once_the_latest_first(past: Past) -> None:
    known, seen, older = past.fill(MANY), list[Migrated](), None
    with past.database.read() as tx:
        for _ in range(4):
            page = search(tx, Wanted(), older)
            seen += page.rows
            if (older := page.older) is None:
                break
    assert sorted(row.id for row in seen) == sorted(known)
    times = [row.created_at for row in seen]
    assert times == sorted(times, reverse=True)
    assert len(page.rows) == MANY + 1 - 2 * PAGE


def test_each_filter(past: Past) -> None:
    now, *closed = past.fill(10)
    assert past.found() == [now, *closed]
    assert past.found(instance="web") == [now, *closed]
    assert past.found(instance="we") == []
    assert past.found(instance_id=past.uuid) == [now, *closed]
    assert past.found(host="h1") == [now, *closed]
    assert past.found(host="h3") == []
    assert past.found(project="default") == [now, *closed]
    assert past.found(project="other") == []
    assert past.found(user="anna") == closed[::2]
    assert past.found(outcome=Standing.CONFIRMED) == closed
    assert past.found(outcome=Standing.IN_FLIGHT) == [now]
    assert past.found(outcome=Standing.ATTENTION) == []
    assert past.found(until=NOON + timedelta(minutes=4), since=NOON + timedelta(minutes=3)) == [str(uuid.UUID(int=4))]
    assert past.found(text="7 % OF") == [str(uuid.UUID(int=8))]
    assert past.found(text="7 _ of") == []
    assert past.found(text=now[:8]) == [now]
    assert past.found(text="' OR 1=1 --") == []


def test_a_wrong_page_is_refused(past: Past) -> None:
    with pytest.raises(ValueError, match="yesterday"):
        past.found("yesterday")


def test_the_latest_are_found_along_the_index(memory_path: Path) -> None:
    """All there ever were are not sorted to find the last few."""
    past = Past(memory_path)
    past.build()
    past.fill(10)
    asked: list[str] = []
    with past.database.read() as tx:
        sa.event.listen(tx.connection, "before_cursor_execute", lambda *told: asked.append(told[2]))
        search(tx, Wanted(user="anna", text="x"))
        statement = asked[-1]
        plan = tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", ("x",) * statement.count("?"))
        steps = [step for _, within, _, step in plan if not within]
    assert any("migrations USING INDEX ix_migrations_created_at" in step for step in steps), steps
    # Those of the same moment are put in order, not all that there are.
    assert "USE TEMP B-TREE FOR ORDER BY" not in steps, steps
