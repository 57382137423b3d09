"""A database of an earlier version, with a job in flight, is brought to today's; the job goes on."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.persistence import schema
from resizeflow.persistence.database import Database
from resizeflow.persistence.models import FLEET
from resizeflow.states import Direction, JobState, MigrationStatus, OnCrash
from tests.console import Console

Columns = dict[str, dict[str, tuple[str, bool]]]


def columns(database: Database) -> Columns:
    """Every column of every table, with its type and whether it may be null."""
    inspector = sa.inspect(database.engine)
    return {
        table: {column["name"]: (str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)}
        for table in inspector.get_table_names()
    }


def first_version(folder: Path) -> Path:
    """An empty database as the first migration makes it."""
    path = folder / "first.sqlite"
    database = Database(f"sqlite:///{path}")
    with database.engine.connect().execution_options(resizeflow_write=True) as connection, connection.begin():
        command.upgrade(schema._config(connection), "0001")
    database.engine.dispose()
    return path


def take_back(cloud: Cloud) -> None:
    """Makes the cloud's database one of the first version: it has what that version would have written."""
    first = first_version(cloud.folder)
    now = Path(cloud.database.engine.url.database or "")
    with contextlib.closing(sqlite3.connect(first)) as old, old:
        old.execute("ATTACH DATABASE ? AS now", [str(now)])
        tables = [name for (name,) in old.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
        for table in [name for name in tables if name not in ("alembic_version", "sqlite_sequence")]:
            names = ", ".join(f'"{row[1]}"' for row in old.execute(f"PRAGMA main.table_info({table})"))
            old.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM now.{table}")  # noqa: S608 - names of our own tables
        old.execute("DELETE FROM main.events WHERE migration_id = ?", [FLEET])  # The fleet had no log then.
    cloud.database.engine.dispose()
    for suffix in ("-wal", "-shm"):
        now.with_name(now.name + suffix).unlink(missing_ok=True)
    first.replace(now)


@pytest.mark.parametrize("point", ["TransferDisks.create_volume#1.after", "StartDestination.commit.pivot#1.after"])
def test_a_job_in_flight_outlives_an_upgrade(memory_path: Path, point: str) -> None:
    cloud = Cloud(memory_path).build()
    console = Console(cloud.folder / "resizeflow.conf")
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, point) == KILLED
    take_back(cloud)
    assert schema.current(cloud.database) == "0001"
    cloud.release()
    console.type("migration", "list").refused(2, "version 0001", "db upgrade")
    assert console.type("db", "upgrade").code == 0
    assert schema.current(cloud.database) == schema.head()
    with cloud.database.read() as tx:
        told = f"the database was upgraded from version 0001 to {schema.head()}"
        assert [event.text for event in tx.events.of(FLEET)] == [told]
        assert tx.events.flaw(FLEET) is None
    row = cloud.job(job)
    assert (row.on_crash, row.state, row.epoch) == (OnCrash.RESUME, JobState.RUNNING, 1)
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    assert cloud.job(job).direction is Direction.FORWARD
    assert cloud.migration(job).status is MigrationStatus.FINISHED
    assert cloud.world.running(cloud.uuid) == ("h2",)


def test_an_upgraded_database_is_as_a_new_one(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build()
    new = columns(cloud.database)
    take_back(cloud)
    schema.upgrade(cloud.database)
    assert columns(cloud.database) == new
