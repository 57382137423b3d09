"""How a simulated host touches its world: one transaction a call, after what was due, faults included."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

from resizeflow.drivers.definition import Mark, read
from resizeflow.drivers.hypervisor import Missing, Refused, Unknown, Unreachable
from resizeflow.drivers.simulator.disks import Shelf
from resizeflow.drivers.simulator.jobs import settle
from resizeflow.drivers.simulator.store import Store, boottime


class HostSession:
    """One host of the world in a store, and the call under way."""

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        emit: Callable[[Any], None] = lambda _: None,
        not_after: float | None = None,
        stopped: Event | None = None,
    ) -> None:
        self.name = name
        self.store = store
        self.emit = emit
        self.stopped = stopped or Event()
        self._not_after = not_after

    def check_up(self) -> None:
        """Raises `Unreachable` if the host does not answer."""
        with self.store.reading() as db:
            self._refuse_if_down(db)

    @contextmanager
    def looking(self, method: str) -> Iterator[sqlite3.Connection]:
        """A transaction that only reads."""
        lost_reply = self._come_to_now(method)
        if lost_reply is not None:
            raise Unknown(f"{self.name}: {lost_reply}")
        with self.store.reading() as db:
            yield db

    @contextmanager
    def acting(self, method: str, subject: str, *arguments: object) -> Iterator[sqlite3.Connection]:
        """A transaction that changes the world, and is logged if it did."""
        if self._not_after is not None and boottime() > self._not_after:
            raise Refused(f"{self.name}: it is too late to begin {method}")
        lost_reply = self._come_to_now(method)
        with self.store.transaction() as db:
            mark = self._mark(db, subject, arguments)
            changes = db.total_changes
            yield db
            if db.total_changes > changes:
                self._log(db, method, subject, arguments, mark)
        if lost_reply is not None:
            raise Unknown(f"{self.name}: {lost_reply}")

    def _log(self, db: sqlite3.Connection, method: str, subject: str, arguments: object, mark: Mark | None) -> None:
        digest = hashlib.sha256(repr(arguments).encode()).hexdigest()[:16]
        stamp = (None, None) if mark is None else (mark.migration, mark.epoch)
        db.execute(
            """INSERT INTO effects (time, host, method, subject, digest, migration, epoch)
               VALUES (?, ?, ?, ?, ?, ?, ?)""",
            (boottime(), self.name, method, subject, digest, *stamp),
        )

    def _come_to_now(self, method: str) -> str | None:
        """Lets happen what is due, then a fault that waits; returns the words of one that loses the reply."""
        if not self.store.eventful():
            self.check_up()
            return None
        with self.store.transaction() as db:
            self._refuse_if_down(db)
            settle(db, boottime())
            fault = db.execute(
                "SELECT * FROM faults WHERE host = ? AND method = ? AND times != 0 ORDER BY id LIMIT 1",
                (self.name, method),
            ).fetchone()
            if fault is None:
                return None
            db.execute("UPDATE faults SET times = times - 1 WHERE id = ? AND times > 0", (fault["id"],))
            db.execute("DELETE FROM faults WHERE times = 0")
        if not fault["after_effect"]:
            raise Refused(f"{self.name}: {fault['message']}")
        return str(fault["message"])

    def host(self, db: sqlite3.Connection) -> sqlite3.Row:
        """The host itself."""
        row: sqlite3.Row | None = db.execute("SELECT * FROM hosts WHERE name = ?", (self.name,)).fetchone()
        if row is None:
            raise Unreachable(f"there is no host '{self.name}'")
        return row

    def _refuse_if_down(self, db: sqlite3.Connection) -> None:
        if not self.host(db)["up"]:
            raise Unreachable(f"host '{self.name}' is down")

    def shelf(self, db: sqlite3.Connection, pool: str) -> Shelf:
        """The host's pool. Raises `Missing` if it has another name."""
        shelf = Shelf.of(db, self.name)
        shelf.check_pool(pool)
        return shelf

    def domain_row(self, db: sqlite3.Connection, uuid: str) -> sqlite3.Row:
        """A domain of this host. Raises `Missing`."""
        row: sqlite3.Row | None = find_domain(db, self.name, uuid)
        if row is None:
            raise Missing(f"{self.name} has no domain {uuid}")
        return row

    def active_row(self, db: sqlite3.Connection, uuid: str) -> sqlite3.Row:
        """A domain that runs or is paused. Raises `Refused`."""
        row = self.domain_row(db, uuid)
        if row["live_xml"] is None:
            raise Refused(f"domain '{row['name']}' is not running")
        return row

    def update(self, db: sqlite3.Connection, uuid: str, **values: object) -> None:
        """Changes columns of a domain."""
        columns = ", ".join(f"{column} = ?" for column in values)
        where = (*values.values(), self.name, uuid)
        db.execute(f"UPDATE domains SET {columns} WHERE host = ? AND uuid = ?", where)  # noqa: S608 - our names

    def _mark(self, db: sqlite3.Connection, subject: str, arguments: tuple[object, ...]) -> Mark | None:
        """Whose effect it is, if the call or the domain says so."""
        row = find_domain(db, self.name, subject)
        known = [] if row is None else [row["live_xml"], row["inactive_xml"]]
        for xml in [*arguments, *known]:
            if isinstance(xml, str) and xml.lstrip().startswith("<"):
                mark = read(xml).mark
                if mark is not None:
                    return mark
        return None


def find_domain(db: sqlite3.Connection, host: str, uuid: str) -> sqlite3.Row | None:
    """A domain of a host, None if it knows none."""
    where = (host, uuid)
    row: sqlite3.Row | None = db.execute("SELECT * FROM domains WHERE host = ? AND uuid = ?", where).fetchone()
    return row


def setting(db: sqlite3.Connection, name: str) -> float:
    """One of the world's speeds."""
    return float(db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()[0])
