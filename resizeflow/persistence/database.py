"""The way into the state database: read, write, and write under a lease."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import engines
from sqlalchemy.orm import Session

from resizeflow import failpoints
from resizeflow.clock import Clock
from resizeflow.errors import UsageError
from resizeflow.handover import Handover, LeaseLost
from resizeflow.lease import Lease
from resizeflow.persistence.models import Job
from resizeflow.persistence.transaction import Transaction

BUSY_SECONDS = 20
"""How long an SQLite writer waits for another one before the database counts as away."""
AWAY = (db_exc.DBError, sa.exc.DBAPIError, sa.exc.TimeoutError)


class Database:
    """SQLite (WAL, synchronous=FULL, asserted) or PostgreSQL, through oslo.db."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.url = url
        self.clock = clock or Clock()
        parsed = _parse(url)
        self.sqlite = parsed.get_backend_name() == "sqlite"
        if self.sqlite and parsed.database:
            _make_folder(Path(parsed.database).parent)
        try:
            self.engine: sa.Engine = engines.create_engine(url, sqlite_fk=True, max_retries=0)
            if self.sqlite:
                self._prepare_sqlite()
            else:
                with self.engine.connect():
                    pass
        except (*AWAY, sa.exc.ArgumentError, ImportError, OSError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UsageError(
                f"The database {parsed.render_as_string(hide_password=True)} cannot be opened: {reason}. "
                "Check [database] connection in the configuration."
            ) from None

    def _prepare_sqlite(self) -> None:
        @sa.event.listens_for(self.engine, "connect")
        def durable(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
            cursor.execute("PRAGMA journal_mode=WAL")
            mode = cursor.fetchone()
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA synchronous")
            synchronous = cursor.fetchone()
            cursor.close()
            if (mode, synchronous) != (("wal",), (2,)):
                raise UsageError(
                    f"SQLite gives journal_mode {mode}, synchronous {synchronous} where WAL and FULL are needed: "
                    "the file system of the state directory does not support them; put it on a local disk."
                )

        # oslo.db begins every transaction deferred; one that reads before it writes can then fail in the middle
        # instead of waiting at its start.
        @sa.event.listens_for(self.engine, "before_cursor_execute", retval=True)
        def begin_immediate(
            connection: sa.Connection, _cursor: object, statement: str, parameters: Any, *_context: object
        ) -> tuple[str, Any]:
            if statement == "BEGIN" and connection.get_execution_options().get("resizeflow_write"):
                statement = "BEGIN IMMEDIATE"
            return statement, parameters

        with self.engine.connect():
            pass

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent view; nothing is written."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield Transaction(session, self.clock)

    @contextlib.contextmanager
    def write(self, lease: Lease | None = None) -> Iterator[Transaction]:
        """A transaction, committed at the end of the block; with a lease, only if its epoch is still the job's."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            session.connection(execution_options={"resizeflow_write": True})
            if lease is not None:
                _lock_at_epoch(session, lease)
            yield Transaction(session, self.clock, lease)

    @contextlib.contextmanager
    def fenced(self, lease: Lease, point: str) -> Iterator[Transaction]:
        """`write` from within a flow: a database that is away is a Handover, never a failed task."""
        failpoints.hit(f"{point}.before")
        try:
            with self.write(lease) as tx:
                yield tx
        except AWAY as error:
            raise Handover(f"the database does not answer: {str(error).splitlines()[0]}", delay=5.0) from error
        failpoints.hit(f"{point}.after")


def _lock_at_epoch(session: Session, lease: Lease) -> None:
    """Locks the job's row against a take-over until the commit (`AND EXISTS` in an UPDATE would be no fence under
    READ COMMITTED). SQLite has locked the whole file by BEGIN IMMEDIATE."""
    row = session.execute(
        sa.select(Job.epoch).where(Job.id == lease.job_id, Job.epoch == lease.epoch).with_for_update(read=True)
    ).first()
    if row is None:
        lease.lost = True
        raise LeaseLost("another worker has taken this job over")


def _parse(url: str) -> sa.URL:
    try:
        return sa.make_url(url)
    except sa.exc.ArgumentError:
        raise UsageError(
            "[database] connection is not an SQLAlchemy URL; write sqlite:////path/to/file or "
            "postgresql+psycopg2://user:password@host/database."
        ) from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The state directory {folder} cannot be made: {error.strerror}.") from None
