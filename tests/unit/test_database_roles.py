"""docs/install.md, "Roles": its statements give a worker's role all that a resize needs, and no way to change what was
logged."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from lab.postgresql import PostgreSQL
from resizeflow.chaos.cloud import Cloud
from resizeflow.persistence import schema
from resizeflow.persistence.database import Database
from resizeflow.states import JobState
from tests.console import Console
from tests.documented import ROOT

PASSWORD = "secret"  # noqa: S105 - of a server that lives as long as the test


def statements() -> list[str]:
    """The SQL of the section: of the administrator, then of the owner."""
    section = (
        (ROOT / "docs/install.md").read_text(encoding="utf-8").partition("\n### Roles\n")[2].partition("\n### ")[0]
    )
    blocks = re.findall(r"^```sql\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    return [block.replace("'PASSWORD'", f"'{PASSWORD}'") for block in blocks]


def run(url: str, sql: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in filter(None, map(str.strip, sql.split(";"))):
            connection.execute(sa.text(statement))
    engine.dispose()


@pytest.fixture(scope="module")
def worker_url(postgresql: PostgreSQL) -> Iterator[str]:
    """The database as the docs make it, as the role of workers."""
    by_administrator, by_owner = statements()
    run(postgresql.url("postgres"), by_administrator)
    place = postgresql.url("resizeflow").partition("@")[2]
    owner = f"postgresql+psycopg2://resizeflow_owner:{PASSWORD}@{place}"
    database = Database(owner)
    schema.upgrade(database)
    database.engine.dispose()
    run(owner, by_owner)
    yield f"postgresql+psycopg2://resizeflow:{PASSWORD}@{place}"
    postgresql.drop_database("resizeflow")
    run(postgresql.url("postgres"), "DROP ROLE resizeflow; DROP ROLE resizeflow_owner")


@pytest.fixture(scope="module")
def cloud(worker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    return Cloud(tmp_path_factory.mktemp("cloud"), connection=worker_url).build()


def test_all_goes_as_the_worker_s_role(cloud: Cloud) -> None:
    assert cloud.run(cloud.service.resize("web", "big", host="h2")) is JobState.DONE
    assert cloud.run(cloud.service.confirm("web")) is JobState.DONE
    with cloud.database.read() as tx:
        instance = tx.instances.get("web")
        assert (instance.host.name, instance.flavor.name) == ("h2", "big")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET text = 'nothing happened'",
        "DELETE FROM events",
        "TRUNCATE events",
        "UPDATE seals SET migration_id = migration_id",
        "DELETE FROM seals",
        "DELETE FROM event_logs",
        "UPDATE audit_keys SET fingerprint = ''",
        "UPDATE alembic_version SET version_num = '0001'",
        "DROP TABLE events",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "CREATE TABLE events_of_ours (id integer)",
        "GRANT UPDATE ON events TO resizeflow",
    ],
)
def test_what_was_logged_stays(worker_url: str, statement: str) -> None:
    engine = sa.create_engine(worker_url)
    try:
        with engine.begin() as connection:
            if statement.startswith("GRANT"):
                # PostgreSQL only warns about a grant that grants nothing.
                connection.execute(sa.text(statement))
                statement = "UPDATE events SET text = 'nothing happened'"
            with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
                connection.execute(sa.text(statement))
    finally:
        engine.dispose()


def test_only_the_owner_prunes(cloud: Cloud, worker_url: str) -> None:
    worker = Console(cloud.folder / "resizeflow.conf")
    owner = Console(cloud.folder / "owner.conf")
    settings = worker.config.read_text()
    owner.config.write_text(settings.replace("//resizeflow:", "//resizeflow_owner:"))
    archive = str(cloud.folder / "archive.jsonl")
    assert worker.type("audit", "export", "--before", "0h", "--output", archive).code == 0
    lines = len(worker.ask("audit", "log", "--limit", "100000"))
    worker.type("audit", "prune", "--archive", archive).refused(2, "permission denied", "The tables' owner may")
    assert len(worker.ask("audit", "log", "--limit", "100000")) >= lines
    assert owner.type("audit", "prune", "--archive", archive).code == 0
    assert len(worker.ask("audit", "log", "--limit", "100000")) < lines
    assert worker.type("audit", "verify").code == 0
