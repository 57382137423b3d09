"""How a simulated host touches its world: one transaction a call, after what was due, faults included."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

from resizeflow.drivers.hypervisor import Fence, Missing, Refused, Unknown, Unreachable
from resizeflow.drivers.simulator.disks import Shelf
from resizeflow.drivers.simulator.effects import Cause, Origin, log
from resizeflow.drivers.simulator.faults import Fault, halve, refuse, strike
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
        fence: Fence | None = None,
        caused: Cause = Cause.CALL,
        stopped: Event | None = None,
    ) -> None:
        self.name = name
        self.store = store
        self.emit = emit
        self.stopped = stopped or Event()
        self.fence = fence
        self.origin = Origin(caused=caused) if fence is None else Origin(fence.job_id, fence.epoch, caused)

    def connect(self) -> None:
        """Raises `Unreachable` if the host does not answer. One that is away for so many attempts has one less."""
        with self.store.reading() as db:
            host = self.host(db)
        if host["up"] and not host["hung"]:
            return
        with self.store.transaction() as db:
            db.execute("UPDATE hosts SET attempts_left = attempts_left - 1 WHERE name = ?", (self.name,))
        raise Unreachable(f"host '{self.name}' {'does not answer' if host['up'] else 'is down'}")

    @contextmanager
    def looking(self, method: str) -> Iterator[sqlite3.Connection]:
        """A transaction that only reads."""
        fault = self._come_to_now(method)
        if fault is not None:
            raise Unknown(f"{self.name}: {fault['message']}")
        with self.store.reading() as db:
            yield db

    @contextmanager
    def acting(
        self, method: str, subject: str, *arguments: object, begun: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """A transaction that changes the world, and is logged if it did. What has `begun` in time may end later."""
        if not begun and self.origin.caused is Cause.CALL:
            self.refuse_if_late(method)
        fault = self._come_to_now(method, making=True)
        with self.store.transaction() as db:
            capacity = _capacity(db, self.name, subject)
            changes = db.total_changes
            yield db
            if fault is not None and fault["fault"] == Fault.HALF:
                halve(db, Shelf.of(db, self.name).storage, method, subject, capacity)
            if db.total_changes > changes:
                digest = hashlib.sha256(repr(arguments).encode()).hexdigest()[:16]
                log(db, self.origin, time=boottime(), host=self.name, method=method, subject=subject, digest=digest)
        if fault is not None and not (fault["fault"] == Fault.HALF and method == "transfer"):
            raise Unknown(f"{self.name}: {fault['message']}")

    def refuse_if_late(self, method: str) -> None:
        """Raises `Refused` after the fence's last moment."""
        if self.fence is not None and boottime() > self.fence.not_after:
            raise Refused(f"{self.name}: it is too late to begin {method} under epoch {self.fence.epoch}")

    def _come_to_now(self, method: str, *, making: bool = False) -> sqlite3.Row | None:
        """Lets happen what is due, then a fault that waits; returns one that takes effect before it strikes."""
        if not self.store.eventful():
            return None
        with self.store.transaction() as db:
            self._refuse_if_away(db)
            settle(db, boottime())
            fault = strike(db, self.name, method, making=making)
        if fault is not None:
            refuse(self.name, fault)
        return fault

    def host(self, db: sqlite3.Connection) -> sqlite3.Row:
        """The host itself."""
        row: sqlite3.Row | None = db.execute("SELECT * FROM hosts WHERE name = ?", (self.name,)).fetchone()
        if row is None:
            raise Unreachable(f"there is no host '{self.name}'")
        return row

    def _refuse_if_away(self, db: sqlite3.Connection) -> None:
        host = self.host(db)
        if not host["up"]:
            raise Unreachable(f"host '{self.name}' is down")
        if host["hung"]:
            raise Unknown(f"host '{self.name}' does not answer")

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


def find_domain(db: sqlite3.Connection, host: str, uuid: str) -> sqlite3.Row | None:
    """A domain of a host, None if it knows none."""
    where = (host, uuid)
    row: sqlite3.Row | None = db.execute("SELECT * FROM domains WHERE host = ? AND uuid = ?", where).fetchone()
    return row


def _capacity(db: sqlite3.Connection, host: str, volume: str) -> int:
    row = Shelf.of(db, host).volume(volume)
    return 0 if row is None else row.capacity


def setting(db: sqlite3.Connection, name: str) -> float:
    """One of the world's speeds."""
    return float(db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()[0])
