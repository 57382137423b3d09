"""The schema's version: Alembic migrations, run for the user on a new database and by `resizeflow db upgrade`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from resizeflow.errors import UsageError
from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.database import Database
from resizeflow.persistence.events import sign_old_logs

UPGRADE = 0x7265_7369_7A65
"""The number of the lock under which PostgreSQL is upgraded, by one at a time."""
UNSIGNED = ("0001", "0002", "0003", "0004", "0005")
"""Versions whose logs were chained without a key."""


def _config(connection: sa.Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """The version that this program needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise LookupError("resizeflow is installed without its migrations")
    return revision


def current(database: Database) -> str | None:
    """The version that a database has, None if it is empty."""
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(database: Database) -> tuple[str | None, str]:
    """Brings a database to this program's version; the versions before and after. Raises UsageError if it is newer."""
    before = current(database)
    _require_known(before)
    if before != head():
        with (
            database.engine.connect().execution_options(resizeflow_write=True) as connection,
            connection.begin(),
        ):
            if not database.sqlite:
                # The first commands of several machines may find the same database empty.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE)))
            before = MigrationContext.configure(connection).get_current_revision()
            command.upgrade(_config(connection), "head")
            if before not in (None, head()) and database.key is not None:
                _tell(database, connection, database.key, before)
    return before, head()


def _tell(database: Database, connection: sa.Connection, key: AuditKey, before: str | None) -> None:
    """The log of an upgraded database says so, and has its key from now on."""
    key.require(connection, database.clock.now())
    if before in UNSIGNED:
        sign_old_logs(connection, key)
    with closing(database.transaction(connection)) as tx:
        tx.events.command(f"the database was upgraded from version {before} to {head()}")
        tx.events.flush()


def require_current(database: Database) -> None:
    """Makes a new database ready; refuses one of another version with what to do."""
    version = current(database)
    if version is None:
        upgrade(database)
    elif version != head():
        _require_known(version)
        raise UsageError(
            f"The database has version {version}, this program needs {head()}: run `resizeflow db upgrade`."
        )


def _require_known(version: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if version is not None and version not in known:
        raise UsageError(
            f"The database has version {version}, which this program does not know: it is newer than the program. "
            "Upgrade resizeflow."
        )
