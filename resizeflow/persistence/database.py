"""The way into the state database: read, write, and write under a lease."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import engines

from resizeflow import failpoints
from resizeflow.actor import Actor
from resizeflow.clock import Clock
from resizeflow.config import Notifications, Settings
from resizeflow.errors import DatabaseNotOpened, UsageError
from resizeflow.handover import Handover, LeaseLost
from resizeflow.lease import Lease
from resizeflow.persistence.audit_key import AuditKey
from resizeflow.persistence.models import Job, Migration
from resizeflow.persistence.transaction import Transaction
from resizeflow.states import Direction

BUSY_SECONDS = 20
"""How long a writer waits for another one before the database counts as away."""
POSTGRESQL = {
    "connect_timeout": "10",
    # A server that has vanished without a word is noticed in this time, ...
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "20000",
    # ... and so is a client: one that was stopped in the middle of a transaction loses its locks.
    "options": f"-c lock_timeout={BUSY_SECONDS}s -c idle_in_transaction_session_timeout={BUSY_SECONDS}s",
}
"""How libpq connects, where the URL does not say otherwise."""
_JOBS, _MIGRATIONS = cast("sa.Table", Job.__table__), cast("sa.Table", Migration.__table__)
_AT_EPOCH = (
    sa.select(_JOBS.c.direction)
    .join(_MIGRATIONS, _MIGRATIONS.c.id == _JOBS.c.migration_id)
    .where(_JOBS.c.id == sa.bindparam("job"), _JOBS.c.epoch == sa.bindparam("epoch"))
    .with_for_update(key_share=True)
)
AWAY = (db_exc.DBError, sa.exc.DBAPIError, sa.exc.TimeoutError)
INSUFFICIENT_PRIVILEGE = "42501"
"""PostgreSQL's SQLSTATE."""


class Database:
    """SQLite (WAL, synchronous=FULL, asserted) or PostgreSQL, through oslo.db."""

    def __init__(
        self,
        url: str,
        clock: Clock | None = None,
        *,
        notifications: Notifications | None = None,
        key: Path | None = None,
    ) -> None:
        """`notifications`: what its transactions tell others; by default that is only recorded. `key`: the file with
        the key of its event log, without which none is written. Raises UsageError, without the URL's password, if it
        cannot be opened."""
        self.clock = clock or Clock()
        self.key = AuditKey(key) if key else None
        self.actor = Actor.here()
        self.watchers: list[Callable[[Transaction], None]] = []
        """They are shown each transaction that was committed, and raise nothing."""
        self._notifications = notifications or Notifications()
        parsed = _parse(url)
        self.sqlite = parsed.get_backend_name() == "sqlite"
        reading: dict[str, Any] = {}
        writing: dict[str, Any] = {"resizeflow_write": True}
        if self.sqlite and parsed.database:
            _make_folder(Path(parsed.database).parent)
        try:
            if not self.sqlite:
                parsed = parsed.set(query={**POSTGRESQL, **parsed.query})
                reading |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
                writing |= {"isolation_level": "READ COMMITTED"}
            self.engine: sa.Engine = engines.create_engine(
                parsed, sqlite_fk=True, max_retries=0, thread_checkin=False, _engine_target=_pooled
            )
            if self.sqlite:
                self._prepare_sqlite()
            self._reading = self.engine.execution_options(**reading)
            self._writing = self.engine.execution_options(**writing)
            with self.engine.connect():
                pass
        except (*AWAY, sa.exc.ArgumentError, ImportError, OSError) as error:
            raise DatabaseNotOpened(
                f"The database {_shown(parsed)} cannot be opened: {in_short(error)}. "
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

    @classmethod
    def of(cls, settings: Settings) -> Database:
        """The database of the settings."""
        return cls(settings.connection, notifications=settings.notifications, key=settings.audit_key_file)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent view; nothing is written."""
        with self._reading.connect() as connection, closing(self.transaction(connection)) as tx:
            yield tx

    @contextmanager
    def write(self, lease: Lease | None = None, *, point: str | None = None) -> Iterator[Transaction]:
        """A transaction, committed at the end of the block; with a lease, only if its epoch is still the job's. Every
        commit that a job's way depends on has a failpoint; what only tells of a worker, or of the fleet, has none."""
        self._require_key()
        _pass(point, "before")
        with self._writing.connect() as connection, closing(self.transaction(connection, lease)) as tx:
            connection.begin()
            if lease is not None:
                _lock_at_epoch(connection, lease)
            yield tx
            tx.commit()
            for watcher in self.watchers:
                watcher(tx)
        _pass(point, "after")

    def _require_key(self) -> None:
        """Before the first write: in a transaction of its own, whatever becomes of the write."""
        if self.key is not None and not self.key.known:
            with self._writing.begin() as connection:
                self.key.require(connection, self.clock.now())
            self.key.known = True

    def transaction(self, connection: sa.Connection, lease: Lease | None = None) -> Transaction:
        """On a connection whose transaction is begun and ended elsewhere."""
        return Transaction(connection, self.clock, self._notifications, actor=self.actor, key=self.key, lease=lease)

    @contextmanager
    def fenced(self, lease: Lease, point: str) -> Iterator[Transaction]:
        """`write` from within a flow: a database that is away is a Handover, never a failed task."""
        try:
            with self.write(lease, point=point) as tx:
                yield tx
        except AWAY as error:
            raise away(error) from error


def _pass(point: str | None, moment: str) -> None:
    if point is None:
        return
    try:
        failpoints.hit(f"{point}.{moment}")
    except failpoints.FailpointError as error:
        raise db_exc.DBConnectionError(error) from error


def _pooled(url: sa.URL, **arguments: Any) -> tuple[sa.Engine, sa.Engine]:
    """oslo.db opens an SQLite file for each transaction; the end of the last one on a file writes all of it back."""
    engine = sa.create_engine(url, **{**arguments, "poolclass": sa.QueuePool})
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "begin", _begin_immediate)
    return engine, engine


def _begin_immediate(connection: sa.Connection) -> None:
    """Before oslo.db's listener, which begins what has not begun: deferred, so that a transaction that reads before it
    writes could fail in the middle instead of waiting at its start."""
    if connection.get_execution_options().get("resizeflow_write"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.info["in_transaction"] = True


def _lock_at_epoch(connection: sa.Connection, lease: Lease) -> None:
    """Locks the job's row against a take-over until the commit (`AND EXISTS` in an UPDATE would be no fence under
    READ COMMITTED), and the migration's against other writers of its log. SQLite has locked the whole file by BEGIN
    IMMEDIATE."""
    direction = connection.scalar(_AT_EPOCH, {"job": lease.job_id, "epoch": lease.epoch})
    if direction is None:
        lease.lost = True
        raise LeaseLost("another worker has taken this job over")
    lease.turned_back = direction is Direction.BACK


def away(error: Exception) -> Handover:
    """What a flow ends with when the database does not answer: nothing failed, it goes on from there in a while."""
    return Handover(f"the database does not answer: {in_short(error)}", delay=5.0)


def in_short(error: Exception) -> str:
    """The first line of a database's error, without SQL, parameters and a full stop."""
    error = _cause(error)
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line.rstrip(".")


def denied(error: Exception) -> bool:
    """Whether PostgreSQL does not let our role do this: docs/install.md, "Roles"."""
    return getattr(_cause(error), "pgcode", None) == INSUFFICIENT_PRIVILEGE


def _cause(error: Exception) -> Exception:
    """What the database itself raised."""
    while isinstance(cause := getattr(error, "orig", None) or getattr(error, "inner_exception", None), Exception):
        error = cause
    return error


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise UsageError(
            "[database] connection is not an SQLAlchemy URL; write sqlite:////path/to/file or "
            "postgresql+psycopg2://user:password@host/database."
        ) from None
    if "@" in (parsed.host or ""):
        # What follows the first one would be taken for the host's name, and be shown.
        raise UsageError("[database] connection has more than one @; in a password write %40 for it.")
    return parsed


def _shown(url: sa.URL) -> str:
    """A URL as it may be shown: passwords are hidden, also one given as a parameter."""
    return url.set(query={}).render_as_string(hide_password=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The state directory {folder} cannot be made: {error.strerror}.") from None
