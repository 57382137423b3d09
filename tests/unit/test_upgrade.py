"""A database of an earlier version, with a job in flight, is brought to today's; the job goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.persistence import schema
from resizeflow.persistence.database import Database
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


def first_version(folder: Path) -> Columns:
    """What the first migration makes."""
    database = Database(f"sqlite:///{folder / 'first.sqlite'}")
    with database.engine.connect().execution_options(resizeflow_write=True) as connection, connection.begin():
        command.upgrade(schema._config(connection), "0001")
    return columns(database)


def take_back(cloud: Cloud) -> None:
    """Makes the cloud's database one of the first version: what came later is dropped."""
    with cloud.database.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN on_crash"))
        connection.execute(sa.text("ALTER TABLE workers DROP COLUMN flows"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))


@pytest.mark.parametrize("point", ["TransferDisks.create_volume#1.after", "StartDestination.commit.pivot#1.after"])
def test_a_job_in_flight_outlives_an_upgrade(memory_path: Path, point: str) -> None:
    cloud = Cloud(memory_path).build()
    console = Console(cloud.folder / "resizeflow.conf")
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, point) == KILLED
    take_back(cloud)
    assert columns(cloud.database) == first_version(memory_path)
    cloud.release()
    console.type("migration", "list").refused(2, "version 0001", "db upgrade")
    assert console.type("db", "upgrade").code == 0
    assert schema.current(cloud.database) == schema.head()
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
