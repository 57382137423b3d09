"""How a simulated place touches its world: one transaction a call, after what was due, faults included."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

from resizeflow.drivers.interface import Fence, Refused, Unknown, Unreachable
from resizeflow.drivers.simulator.effects import Cause, Origin, log
from resizeflow.drivers.simulator.faults import Fault, capacity_of, halve, refuse, strike
from resizeflow.drivers.simulator.jobs import settle
from resizeflow.drivers.simulator.store import Store, boottime

_PLACE = "SELECT * FROM places WHERE name = ?"


class Session:
    """One place of the world in a store, a host, Cinder or Neutron, and the call under way."""

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
        """Raises `Unreachable` if the place does not answer. One that is away for so many attempts has one less."""
        place = self._known(self.store.row(_PLACE, (self.name,)))
        if place["up"] and not place["hung"]:
            return
        with self.store.transaction() as db:
            db.execute("UPDATE places SET attempts_left = attempts_left - 1 WHERE name = ?", (self.name,))
        raise Unreachable(f"'{self.name}' {'does not answer' if place['up'] else 'is down'}")

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
            capacity = capacity_of(db, self.name, subject)
            changes = db.total_changes
            yield db
            if fault is not None and fault["fault"] == Fault.HALF:
                halve(db, self.name, method, subject, capacity)
            if db.total_changes > changes:
                digest = hashlib.sha256(repr(arguments).encode()).hexdigest()[:16]
                log(db, self.origin, time=boottime(), host=self.name, method=method, subject=subject, digest=digest)
        if fault is not None and not (fault["fault"] == Fault.HALF and method == "transfer"):
            raise Unknown(f"{self.name}: {fault['message']}")

    def refuse_if_late(self, method: str) -> None:
        """Raises `Refused` after the fence's last moment."""
        if self.fence is not None and boottime() > self.fence.not_after:
            raise Refused(f"{self.name}: it is too late to begin {method} under epoch {self.fence.epoch}")

    def place(self, db: sqlite3.Connection) -> sqlite3.Row:
        """Whether the place is up and answers. Raises `Unreachable` if there is none of its name."""
        return self._known(db.execute(_PLACE, (self.name,)).fetchone())

    def _known(self, place: sqlite3.Row | None) -> sqlite3.Row:
        if place is None:
            raise Unreachable(f"there is no '{self.name}' in this world")
        return place

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

    def _refuse_if_away(self, db: sqlite3.Connection) -> None:
        place = self.place(db)
        if not place["up"]:
            raise Unreachable(f"'{self.name}' is down")
        if place["hung"]:
            raise Unknown(f"'{self.name}' does not answer")
